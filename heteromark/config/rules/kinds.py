"""The config rules of each kind of agents: networks and language models.

For their differences in training, see `training.components`.
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
    """The config rules of one kind of agents.

    Attributes:
        packages: additional packages that must be installed.
    """

    packages: tuple[str, ...]

    def faults(self, config: RunConfig) -> Iterator[Fault]:
        """Yield the conflicts between values, without a file."""

    def files(self, config: RunConfig) -> list[Fault]:
        """Return the faults of the files that the config names. The files are not loaded."""

    def ineffective(self, config: RunConfig) -> dict[str, str]:
        """Map the keys (or whole sections) without effect to the reasons."""

    def ignored(self, agent: AgentConfig, key: str) -> str:
        """Return why algorithms of this kind ignore a hyperparameter; empty if they may use it."""

    def checked_by_environment(self, config: RunConfig) -> list[object]:
        """Return the settings that can only be checked by creating the environment.

        Plain data, so that equal settings are checked once; empty if there are none.
        """


_RULES: dict[str, KindRules] = {NETWORKS: NetworkRules(), LLM: LanguageModelRules()}


def rules_of(kind: str) -> KindRules:
    """Return the rules of a kind of agents."""
    return _RULES[kind]


def run_faults(config: RunConfig, file: str = "") -> list[Fault]:
    """Return the conflicts between the sections of a run config.

    Args:
        config: the run config.
        file: the file to report the faults under.
    """
    faults = [*rules_of(config.kind).faults(config), *_selector_faults(config)]
    return [Fault(file, fault.message, fault.key, fault.value) for fault in faults]


def _selector_faults(config: RunConfig) -> Iterator[Fault]:
    """Yield selectors that contradict the agent config's algorithm or network."""
    agent = config.agent
    network = NETWORK_OF_POLICY_TYPE.get(config.policy_type, agent.network.policy)
    known = agent.network.policy in NETWORK_OF_POLICY_TYPE.values()
    selected = (
        ("loss_type", config.loss_type, selected_by(config.loss_type, agent.algorithm)),
        ("policy_type", config.policy_type, network if known else agent.network.policy),
    )
    set_in_agent = (
        ("agent.algorithm", agent.algorithm),
        ("agent.network.policy", agent.network.policy),
    )
    for (key, value, choice), (agent_key, setting) in zip(selected, set_in_agent, strict=True):
        if choice != setting:
            message = f"selects {choice}, but {agent_key} is {setting}; remove one of the two"
            yield Fault("", message, key, value)
