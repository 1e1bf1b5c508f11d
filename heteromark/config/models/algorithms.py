"""The built-in algorithms, one row each. Whatever differs between them is read from the row.

A new one is its file, its row here, with the model of its own settings, and an agent config that
uses it (docs/extending.md, "A built-in algorithm").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from heteromark.config.fields import Frozen, selector
from heteromark.config.models.llm import GRPOConfig

# The kinds of agents: networks over arrays, and language models.
NETWORKS, LLM = "networks", "llm"
# The module below `heteromark` that builds what a kind is trained with.
COMPONENTS_OF = {NETWORKS: "training.network_components", LLM: "llm.components"}


class HAPPOConfig(Frozen):
    """What only HAPPO uses."""

    agent_order: Literal["random", "fixed"] = Field(
        "random", description="Order of the sequential updates: fresh each iteration, or fixed."
    )
    action_aggregation: Literal["prod", "mean"] = Field(
        "prod",
        description="How the probability ratios of a continuous action's dimensions become one.",
    )


class AlgorithmSettings(Frozen):
    """The sections of an agent config that belong to one algorithm, or to a few."""

    happo: HAPPOConfig = HAPPOConfig()
    grpo: GRPOConfig = GRPOConfig()


@dataclass(frozen=True)
class AlgorithmRow:
    """What is known of a built-in algorithm.

    Attributes:
        name: what agent configs call it.
        loss: the `loss_type` that trains it, and that selects it unless another row has it first.
        kind: the agents that it trains, `NETWORKS` or `LLM`.
        home: the module below `heteromark` that registers it, and its loss where that is its own.
        critic: whose critics it has where `policy.critic` is auto.
        section: its settings in an agent config, `AlgorithmSettings`; None: it has none.
        is_mirrored: the components hold these settings too, and a run follows from theirs.
        loss_keys: keys of the section `loss` that no other loss reads.
        one_advantage: all agents are trained on the same advantage, so critics are shared.
        acts_alone: the last role of a task acts alone, unless a turn order is given.
    """

    name: str
    loss: str
    kind: str
    home: str
    critic: Literal["team", "own"] = "own"
    section: str | None = None
    is_mirrored: bool = False
    loss_keys: tuple[str, ...] = ()
    one_advantage: bool = False
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
        one_advantage=True,
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
# Of algorithms that share a loss, `loss_type` selects the first.
ALGORITHM_OF_LOSS = {
    row.loss: next(each.name for each in ROWS if each.loss == row.loss) for row in ROWS
}

# An algorithm of the user's own is trained with this loss, unless another is chosen.
DEFAULT_LOSS = {NETWORKS: "ppo", LLM: "grpo"}

Algorithm = selector(*ROW_OF)
LossType = selector(*ALGORITHM_OF_LOSS)


def algorithms_of(kind: str) -> list[str]:
    """Names of the built-in algorithms that train agents of a kind."""
    return [row.name for row in ROWS if row.kind == kind]


def kind_of(algorithm: str, network: str) -> str:
    """The kind of agents that an algorithm trains; one of the user's own, by the network."""
    if row := ROW_OF.get(algorithm):
        return row.kind
    return LLM if network == "TextPolicy" else NETWORKS


def loss_of(algorithm: str, network: str) -> str:
    """The `loss_type` of an algorithm where none is chosen."""
    row = ROW_OF.get(algorithm)
    return row.loss if row else DEFAULT_LOSS[kind_of(algorithm, network)]


def selected_by(loss_type: str, algorithm: str) -> str:
    """The algorithm that a `loss_type` selects, where an agent config names one.

    One of the user's own may be trained with any loss, and so may what a loss is not built in.
    """
    row = ROW_OF.get(algorithm)
    if row is None or row.loss == loss_type:
        return algorithm
    return ALGORITHM_OF_LOSS.get(loss_type, algorithm)


def kind_of_environment(env_type: str) -> str:
    """The kind of agents that act in environments of a type."""
    return LLM if env_type == "text" else NETWORKS
