"""The typed, frozen models of an agent config and of a resolved run config.

Every value that a run depends on passes through these models before any code uses it. They are
also the source of the JSON schemas in `config/schema/`, which editors use to complete and check
the YAML. Units: learning rates are per optimizer step; frames are environment steps of all agents.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveInt,
    model_validator,
)
from pydantic_core import PydanticCustomError

_IMPORT_PATH = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"


def _selector(*names: str) -> Any:
    """The type of a key that selects a component: by its name, or one's own by import path."""

    def check(value: str) -> str:
        if value in names or re.match(_IMPORT_PATH, value):
            return value
        raise ValueError(
            f"must be one of {', '.join(names)}; or the import path of your own, `module:attribute`"
        )

    schema = {"anyOf": [{"enum": list(names)}, {"pattern": _IMPORT_PATH}]}
    return Annotated[str, AfterValidator(check), Field(json_schema_extra=schema)]


Algorithm = _selector("HAPPO", "MAPPO", "IPPO", "MaskablePPO")
PolicyType = _selector("mlp", "gru")
LossType = _selector("happo", "mappo", "ippo", "ppo")
OptimizerType = _selector("adam", "adamw", "sgd", "rmsprop")
Mode = Literal["smoke", "full"]
Device = Literal["auto", "cpu", "cuda"]
Opponent = Literal["self", "random", "heuristic", "past_self"]
Seat = Literal["first", "second", "alternate"]
LoggingBackend = Literal["tensorboard", "wandb", "mlflow"]

# Which loss trains which algorithm. One's own is trained with "ppo" unless told otherwise.
LOSS_OF_ALGORITHM: dict[str, str] = {
    "HAPPO": "happo",
    "MAPPO": "mappo",
    "IPPO": "ippo",
    "MaskablePPO": "ppo",
}
ALGORITHM_OF_LOSS = {loss: algorithm for algorithm, loss in LOSS_OF_ALGORITHM.items()}

# Which policy type builds a network.policy of an agent config.
POLICY_TYPE_OF_NETWORK: dict[str, str] = {"MlpPolicy": "mlp", "GruPolicy": "gru"}
NETWORK_OF_POLICY_TYPE = {kind: network for network, kind in POLICY_TYPE_OF_NETWORK.items()}


def _lower(value: Any) -> Any:
    """torch writes `ReLU`; there is nothing else that it could mean."""
    return value.lower() if isinstance(value, str) else value


def _no_bool(value: Any) -> Any:
    """Python takes True for 1; a config that says `learning_rate: yes` means something else."""
    if isinstance(value, bool):
        raise ValueError("Input should be a number, not true or false")
    return value


Activation = Annotated[Literal["tanh", "relu", "elu"], BeforeValidator(_lower)]
Number = BeforeValidator(_no_bool)
LearningRate = Annotated[float, Field(gt=0, le=1), Number]
Discount = Annotated[float, Field(ge=0, le=1), Number]
Count = Annotated[PositiveInt, Number]
Coefficient = Annotated[NonNegativeFloat, Number]
LayerSizes = Annotated[list[Count], Field(min_length=1, max_length=16)]
Seed = Annotated[int, Field(ge=0, lt=2**32), Number]
ImportPath = Annotated[str, Field(pattern=_IMPORT_PATH)]
UnitType = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]


def cross_field_error(key: str, value: Any, message: str) -> PydanticCustomError:
    """An error that concerns several fields, told under the key a user would change."""
    return PydanticCustomError(
        "cross_field", "{message}", {"key": key, "value": value, "message": message}
    )


def _misfit(minibatch: int, batch: int, batch_key: str) -> str:
    """Why a minibatch does not fit a batch of frames; empty if it does."""
    if minibatch > batch:
        return f"must be at most {batch_key}, which collects only {batch} frames"
    if batch % minibatch:
        divisors = [size for size in range(1, batch + 1) if batch % size == 0]
        below = max(size for size in divisors if size < minibatch)
        above = min(size for size in divisors if size > minibatch)
        return (
            f"must divide {batch_key}, which is {batch}; the nearest that do are {below} and "
            f"{above}"
        )
    return ""


class Frozen(BaseModel):
    """Base of all config models: immutable, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# --- the agent config: what people write in config/agents/*.yaml -----------------------------


class NetworkConfig(Frozen):
    """The networks of every group, unless `policy.groups` says otherwise."""

    policy: _selector("MlpPolicy", "GruPolicy") = Field(
        "MlpPolicy", description="Kind of network: without memory, or with a recurrent layer."
    )
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
    action_aggregation: Literal["prod", "mean"] = Field(
        "prod",
        description="How the probability ratios of a continuous action's dimensions become one.",
    )


class Hyperparameters(Frozen):
    """The part of an agent config that changes what is learnt."""

    algorithm: Algorithm = Field("HAPPO", description="Training algorithm.")
    learning_rate: LearningRate = Field(3e-4, description="Adam step size.")
    gamma: Discount = Field(0.99, description="Discount factor of future rewards.")
    n_steps: Count = Field(2048, description="Frames collected before each update.")
    batch_size: Count = Field(64, description="Frames in one minibatch; divides n_steps.")
    n_epochs: Count = Field(10, description="Passes over the collected frames per update.")
    network: NetworkConfig = NetworkConfig()
    ppo: PPOConfig = PPOConfig()
    happo: HAPPOConfig = HAPPOConfig()

    @model_validator(mode="after")
    def _minibatch_fits(self) -> Hyperparameters:
        if message := _misfit(self.batch_size, self.n_steps, "n_steps"):
            raise cross_field_error("batch_size", self.batch_size, message)
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


class OpponentConfig(Frozen):
    """Who plays the other seats of a turn-based game."""

    kind: Opponent = Field(
        "self",
        description="self: all seats learn; random, heuristic, past_self: one seat learns, the "
        "others are played within the environment.",
    )
    seat: Seat = Field("alternate", description="The learner's seat; alternate: by episode.")
    heuristic: ImportPath | None = Field(
        None, description="For kind heuristic: import path of the player; null: the built-in one."
    )
    pool_size: Count = Field(
        5, description="For kind past_self: newest policies kept; one enters at each checkpoint."
    )


class SMACConfig(Frozen):
    """How an environment with the SMAC API becomes agents; without effect on others."""

    unit_types: Literal["auto", "slots"] | Annotated[list[UnitType], Field(min_length=1)] = Field(
        "auto",
        description="Agents are named by unit type, which makes the groups. auto: the "
        "environment's own types where its team is fixed, else slots; slots: ally_0, ally_1, …; "
        "or a list with each agent's type.",
    )
    dead_agents: Literal["inactive", "active"] = Field(
        "inactive",
        description="inactive: a dead unit counts in nothing that is learnt; active: it stays, "
        "with nothing but the no-op legal.",
    )
    episode_limit: Count | None = Field(
        None,
        description="Steps after which an episode is cut off; null: where the environment says.",
    )


class EnvironmentConfig(Frozen):
    """Which environment, how many copies of it, and how its agents form groups."""

    name: str = Field(description="Short name; the file in config/environment/.")
    task: ImportPath = Field(
        description="Import path `module:callable` of the environment's factory."
    )
    kwargs: dict[str, Any] = Field({}, description="Keyword arguments of the factory.")
    episode_length: Count | None = Field(
        None, description="Frames of a full episode; lets budgets be given in episodes."
    )
    num_parallel_envs: Count = Field(16, description="Copies stepped together in one batch.")
    num_workers: Annotated[int, Field(ge=0), Number] = Field(
        0,
        description="Processes that the copies are split over; 0: within the training process. "
        "Changes the speed, not the result.",
    )
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
    state: bool = Field(
        False, description="Read the environment's global state, for a centralised critic."
    )
    opponent: OpponentConfig = OpponentConfig()
    smac: SMACConfig = SMACConfig()


class PolicyOverride(Frozen):
    """Per-group differences from the policy config; null: as there."""

    policy_type: PolicyType | None = None
    hidden_sizes: LayerSizes | None = None
    activation: Activation | None = None


class GRUConfig(Frozen):
    """The recurrent layer, where there is one."""

    hidden_size: Count = Field(64, description="Numbers that an agent remembers.")
    chunk_length: Count = Field(
        8, description="Steps through which gradients flow back; divides the steps of a batch."
    )


class PolicyConfig(Frozen):
    """Actor per group, and the critics."""

    hidden_sizes: LayerSizes = [256, 256]
    activation: Activation = "tanh"
    critic_hidden_sizes: LayerSizes | None = Field(
        None, description="Hidden layer sizes of the critics; null: as hidden_sizes."
    )
    share_policy_params: bool = Field(
        True,
        description="Agents of one group share one actor; false: every agent is a group of its "
        "own.",
    )
    critic: Literal["auto", "team", "group", "own"] = Field(
        "auto",
        description="team: one centralised critic; group: one per group; own: every agent is "
        "valued by what it sees itself. auto: team for HAPPO and MAPPO, own for the others.",
    )
    critic_input: Literal["auto", "state", "observations"] = Field(
        "auto",
        description="What a centralised critic sees: the environment's state, or all observations "
        "together; auto: the state where environment.state is set.",
    )
    gru: GRUConfig = GRUConfig()
    groups: dict[str, PolicyOverride] = Field({}, description="Overrides by group.")

    @property
    def overrides_recurrence(self) -> bool:
        """Whether a group asks for a recurrent policy of its own."""
        return any(override.policy_type == "gru" for override in self.groups.values())


class LossOverride(Frozen):
    """Per-group differences from the loss config; null: as there."""

    clip_epsilon: Annotated[float, Field(gt=0, lt=1), Number] | None = None
    entropy_coef: Coefficient | None = None


class LossConfig(Frozen):
    """Loss of one iteration's batch."""

    clip_epsilon: Annotated[float, Field(gt=0, lt=1), Number] = 0.2
    entropy_coef: Coefficient = 0.01
    critic_coef: Coefficient = 0.5
    critic_loss: Literal["huber", "l2"] = "huber"
    huber_delta: Annotated[float, Field(gt=0), Number] = Field(
        10.0, description="Error from which the Huber loss grows linearly, in the critic's units."
    )
    clip_value: bool = Field(
        True, description="Keep a value within clip_epsilon of the one before the update."
    )
    gamma: Discount = 0.99
    gae_lambda: Discount = 0.95
    normalize_advantage: bool = True
    normalize_value: bool = Field(True, description="Regress values in normalised units.")
    agent_order: Literal["random", "fixed"] = "random"
    action_aggregation: Literal["prod", "mean"] = "prod"
    groups: dict[str, LossOverride] = Field({}, description="Overrides by group.")


class OptimizerOverride(Frozen):
    """Per-group differences from the optimizer config; null: as there."""

    learning_rate: LearningRate | None = None
    weight_decay: Coefficient | None = None


class OptimizerConfig(Frozen):
    """One optimizer per group's actor and one per critic."""

    learning_rate: LearningRate = 3e-4
    critic_learning_rate: LearningRate | None = Field(
        None, description="Learning rate of the critics; null: as learning_rate."
    )
    eps: Annotated[float, Field(gt=0), Number] = Field(
        1e-5, description="Added to the denominator: adam, adamw, rmsprop."
    )
    weight_decay: Coefficient = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1), Number] = Field(
        0.0, description="sgd and rmsprop only."
    )
    alpha: Annotated[float, Field(ge=0, lt=1), Number] = Field(
        0.99, description="rmsprop only: smoothing of the squared gradient."
    )
    decay: Literal["none", "linear"] = Field(
        "none", description="linear: the learning rate falls to zero over the run's iterations."
    )
    groups: dict[str, OptimizerOverride] = Field({}, description="Overrides by group.")


class CollectorConfig(Frozen):
    """How a batch is collected."""

    frames_per_batch: Count = 2048
    num_collectors: Count = Field(
        2, description="multi_sync only: processes that each collect a share of the batch."
    )


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
    keep_checkpoints: Count = Field(2, description="Newest checkpoints kept while training.")


class EvaluationConfig(Frozen):
    """What is measured once training is over, and now and then before."""

    episodes: Count = 100
    deterministic: bool = Field(True, description="Most likely action, rather than a sample.")
    interval: Annotated[int, Field(ge=0), Number] = Field(
        0, description="Iterations between evaluations while training; 0: only at the end."
    )
    max_steps: Count | None = Field(
        None, description="Frames after which an episode is cut off; null: never."
    )
    opponent: Opponent | None = Field(
        None, description="Turn-based games: who plays the other seats; null: as in training."
    )
    seat: Seat | None = Field(None, description="The learner's seat; null: as in training.")


class LoggerConfig(Frozen):
    """Where else metrics go; metrics.csv and the console's progress are always there."""

    backends: list[LoggingBackend] = Field([], description="tensorboard, wandb, mlflow.")
    project: str = Field("heteromark", description="Project or experiment name of a back end.")
    offline: bool = Field(True, description="W&B: write files only, to be uploaded later.")


class RunConfig(Frozen):
    """Everything one run is determined by: one resolved config, one seed, one mode."""

    agent: AgentConfig
    mode: Mode
    seed: Seed
    device: Device = "auto"
    env_type: Literal["pettingzoo", "smac", "custom"] = "pettingzoo"
    policy_type: PolicyType = "mlp"
    loss_type: LossType = "happo"
    optimizer_type: OptimizerType = "adam"
    collector_type: Literal["sync", "multi_sync"] = "sync"
    buffer_type: Literal["tensor", "memmap"] = "tensor"
    environment: EnvironmentConfig
    policy: PolicyConfig
    loss: LossConfig
    optimizer: OptimizerConfig
    collector: CollectorConfig
    replay_buffer: ReplayBufferConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    logger: LoggerConfig = LoggerConfig()

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
        minibatch = self.replay_buffer.minibatch_size
        if message := _misfit(minibatch, frames, "collector.frames_per_batch"):
            raise cross_field_error("replay_buffer.minibatch_size", minibatch, message)
        return self

    @model_validator(mode="after")
    def _chunks_fit(self) -> RunConfig:
        if not self.is_recurrent:
            return self
        chunk, minibatch = self.policy.gru.chunk_length, self.replay_buffer.minibatch_size
        steps = self.collector.frames_per_batch // self.environment.num_parallel_envs
        if steps % chunk:
            raise cross_field_error(
                "policy.gru.chunk_length",
                chunk,
                f"must divide the {steps} steps that each of the "
                f"{self.environment.num_parallel_envs} environments takes in a batch of "
                f"{self.collector.frames_per_batch} frames",
            )
        if minibatch % chunk:
            raise cross_field_error(
                "policy.gru.chunk_length",
                chunk,
                f"must divide replay_buffer.minibatch_size, which is {minibatch}: minibatches are "
                "made of whole chunks",
            )
        return self

    @model_validator(mode="after")
    def _copies_can_be_split(self) -> RunConfig:
        envs = self.environment.num_parallel_envs
        if self.environment.num_workers > envs:
            raise cross_field_error(
                "environment.num_workers",
                self.environment.num_workers,
                f"must be at most environment.num_parallel_envs, which is {envs}",
            )
        if self.collector_type != "multi_sync":
            return self
        if self.environment.num_workers:
            raise cross_field_error(
                "environment.num_workers",
                self.environment.num_workers,
                "must be 0 with collector_type multi_sync, whose collectors are processes already",
            )
        if self.environment.opponent.kind == "past_self":
            raise cross_field_error(
                "environment.opponent.kind",
                "past_self",
                "needs collector_type sync: the pool of past policies is in the training process",
            )
        if envs % self.collector.num_collectors:
            raise cross_field_error(
                "collector.num_collectors",
                self.collector.num_collectors,
                f"must divide environment.num_parallel_envs, which is {envs}",
            )
        return self

    @model_validator(mode="after")
    def _a_team_shares_its_return(self) -> RunConfig:
        algorithm = self.agent.algorithm
        if algorithm == "HAPPO" and self.critic == "own":
            raise cross_field_error(
                "policy.critic",
                "own",
                "must be team or group with HAPPO, whose agents share one advantage",
            )
        if self.critic != "own" and self.environment.reward == "individual":
            raise cross_field_error(
                "environment.reward",
                "individual",
                f"must be team: {algorithm} with a centralised critic optimises a return that all "
                "agents share; for rewards of their own use IPPO or MaskablePPO",
            )
        return self

    @property
    def critic(self) -> str:
        """Whose critics there are: team, group or own."""
        if self.policy.critic != "auto":
            return self.policy.critic
        return "team" if self.agent.algorithm in ("HAPPO", "MAPPO") else "own"

    @property
    def import_paths(self) -> dict[str, str]:
        """Everything that is named by an import path, by the key that names it."""
        chosen = {
            "environment.task": self.environment.task,
            "environment.opponent.heuristic": self.environment.opponent.heuristic,
            "agent.algorithm": self.agent.algorithm,
            "policy_type": self.policy_type,
            "loss_type": self.loss_type,
            "optimizer_type": self.optimizer_type,
        }
        for group, override in self.policy.groups.items():
            chosen[f"policy.groups.{group}.policy_type"] = override.policy_type
        return {key: path for key, path in chosen.items() if path and ":" in path}

    @model_validator(mode="after")
    def _past_selves_exist(self) -> RunConfig:
        trained_against = self.environment.opponent.kind
        if self.evaluation.opponent == "past_self" and trained_against != "past_self":
            raise cross_field_error(
                "evaluation.opponent",
                "past_self",
                "needs environment.opponent.kind past_self: a run trained against "
                f"{trained_against} keeps no past selves",
            )
        return self

    @property
    def is_recurrent(self) -> bool:
        """Whether any group's policy remembers."""
        return self.policy_type == "gru" or self.policy.overrides_recurrence

    @property
    def num_iterations(self) -> int:
        """Iterations of the run: total_frames rounded up to whole batches."""
        return -(-self.training.total_frames // self.collector.frames_per_batch)
