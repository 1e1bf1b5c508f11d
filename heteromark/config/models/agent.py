"""The typed, frozen model of an agent config: what people write in config/agents/*.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from heteromark.config.fields import (
    Activation,
    ClipRange,
    Coefficient,
    Count,
    Discount,
    Frozen,
    LayerSizes,
    LearningRate,
    NetworkType,
    PositiveNumber,
    misfit,
)
from heteromark.config.models.algorithms import (
    LLM,
    Algorithm,
    AlgorithmSettings,
    algorithms_of,
    kind_of,
)
from heteromark.config.models.llm import LLMConfig, SchedulerConfig


class NetworkConfig(Frozen):
    """The networks of every group, unless `policy.groups` says otherwise."""

    policy: NetworkType = Field(
        "MlpPolicy", description="Kind of network: without memory, or with a recurrent layer."
    )
    net_arch: LayerSizes = Field([256, 256], description="Hidden layer sizes, actor and critic.")
    activation_fn: Activation = Field("tanh", description="Activation between hidden layers.")


class PPOConfig(Frozen):
    """What all algorithms of the PPO family share."""

    clip_range: ClipRange = Field(0.2, description="Clip range of the probability ratio.")
    ent_coef: Coefficient = Field(0.01, description="Weight of the entropy bonus.")
    vf_coef: Coefficient = Field(0.5, description="Weight of the value loss.")
    max_grad_norm: PositiveNumber | None = Field(
        0.5, description="Gradient norm is clipped to this; null: not clipped."
    )
    gae_lambda: Discount = Field(0.95, description="Lambda of generalised advantage estimation.")


class _Common(Frozen):
    """The hyperparameters of all algorithms."""

    algorithm: Algorithm = Field("HAPPO", description="Training algorithm.")
    learning_rate: LearningRate = Field(3e-4, description="Adam step size.")
    gamma: Discount = Field(0.99, description="Discount factor of future rewards.")
    n_steps: Count = Field(
        2048,
        description="Frames collected before each update; of language-model agents: problems, "
        "times grpo.num_generations, times the rounds of a problem.",
    )
    batch_size: Count = Field(64, description="Frames in one minibatch; divides n_steps.")
    n_epochs: Count = Field(10, description="Passes over the collected frames per update.")
    network: NetworkConfig = NetworkConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    ppo: PPOConfig = PPOConfig()


class Hyperparameters(AlgorithmSettings, _Common):
    """The part of an agent config that changes what is learnt."""

    llm: LLMConfig = LLMConfig()

    @property
    def kind(self) -> str:
        """The kind of agents that it is for."""
        return kind_of(self.algorithm, self.network.policy)

    def misfits(self) -> Iterator[tuple[str, str]]:
        if message := misfit(self.batch_size, self.n_steps, "n_steps"):
            yield "batch_size", message
        is_llm = self.kind == LLM
        if is_llm != (self.network.policy == "TextPolicy"):
            wanted = "TextPolicy" if is_llm else "MlpPolicy or GruPolicy"
            yield (
                "network.policy",
                f"must be {wanted} with algorithm {self.algorithm}; TextPolicy goes with "
                f"{' and '.join(algorithms_of(LLM))}",
            )


class AgentConfig(Hyperparameters):
    """One agent config: who the agent is, its algorithm and its hyperparameters."""

    agent_id: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=64)] = Field(
        description="Family of the config; base and variants share it."
    )
    name: str = Field("", max_length=200, description="Name for people.")
    version: Count = Field(1, description="Version of the base config.")
    sweep_variant: (
        Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)] | None
    ) = Field(None, description="Set in sweep variants: what is varied, e.g. lr_high.")
    description: str = Field("", description="What this config is for.")

    @property
    def short_name(self) -> str:
        """`ppo_agent_lr_high` for a variant, `ppo_agent_v1` for a base config."""
        suffix = self.sweep_variant if self.sweep_variant else f"v{self.version}"
        return f"{self.agent_id}_{suffix}"

    def hyperparameters(self) -> dict[str, Any]:
        """Everything that changes what is learnt, without names, as plain data."""
        return self.model_dump(include=set(Hyperparameters.model_fields))


class AgentFile(AgentConfig):
    """An agent config file: an agent config, and how it is to be read."""

    defaults: list[str] | None = Field(
        None,
        max_length=1,
        description="Base config that this variant differs from, e.g. [ppo_agent_v1].",
    )
    resolved: bool = Field(
        False,
        description="True in results/selected/agent.yaml: all layers but the command line are in "
        "it already; no base and no params.yaml are applied.",
    )
