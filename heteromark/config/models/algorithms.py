"""The built-in algorithms, one row each. Code reads their differences from the rows.

To add an algorithm, write its module, add its row and the model of its settings here, and write an
agent config that uses it (docs/extending.md, "A built-in algorithm").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from heteromark.config.fields import (
    Coefficient,
    Count,
    Frozen,
    Number,
    PositiveNumber,
    selector,
)
from heteromark.config.models.llm import GRPOConfig

# The kinds of agents: neural networks over arrays, and language models.
NETWORKS, LLM = "networks", "llm"
# The module below `heteromark` that builds the training components of each kind.
COMPONENTS_OF = {NETWORKS: "training.network_components", LLM: "llm.components"}


class HAPPOConfig(Frozen):
    """The settings of the algorithms that update groups one after another."""

    agent_order: Literal["random", "fixed"] = Field(
        "random",
        description="Order in which groups are updated. random: a new order each iteration; "
        "fixed: always the same.",
    )
    action_aggregation: Literal["prod", "mean"] = Field(
        "prod",
        description="How to combine the probability ratios of a continuous action's dimensions.",
    )


class HATRPOConfig(Frozen):
    """The trust region and the line search of HATRPO."""

    kl_threshold: PositiveNumber = Field(
        0.01, description="Maximum mean KL divergence of a group's new policy from the old one."
    )
    line_search_steps: Count = Field(
        10, description="Maximum number of step sizes to try; if all fail, the policy stays."
    )
    accept_ratio: Coefficient = Field(
        0.5, description="Least improvement, as a share of what the gradient predicts."
    )
    backtrack_coeff: Annotated[float, Field(gt=0, lt=1), Number] = Field(
        0.8, description="Factor of the step size after each try."
    )
    cg_steps: Count = Field(10, description="Steps of the conjugate gradient method.")
    cg_damping: Coefficient = Field(0.1, description="Added to the diagonal of the Fisher matrix.")


class AlgorithmSettings(Frozen):
    """The sections of an agent config that only some algorithms use."""

    happo: HAPPOConfig = HAPPOConfig()
    hatrpo: HATRPOConfig = HATRPOConfig()
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
        mirrored: a section of which the components have the same settings, and a run uses those.
        loss_keys: keys of the section `loss` that only some losses read.
        ignores: keys of the components that it does not read, though others do.
        shared_advantage: all agents are trained on the same advantage, so critics are shared.
        acts_alone: only the last role of a task acts, unless a turn order is given.
    """

    name: str
    loss: str
    kind: str
    home: str
    critic: Literal["team", "own"] = "own"
    section: str | None = None
    mirrored: str | None = None
    loss_keys: tuple[str, ...] = ()
    ignores: tuple[str, ...] = ()
    shared_advantage: bool = False
    acts_alone: bool = False

    @property
    def sections(self) -> tuple[str, ...]:
        """All sections of an agent config that it reads and some other algorithms do not."""
        return tuple(filter(None, (self.section, self.mirrored)))


# Groups are updated one after another, on the advantage of the team.
_SEQUENTIAL: dict[str, Any] = {
    "critic": "team",
    "mirrored": "happo",
    "loss_keys": ("agent_order", "action_aggregation"),
    "shared_advantage": True,
}
ROWS = (
    AlgorithmRow("HAPPO", "happo", NETWORKS, "algorithm.happo", **_SEQUENTIAL),
    AlgorithmRow(
        "HATRPO",
        "hatrpo",
        NETWORKS,
        "algorithm.hatrpo",
        section="hatrpo",
        ignores=("loss.entropy_coef", "loss.groups", "loss.use_policy_active_masks"),
        **_SEQUENTIAL,
    ),
    AlgorithmRow("HAA2C", "haa2c", NETWORKS, "algorithm.haa2c", **_SEQUENTIAL),
    AlgorithmRow("MAPPO", "mappo", NETWORKS, "algorithm.ppo", critic="team"),
    AlgorithmRow("IPPO", "ippo", NETWORKS, "algorithm.ppo"),
    AlgorithmRow("MaskablePPO", "ppo", NETWORKS, "algorithm.ppo"),
    AlgorithmRow("GRPO", "grpo", LLM, "llm.algorithm", mirrored="grpo", acts_alone=True),
    AlgorithmRow("AT-GRPO", "at_grpo", LLM, "llm.algorithm", mirrored="grpo"),
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
