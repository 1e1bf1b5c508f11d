"""The built-in algorithms, one row each. Code reads their differences from the rows.

To add an algorithm, write its module, add its row and the model of its settings here, and write an
agent config that uses it (docs/extending.md, "A built-in algorithm").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from heteromark.config.fields import Frozen, selector
from heteromark.config.models.llm import GRPOConfig

# The kinds of agents: neural networks over arrays, and language models.
NETWORKS, LLM = "networks", "llm"
# The module below `heteromark` that builds the training components of each kind.
COMPONENTS_OF = {NETWORKS: "training.network_components", LLM: "llm.components"}


class HAPPOConfig(Frozen):
    """The settings of HAPPO."""

    agent_order: Literal["random", "fixed"] = Field(
        "random",
        description="Order in which groups are updated. random: a new order each iteration; "
        "fixed: always the same.",
    )
    action_aggregation: Literal["prod", "mean"] = Field(
        "prod",
        description="How to combine the probability ratios of a continuous action's dimensions.",
    )


class AlgorithmSettings(Frozen):
    """The sections of an agent config that only some algorithms use."""

    happo: HAPPOConfig = HAPPOConfig()
    grpo: GRPOConfig = GRPOConfig()


@dataclass(frozen=True)
class AlgorithmRow:
    """The properties of a built-in algorithm.

    Attributes:
        name: its name in agent configs.
        loss: its `loss_type`. If several rows share a loss, `loss_type` selects the first of them.
        kind: the kind of agents that it trains, `NETWORKS` or `LLM`.
        home: the module below `heteromark` that registers it, and its loss if it has its own.
        critic: the value of `policy.critic` if that is auto.
        section: its section in an agent config (`AlgorithmSettings`); None: it has no section.
        is_mirrored: the components have the same settings, and a run uses those.
        loss_keys: keys of the section `loss` that no other loss reads.
        shared_advantage: all agents are trained on the same advantage, so critics are shared.
        acts_alone: only the last role of a task acts, unless a turn order is given.
    """

    name: str
    loss: str
    kind: str
    home: str
    critic: Literal["team", "own"] = "own"
    section: str | None = None
    is_mirrored: bool = False
    loss_keys: tuple[str, ...] = ()
    shared_advantage: bool = False
    acts_alone: bool = False


ROWS = (
    AlgorithmRow(
        "HAPPO",
        "happo",
        NETWORKS,
        "algorithm.happo",
        critic="team",
        section="happo",
        is_mirrored=True,
        loss_keys=("agent_order", "action_aggregation"),
        shared_advantage=True,
    ),
    AlgorithmRow("MAPPO", "mappo", NETWORKS, "algorithm.ppo", critic="team"),
    AlgorithmRow("IPPO", "ippo", NETWORKS, "algorithm.ppo"),
    AlgorithmRow("MaskablePPO", "ppo", NETWORKS, "algorithm.ppo"),
    AlgorithmRow(
        "GRPO", "grpo", LLM, "llm.algorithm", section="grpo", is_mirrored=True, acts_alone=True
    ),
    AlgorithmRow("AT-GRPO", "at_grpo", LLM, "llm.algorithm", section="grpo", is_mirrored=True),
)
ROW_OF = {row.name: row for row in ROWS}
# If algorithms share a loss, `loss_type` selects the first.
ALGORITHM_OF_LOSS = {
    row.loss: next(each.name for each in ROWS if each.loss == row.loss) for row in ROWS
}

# The loss of custom algorithms, unless `loss_type` is set.
DEFAULT_LOSS = {NETWORKS: "ppo", LLM: "grpo"}

Algorithm = selector(*ROW_OF)
LossType = selector(*ALGORITHM_OF_LOSS)


def algorithms_of(kind: str) -> list[str]:
    """Return the names of the built-in algorithms that train a kind of agents."""
    return [row.name for row in ROWS if row.kind == kind]


def kind_of(algorithm: str, network: str) -> str:
    """Return the kind of agents that an algorithm trains; for a custom one, by its network."""
    if row := ROW_OF.get(algorithm):
        return row.kind
    return LLM if network == "TextPolicy" else NETWORKS


def loss_of(algorithm: str, network: str) -> str:
    """Return the default `loss_type` of an algorithm."""
    row = ROW_OF.get(algorithm)
    return row.loss if row else DEFAULT_LOSS[kind_of(algorithm, network)]


def selected_by(loss_type: str, algorithm: str) -> str:
    """Return the algorithm that a `loss_type` selects, given the agent config's algorithm.

    A custom algorithm works with any loss, and a custom loss with any algorithm.
    """
    row = ROW_OF.get(algorithm)
    if row is None or row.loss == loss_type:
        return algorithm
    return ALGORITHM_OF_LOSS.get(loss_type, algorithm)


def kind_of_environment(env_type: str) -> str:
    """Return the kind of agents that act in environments of a type."""
    return LLM if env_type == "text" else NETWORKS
