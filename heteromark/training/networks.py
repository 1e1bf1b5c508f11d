"""The kind of agents that are networks over arrays; implements `training.components.Kind`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from heteromark.config.errors import ConfigError, Fault
from heteromark.config.models.components import EvaluationConfig
from heteromark.config.models.run import RunConfig
from heteromark.modules.policy import require_groups
from heteromark.modules.sharing import Share
from heteromark.training.components import KINDS, Components, Report
from heteromark.training.environments import make_environment, require_evaluation
from heteromark.training.evaluation_request import EvaluationRequest
from heteromark.training.evaluator import evaluate
from heteromark.training.loaded_policy import policy_of
from heteromark.training.network_components import network_components
from heteromark.training.saved_policy import SavedPolicy

# Evaluation options that only language-model agents have, with the reason.
_LLM_ONLY = {
    "preset": "its agents generate no text; use --deterministic or --sampled",
    "passes": "it has no problems to attempt repeatedly; use --episodes",
    "transcripts": "its agents generate no text; use --gif to see an episode",
    "swap_roles": "it has no roles",
    "single_agent": "it has no roles",
}


@KINDS.register("networks")
class Networks:
    """See `training.components.Kind`."""

    def components(
        self, config: RunConfig, device: torch.device, share: Share | None = None
    ) -> Components:
        return network_components(config, device, share)

    def quick_to_build(self, config: RunConfig) -> RunConfig:
        environment = config.environment.model_copy(update={"num_workers": 0})
        return config.model_copy(update={"environment": environment})

    def plan(self, config: RunConfig, components: Components) -> Iterator[str]:
        learner = components.learner
        for group in learner.groups.values():
            if group.is_continuous:
                actions = f"{group.action_size} continuous actions"
            else:
                actions = f"{' x '.join(map(str, group.choices))} discrete actions"
            seen = "x".join(map(str, group.image.shape)) if group.image else group.observation_size
            yield (
                f"group {group.name}: agents {', '.join(group.agents)}; "
                f"observation size {seen}, {actions}"
            )
        for kind, networks in (("actor", learner.actors), ("critic", learner.critics)):
            for name, network in networks.items():
                size = sum(parameter.numel() for parameter in network.parameters())
                yield f"{kind} {name}: {size:,} parameters"

    def faults(self, config: RunConfig) -> list[Fault]:
        try:
            with contextlib.closing(make_environment(config, num_envs=1)) as environment:
                require_groups(config, environment.groups)
                require_evaluation(config, environment)
        except ConfigError as error:
            return error.faults
        except Exception as error:  # a user's environment may raise anything
            return [Fault("config", str(error), kind=type(error).__name__)]
        return []

    def evaluation(self, request: EvaluationRequest, config: RunConfig) -> EvaluationConfig:
        return request.applied(config, deterministic=request.deterministic is not False)

    def refused(self, request: EvaluationRequest, config: RunConfig) -> Iterator[Fault]:
        yield from request.given(_LLM_ONLY, f"environment {config.environment.name}")

    def evaluate(
        self, saved: SavedPolicy, request: EvaluationRequest, device: torch.device
    ) -> tuple[Report, list[Any]]:
        policy = policy_of(saved, device)
        settings = self.evaluation(request, policy.config)
        report = evaluate(
            policy.config, policy.actors, request.seed, settings, policy.opponent_pool
        )
        if report["return_mean"] is None:
            raise ValueError("the policy's returns are not finite")
        report = {"iteration": policy.iteration, **report}
        return report, list(_report_lines(policy.config, report))


def _report_lines(config: RunConfig, report: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{config.agent.short_name}, seed {config.seed}, on {config.environment.name}, after "
        f"iteration {report['iteration']}: {report['episodes']} episodes, "
        f"{'most likely' if report['deterministic'] else 'sampled'} actions"
    )
    yield f"return per agent: {report['return_mean']:.2f} ± {report['return_std']:.2f} (std)"
    yield f"episode length:   {report['length_mean']:.1f} frames"
    if report["cut_off"]:
        yield f"cut off:          {report['cut_off']} episodes, after {report['max_steps']} frames"
    if report["win_rate"] is not None:
        other = f" against {report['opponent']}" if config.env_type == "skirmish" else ""
        yield f"win rate:         {report['win_rate']:.1%}{other}"
    if outcomes := report["outcomes"]:
        yield (
            f"against {report['opponent']}: won {outcomes['won']}, drawn {outcomes['drawn']}, lost "
            f"{outcomes['lost']} (seat: {report['seat']}); not lost {report['not_lost_rate']:.1%}"
        )
