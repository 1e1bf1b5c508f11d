"""The language-model implementation of the agent-kind interface (`training.components.Kind`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, get_args

import torch

from heteromark.config.errors import Fault
from heteromark.config.models.components import EvaluationConfig, Preset
from heteromark.config.models.llm import WarmUpConfig
from heteromark.config.models.run import RunConfig
from heteromark.llm.collector import RolloutCollector
from heteromark.llm.components import language_model_components
from heteromark.llm.evaluate_team import evaluate_team
from heteromark.llm.evaluator import preset_of
from heteromark.llm.policies.base import text_policies
from heteromark.training.components import KINDS, Components, Report
from heteromark.training.evaluation_request import EvaluationRequest
from heteromark.training.saved_policy import SavedPolicy

if TYPE_CHECKING:
    from heteromark.modules.sharing import Share

_NO_OPPONENTS = "language-model agents have no opponents"
_NO_IMAGES = "text tasks have no images; use --transcripts to see prompts and responses"
# Evaluation options that language-model agents do not support, with the reason.
_UNSUPPORTED = {
    "opponent": _NO_OPPONENTS,
    "seat": _NO_OPPONENTS,
    "max_steps": "problems end after environment.text.max_turns rounds",
    "gif": _NO_IMAGES,
    "fps": _NO_IMAGES,
}


@KINDS.register("llm")
class LanguageModels:
    """Implements `training.components.Kind` for language-model agents."""

    def components(
        self, config: RunConfig, device: torch.device, share: Share | None = None
    ) -> Components:
        return language_model_components(config, device)

    def quick_to_build(self, config: RunConfig) -> RunConfig:
        # warming up a model takes minutes
        model = config.model.model_copy(update={"warm_up": WarmUpConfig(steps=0)})
        return config.model_copy(update={"model": model})

    def plan(self, config: RunConfig, components: Components) -> Iterator[str]:
        collector = components.collector
        assert isinstance(collector, RolloutCollector), "`components` creates no other collector"
        for role in collector.team.turn_order:
            yield f"role {role}: policy {config.policy_of(role)}"
        for name, policy in text_policies(components.learner.actors).items():
            size = sum(parameter.numel() for parameter in policy.parameters())
            trained = sum(weight.numel() for weight in policy.trained_parameters().values())
            yield f"actor {name}: {size:,} parameters, {trained:,} of them trained"

    def faults(self, config: RunConfig) -> list[Fault]:
        return []  # the config's rules already check the task and the models

    def evaluation(self, request: EvaluationRequest, config: RunConfig) -> EvaluationConfig:
        preset = _preset(request, config)
        greedy = preset == "greedy"
        only_pass = {"passes": 1} if greedy else {}  # greedy passes are identical
        return request.applied(config, preset=preset, deterministic=greedy, **only_pass)

    def refused(self, request: EvaluationRequest, config: RunConfig) -> Iterator[Fault]:
        yield from request.given(_UNSUPPORTED, "language-model agents")
        if request.preset is not None and request.deterministic is not None:
            flag = "--deterministic" if request.deterministic else "--sampled"
            preset = "greedy" if request.deterministic else "sampled"
            message = f"conflicts with {flag}, which means preset {preset}: use only one of them"
            yield Fault("--preset", message, "", request.preset)
        elif request.passes not in (None, 1) and _preset(request, config) == "greedy":
            others = ", ".join(name for name in get_args(Preset) if name != "greedy")
            message = (
                "must be 1 with preset greedy, because all its passes are identical; for more "
                f"passes, choose --preset {others}"
            )
            yield Fault("--passes", message, "", request.passes)

    def evaluate(
        self, saved: SavedPolicy, request: EvaluationRequest, device: torch.device
    ) -> tuple[Report, list[Any]]:
        return evaluate_team(saved, request, self.evaluation(request, saved.config), device)


def _preset(request: EvaluationRequest, config: RunConfig) -> str:
    """Return the sampling preset of an evaluation."""
    if request.preset is not None:
        return request.preset
    if request.deterministic is not None:
        return "greedy" if request.deterministic else "sampled"
    return preset_of(config.evaluation)
