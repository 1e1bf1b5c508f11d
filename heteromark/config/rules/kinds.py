"""Where networks and language models differ in what a config may say: asked here, by kind.

What differs in training is asked in `training.components`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from heteromark.config.errors import Fault
from heteromark.config.fields import NETWORK_OF_POLICY_TYPE
from heteromark.config.models.agent import AgentConfig
from heteromark.config.models.algorithms import LLM, NETWORKS, selected_by
from heteromark.config.models.run import RunConfig
from heteromark.config.rules.llm import LanguageModelRules
from heteromark.config.rules.networks import NetworkRules


class KindRules(Protocol):
    """What the config of one kind of agents has to answer.

    Attributes:
        packages: that have to be installed besides.
    """

    packages: tuple[str, ...]

    def faults(self, config: RunConfig) -> Iterator[Fault]:
        """What does not hold between its values; of unknown file."""

    def files(self, config: RunConfig) -> list[Fault]:
        """What is wrong with the files that it names; looked at, not loaded."""

    def idle(self, config: RunConfig) -> dict[str, str]:
        """The keys (or whole sections) that cannot act in it, each with the reason."""

    def ignored(self, agent: AgentConfig, key: str) -> str:
        """Why a hyperparameter does nothing with an algorithm of this kind; empty: it may act."""

    def questions(self, config: RunConfig) -> list[object]:
        """What only its environment can answer, as plain data; empty: nothing."""


_RULES: dict[str, KindRules] = {NETWORKS: NetworkRules(), LLM: LanguageModelRules()}


def rules_of(kind: str) -> KindRules:
    """The rules of a kind of agents."""
    return _RULES[kind]


def run_faults(config: RunConfig, file: str = "") -> list[Fault]:
    """What must hold between the sections of a run config, and does not.

    Args:
        file: what the faults are reported of.
    """
    faults = [*rules_of(config.kind).faults(config), *_selector_faults(config)]
    return [Fault(file, fault.message, fault.key, fault.value) for fault in faults]


def _selector_faults(config: RunConfig) -> Iterator[Fault]:
    """Selectors that say something else than the agent config's algorithm or network."""
    agent = config.agent
    network = NETWORK_OF_POLICY_TYPE.get(config.policy_type, agent.network.policy)
    known = agent.network.policy in NETWORK_OF_POLICY_TYPE.values()
    meant = (
        ("loss_type", config.loss_type, selected_by(config.loss_type, agent.algorithm)),
        ("policy_type", config.policy_type, network if known else agent.network.policy),
    )
    said = (("agent.algorithm", agent.algorithm), ("agent.network.policy", agent.network.policy))
    for (key, value, means), (other_key, other) in zip(meant, said, strict=True):
        if means != other:
            message = (
                f"means {means}, but {other_key} is {other}; give one of the two, or make them "
                "agree"
            )
            yield Fault("", message, key, value)
