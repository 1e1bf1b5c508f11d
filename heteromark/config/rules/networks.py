"""The config rules of agents that are neural networks over arrays."""

from __future__ import annotations

from collections.abc import Iterator

from heteromark.config.errors import Fault
from heteromark.config.models.agent import AgentConfig
from heteromark.config.models.run import RunConfig
from heteromark.config.nested import lies_in

_OF_LANGUAGE_MODELS = (
    "environment.text",
    "evaluation.passes",
    "evaluation.preset",
    "generation",
    "grpo",
    "model",
    "training.epochs",
    "training.num_batches",
)


class NetworkRules:
    """See `kinds.KindRules`. `RunConfig` itself checks for conflicts between values."""

    packages: tuple[str, ...] = ()

    def faults(self, config: RunConfig) -> Iterator[Fault]:
        return iter(())

    def files(self, config: RunConfig) -> list[Fault]:
        return []

    def ineffective(self, config: RunConfig) -> dict[str, str]:
        reason = f"env_type is {config.env_type}, but only language-model agents use this key"
        return dict.fromkeys(_OF_LANGUAGE_MODELS, f"{reason} (env_type text)")

    def ignored(self, agent: AgentConfig, key: str) -> str:
        if not any(lies_in(key, section) for section in ("grpo", "llm")):
            return ""
        return f"is {agent.algorithm}, which does not train language models"

    def checked_by_environment(self, config: RunConfig) -> list[object]:
        evaluation, sections = config.evaluation, (config.policy, config.loss, config.optimizer)
        groups = [sorted(section.groups) for section in sections]
        opponents = [evaluation.opponent, evaluation.seat]
        if not any(groups) and not any(opponents) and config.environment.opponent.kind == "self":
            return []
        return [
            config.env_type,
            config.environment.model_dump(mode="json"),
            config.policy.share_policy_params,
            config.critic,
            groups,
            opponents,
        ]
