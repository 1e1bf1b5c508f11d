"""Where networks and language models differ in what a config may say: asked here, by kind.

What differs in training is asked in `training.components`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from heteromark.config.errors import Fault
from heteromark.config.fields import NETWORK_OF_POLICY_TYPE
from heteromark.config.models.agent import AgentConfig
from heteromark.config.models.algorithms import ALGORITHM_OF_LOSS, LLM, NETWORKS
from heteromark.config.models.run import RunConfig
from heteromark.config.nested import value_at
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
    for key, other_key, table in (
        ("loss_type", "agent.algorithm", ALGORITHM_OF_LOSS),
        ("policy_type", "agent.network.policy", NETWORK_OF_POLICY_TYPE),
    ):
        value, other = value_at(config, key), value_at(config, other_key)
        if value in table and other in table.values() and table[value] != other:
            message = (
                f"means {table[value]}, but {other_key} is {other}; give one of the two, or make "
                "them agree"
            )
            yield Fault("", message, key, value)
