"""The typed, immutable model of an agent config, config/agents/*.yaml."""

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
    batch_size_conflict,
)
from heteromark.config.models.algorithms import (
    LLM,
    Algorithm,
    AlgorithmSettings,
    algorithms_of,
    kind_of,
)
from heteromark.config.models.components import GaussianConfig, Initialization
from heteromark.config.models.llm import LLMConfig, SchedulerConfig


class NetworkConfig(Frozen):
    """The networks of every group, unless overridden in `policy.groups`."""

    policy: NetworkType = Field(
        "MlpPolicy",
        description="Network type. MlpPolicy: feed-forward; GruPolicy: recurrent, with memory; "
        "CnnPolicy: convolutional, for pictures; "
        "TextPolicy: language model.",
    )
    net_arch: LayerSizes = Field(
        [256, 256], description="Sizes of the hidden layers of actor and critic."
    )
    activation_fn: Activation = Field("tanh", description="Activation between hidden layers.")
    initialization: Initialization = Field(
        "orthogonal", description="Initial weights; xavier: uniform. Biases start at 0."
    )
    output_gain: PositiveNumber = Field(0.01, description="Gain of the actors' last layer.")
    layer_norm: bool = Field(False, description="Layer normalisation after each hidden layer.")
    feature_norm: bool = Field(False, description="Layer normalisation of the observation.")
    observation_norm: bool = Field(
        False,
        description="Shift and scale observations by their running mean and standard deviation.",
    )
    gaussian: GaussianConfig = GaussianConfig()


class PPOConfig(Frozen):
    """The settings shared by all algorithms of the PPO family."""

    clip_range: ClipRange = Field(0.2, description="Clip range of the probability ratio.")
    ent_coef: Coefficient = Field(0.01, description="Weight of the entropy bonus.")
    vf_coef: Coefficient = Field(0.5, description="Weight of the value loss.")
    max_grad_norm: PositiveNumber | None = Field(
        0.5, description="Maximum gradient norm; null: no clipping."
    )
    gae_lambda: Discount = Field(0.95, description="Lambda of generalised advantage estimation.")
    critic_learning_rate: LearningRate | None = Field(
        None, description="Learning rate of the critics; null: learning_rate."
    )
    critic_epochs: Count | None = Field(
        None, description="Passes of the critics over the frames; null: n_epochs."
    )
    critic_batch_size: Count | None = Field(
        None, description="Frames per minibatch of the critics; null: batch_size."
    )
    value_norm_floor: PositiveNumber = Field(
        1e-5, description="Lower limit of the variance that returns are normalised by."
    )
    use_policy_active_masks: bool = Field(
        True,
        description="Average the actor's loss over active steps; false: divide by all steps.",
    )


class _Common(Frozen):
    """The hyperparameters of all algorithms."""

    algorithm: Algorithm = Field("HAPPO", description="Training algorithm.")
    learning_rate: LearningRate = Field(3e-4, description="Learning rate of the optimizer.")
    gamma: Discount = Field(0.99, description="Discount factor of future rewards.")
    n_steps: Count = Field(
        2048,
        description="Frames collected per iteration. For language-model agents: problems times "
        "grpo.num_generations times rounds per problem.",
    )
    batch_size: Count = Field(64, description="Frames per minibatch; must divide n_steps.")
    n_epochs: Count = Field(10, description="Passes over the collected frames per iteration.")
    network: NetworkConfig = NetworkConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    ppo: PPOConfig = PPOConfig()


class Hyperparameters(AlgorithmSettings, _Common):
    """The part of an agent config that affects training."""

    llm: LLMConfig = LLMConfig()

    @property
    def kind(self) -> str:
        """The kind of agents that the algorithm trains."""
        return kind_of(self.algorithm, self.network.policy)

    def conflicts(self) -> Iterator[tuple[str, str]]:
        for key, size in (
            ("batch_size", self.batch_size),
            ("ppo.critic_batch_size", self.ppo.critic_batch_size or self.batch_size),
        ):
            if message := batch_size_conflict(size, self.n_steps, "n_steps"):
                yield key, message
                break
        is_llm = self.kind == LLM
        if is_llm != (self.network.policy == "TextPolicy"):
            wanted = "TextPolicy" if is_llm else "MlpPolicy, GruPolicy or CnnPolicy"
            yield (
                "network.policy",
                f"must be {wanted} with algorithm {self.algorithm}; TextPolicy is for "
                f"{' and '.join(algorithms_of(LLM))}",
            )


class AgentConfig(Hyperparameters):
    """One agent config: its name, algorithm and hyperparameters."""

    agent_id: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=64)] = Field(
        description="Name of the config family, shared by the base and its variants."
    )
    name: str = Field("", max_length=200, description="Display name.")
    version: Count = Field(1, description="Version of the base config.")
    sweep_variant: (
        Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)] | None
    ) = Field(None, description="Name of a sweep variant, such as lr_high; null in a base config.")
    description: str = Field("", description="Purpose of this config.")

    @property
    def short_name(self) -> str:
        """`ppo_agent_lr_high` for a variant, `ppo_agent_v1` for a base config."""
        suffix = self.sweep_variant if self.sweep_variant else f"v{self.version}"
        return f"{self.agent_id}_{suffix}"

    def hyperparameters(self) -> dict[str, Any]:
        """Return the hyperparameters as plain data, without the names."""
        return self.model_dump(include=set(Hyperparameters.model_fields))


class AgentFile(AgentConfig):
    """An agent config file: an agent config and its loading options."""

    defaults: list[str] | None = Field(
        None,
        max_length=1,
        description="Base config of this variant, such as [ppo_agent_v1].",
    )
    resolved: bool = Field(
        False,
        description="The file already contains its base and params.yaml, so neither is applied "
        "again. True in results/selected/agent.yaml.",
    )
