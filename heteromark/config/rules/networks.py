"""The rules of agents that are networks over arrays."""

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
    """See `kinds.KindRules`. What must hold between values, `RunConfig` itself checks."""

    packages: tuple[str, ...] = ()

    def faults(self, config: RunConfig) -> Iterator[Fault]:
        return iter(())

    def files(self, config: RunConfig) -> list[Fault]:
        return []

    def idle(self, config: RunConfig) -> dict[str, str]:
        reason = f"env_type is {config.env_type}, and it belongs to language-model agents"
        return dict.fromkeys(_OF_LANGUAGE_MODELS, f"{reason} (env_type text)")

    def ignored(self, agent: AgentConfig, key: str) -> str:
        if not any(lies_in(key, section) for section in ("grpo", "llm")):
            return ""
        return f"is {agent.algorithm}, which trains no language model"

    def questions(self, config: RunConfig) -> list[object]:
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
