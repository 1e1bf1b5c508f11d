"""The typed, frozen models of an agent config and of a resolved run config.

Every value that a run depends on passes through these models before any code uses it. They are
also the source of the JSON schemas in `config/schema/`, which editors use to complete and check
the YAML. Units: learning rates are per optimizer step; frames are environment steps of all agents.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveInt,
    model_validator,
)
from pydantic_core import PydanticCustomError

Algorithm = Literal["HAPPO", "MAPPO", "IPPO", "MaskablePPO"]
Activation = Literal["tanh", "relu", "elu"]
Mode = Literal["smoke", "full"]
Device = Literal["auto", "cpu", "cuda"]

# Which loss trains which algorithm.
LOSS_OF_ALGORITHM: dict[str, str] = {
    "HAPPO": "happo",
    "MAPPO": "mappo",
    "IPPO": "ippo",
    "MaskablePPO": "ppo",
}


def _no_bool(value: Any) -> Any:
    """Python takes True for 1; a config that says `learning_rate: yes` means something else."""
    if isinstance(value, bool):
        raise ValueError("Input should be a number, not true or false")
    return value


Number = BeforeValidator(_no_bool)
LearningRate = Annotated[float, Field(gt=0, le=1), Number]
Discount = Annotated[float, Field(ge=0, le=1), Number]
Count = Annotated[PositiveInt, Number]
Coefficient = Annotated[NonNegativeFloat, Number]
LayerSizes = Annotated[list[Count], Field(min_length=1, max_length=16)]
Seed = Annotated[int, Field(ge=0, lt=2**32), Number]


def cross_field_error(key: str, value: Any, message: str) -> PydanticCustomError:
    """An error that concerns several fields, told under the key a user would change."""
    return PydanticCustomError(
        "cross_field", "{message}", {"key": key, "value": value, "message": message}
    )


class Frozen(BaseModel):
    """Base of all config models: immutable, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# --- the agent config: what people write in config/agents/*.yaml -----------------------------


class NetworkConfig(Frozen):
    """The networks of every group, unless `policy.groups` says otherwise."""

    policy: Literal["MlpPolicy"] = Field("MlpPolicy", description="Kind of policy network.")
    net_arch: LayerSizes = Field([256, 256], description="Hidden layer sizes, actor and critic.")
    activation_fn: Activation = Field("tanh", description="Activation between hidden layers.")


class PPOConfig(Frozen):
    """What all algorithms of the PPO family share."""

    clip_range: Annotated[float, Field(gt=0, lt=1), Number] = Field(
        0.2, description="Clip range of the probability ratio."
    )
    ent_coef: Coefficient = Field(0.01, description="Weight of the entropy bonus.")
    vf_coef: Coefficient = Field(0.5, description="Weight of the value loss.")
    max_grad_norm: Annotated[float, Field(gt=0), Number] = Field(
        0.5, description="Gradient norm is clipped to this."
    )
    gae_lambda: Discount = Field(0.95, description="Lambda of generalised advantage estimation.")


class HAPPOConfig(Frozen):
    """What only HAPPO uses."""

    agent_order: Literal["random", "fixed"] = Field(
        "random", description="Order of the sequential updates: fresh each iteration, or fixed."
    )


class Hyperparameters(Frozen):
    """The part of an agent config that changes what is learnt."""

    algorithm: Algorithm = Field("HAPPO", description="Training algorithm.")
    learning_rate: LearningRate = Field(3e-4, description="Adam step size.")
    gamma: Discount = Field(0.99, description="Discount factor of future rewards.")
    n_steps: Count = Field(2048, description="Frames collected before each update.")
    batch_size: Count = Field(64, description="Frames in one minibatch; at most n_steps.")
    n_epochs: Count = Field(10, description="Passes over the collected frames per update.")
    network: NetworkConfig = NetworkConfig()
    ppo: PPOConfig = PPOConfig()
    happo: HAPPOConfig = HAPPOConfig()

    @model_validator(mode="after")
    def _minibatch_fits(self) -> Hyperparameters:
        if self.batch_size > self.n_steps:
            raise cross_field_error(
                "batch_size",
                self.batch_size,
                f"must be at most n_steps, which collects only {self.n_steps} frames",
            )
        return self


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


# --- the components: one Hydra config group each ---------------------------------------------


class EnvironmentConfig(Frozen):
    """Which environment, how many copies of it, and how its agents form groups."""

    name: str = Field(description="Short name; the file in config/environment/.")
    task: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")] = Field(
        description="Import path `module:callable` of the environment's factory."
    )
    kwargs: dict[str, Any] = Field({}, description="Keyword arguments of the factory.")
    episode_length: Count | None = Field(
        None, description="Frames of a full episode; lets budgets be given in episodes."
    )
    num_parallel_envs: Count = Field(16, description="Copies stepped together in one batch.")
    group_by: Literal["prefix", "agent"] = Field(
        "prefix",
        description="One group per agent-name prefix (`marine_0` → `marine`), or per agent.",
    )
    groups: dict[str, Annotated[list[str], Field(min_length=1)]] | None = Field(
        None, description="Explicit map group → agent names; overrides group_by."
    )
    reward: Literal["team", "individual"] = Field(
        "team",
        description="team: every agent is trained on the mean of all agents' rewards; "
        "individual: each on its own. HAPPO and MAPPO optimise a shared return: use team.",
    )


class PolicyOverride(Frozen):
    """Per-group differences from the policy config."""

    hidden_sizes: LayerSizes | None = None
    activation: Activation | None = None


class PolicyConfig(Frozen):
    """Actor per group, and the critics."""

    hidden_sizes: LayerSizes = [256, 256]
    activation: Activation = "tanh"
    critic_hidden_sizes: LayerSizes | None = Field(
        None, description="Hidden layer sizes of the critics; null: as hidden_sizes."
    )
    share_params: bool = Field(True, description="Agents of one group share one actor.")
    groups: dict[str, PolicyOverride] = Field({}, description="Overrides by group.")


class LossConfig(Frozen):
    """Loss of one iteration's batch."""

    clip_epsilon: Annotated[float, Field(gt=0, lt=1), Number] = 0.2
    entropy_coef: Coefficient = 0.01
    critic_coef: Coefficient = 0.5
    critic_loss: Literal["smooth_l1", "l2"] = "smooth_l1"
    gamma: Discount = 0.99
    gae_lambda: Discount = 0.95
    normalize_advantage: bool = True
    normalize_value: bool = Field(True, description="Regress values in normalised units.")
    agent_order: Literal["random", "fixed"] = "random"


class OptimizerConfig(Frozen):
    """One optimizer per group's actor and one per critic."""

    learning_rate: LearningRate = 3e-4
    eps: Annotated[float, Field(gt=0), Number] = 1e-5
    weight_decay: Coefficient = 0.0
    decay: Literal["none", "linear"] = Field(
        "none", description="linear: the learning rate falls to zero over the run's iterations."
    )


class CollectorConfig(Frozen):
    """How a batch is collected."""

    frames_per_batch: Count = 2048


class ReplayBufferConfig(Frozen):
    """How a batch is cut into minibatches."""

    minibatch_size: Count = 64


class TrainingConfig(Frozen):
    """How long, how often, and on how many threads."""

    total_frames: Count = Field(description="Rounded up to whole iterations.")
    num_epochs: Count = 10
    max_grad_norm: Annotated[float, Field(gt=0), Number] = 0.5
    num_threads: Count = Field(1, description="Threads of torch on the CPU.")
    checkpoint_interval: Count = Field(10, description="Iterations between checkpoints.")


class EvaluationConfig(Frozen):
    """What is measured once training is over."""

    episodes: Count = 100
    deterministic: bool = Field(True, description="Most likely action, rather than a sample.")


class RunConfig(Frozen):
    """Everything one run is determined by: one resolved config, one seed, one mode."""

    agent: AgentConfig
    mode: Mode
    seed: Seed
    device: Device = "auto"
    env_type: Literal["pettingzoo"] = "pettingzoo"
    policy_type: Literal["mlp"] = "mlp"
    loss_type: Literal["happo", "mappo", "ippo", "ppo"] = "happo"
    optimizer_type: Literal["adam"] = "adam"
    collector_type: Literal["sync"] = "sync"
    buffer_type: Literal["tensor"] = "tensor"
    environment: EnvironmentConfig
    policy: PolicyConfig
    loss: LossConfig
    optimizer: OptimizerConfig
    collector: CollectorConfig
    replay_buffer: ReplayBufferConfig
    training: TrainingConfig
    evaluation: EvaluationConfig

    @model_validator(mode="after")
    def _batches_fit(self) -> RunConfig:
        frames, envs = self.collector.frames_per_batch, self.environment.num_parallel_envs
        if frames % envs:
            raise cross_field_error(
                "environment.num_parallel_envs",
                envs,
                f"must divide collector.frames_per_batch (agent.n_steps), which is {frames}; the "
                f"nearest n_steps that fit are {frames - frames % envs or envs} and "
                f"{frames + envs - frames % envs}",
            )
        if self.replay_buffer.minibatch_size > frames:
            raise cross_field_error(
                "replay_buffer.minibatch_size",
                self.replay_buffer.minibatch_size,
                f"must be at most collector.frames_per_batch, which is {frames}",
            )
        return self

    @property
    def num_iterations(self) -> int:
        """Iterations of the run: total_frames rounded up to whole batches."""
        return -(-self.training.total_frames // self.collector.frames_per_batch)
