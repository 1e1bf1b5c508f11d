"""The typed, immutable models of a run's components, one per Hydra config group."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from heteromark.config.fields import (
    Activation,
    ClipRange,
    Coefficient,
    Count,
    Discount,
    Frozen,
    ImportPath,
    LayerSizes,
    LearningRate,
    LoggingBackend,
    NaturalNumber,
    Number,
    Opponent,
    PolicyType,
    PositiveNumber,
    Seat,
    UnitType,
)
from heteromark.config.models.llm import TextConfig
from heteromark.config.models.skirmish import ScriptName, SkirmishConfig


class OpponentConfig(Frozen):
    """The opponent in a turn-based game."""

    kind: Opponent = Field(
        "self",
        description="self: all players learn; random, heuristic, past_self: one player learns, and "
        "the environment plays the others.",
    )
    seat: Seat = Field(
        "alternate", description="The learner's seat; alternate: changes with each episode."
    )
    heuristic: ImportPath | None = Field(
        None,
        description="For kind heuristic: import path of the heuristic; null: the built-in one.",
    )
    pool_size: Count = Field(
        5,
        description="For kind past_self: maximum number of past policies; a full pool drops the "
        "oldest.",
    )
    snapshot_interval: Count = Field(
        10,
        description="For kind past_self: iterations after which the current policy becomes one of "
        "the past policies.",
    )


class SMACConfig(Frozen):
    """The adapter for environments with the SMAC API; ignored by all others."""

    unit_types: Literal["auto", "slots"] | Annotated[list[UnitType], Field(min_length=1)] = Field(
        "auto",
        description="Agent names, which determine the groups. auto: by unit type if the team is "
        "fixed, else slots; slots: ally_0, ally_1, …; or a list with each agent's unit type.",
    )
    dead_agents: Literal["inactive", "active"] = Field(
        "inactive",
        description="inactive: dead units are excluded from training; active: they stay, with only "
        "the no-op legal.",
    )
    episode_limit: Count | None = Field(
        None,
        description="Maximum steps per episode; null: the environment's limit.",
    )


class EnvironmentConfig(Frozen):
    """The environment, its number of copies, and the groups of its agents."""

    name: str = Field(description="Name of its file in config/environment/.")
    task: ImportPath | None = Field(
        None,
        description="Import path `module:callable` of the environment's factory; null for the "
        "built-in Skirmish and text environments.",
    )
    kwargs: dict[str, Any] = Field({}, description="Keyword arguments of the factory.")
    files: list[str] = Field(
        [],
        description="Files and folders that the environment reads, and modules that no import "
        "statement names. Their content is part of a run's identity; a run that reads other files "
        "of the project fails.",
    )
    episode_length: Count | None = Field(
        None,
        description="Frames of a full episode, to convert a budget in episodes to frames. Does not "
        "change the environment.",
    )
    num_parallel_envs: Count = Field(16, description="Environment copies stepped in one batch.")
    num_workers: NaturalNumber = Field(
        0,
        description="Processes that step the copies; 0: the training process. Changes the speed, "
        "not the result. Exception, reported with a warning: an environment that starts to "
        "draw from Python's or NumPy's global generator only after its first episodes.",
    )
    group_by: Literal["prefix", "agent"] = Field(
        "prefix",
        description="prefix: one group per agent-name prefix (`marine_0` → `marine`); agent: one "
        "group per agent.",
    )
    groups: dict[str, Annotated[list[str], Field(min_length=1)]] | None = Field(
        None, description="Agent names by group; overrides group_by."
    )
    reward: Literal["team", "individual"] = Field(
        "team",
        description="team: train every agent on the mean reward of all agents; individual: train "
        "each on its own reward. HAPPO and MAPPO optimise a shared return and need team.",
    )
    state: bool = Field(
        False, description="Read the environment's global state, for centralised critics."
    )
    opponent: OpponentConfig = OpponentConfig()
    smac: SMACConfig = SMACConfig()
    skirmish: SkirmishConfig = SkirmishConfig()
    text: TextConfig = TextConfig()


Initialization = Literal["orthogonal", "xavier"]


class GaussianConfig(Frozen):
    """The normal distribution of continuous actions, in units of half the action's range."""

    bounds: Literal["tanh", "clip"] = Field(
        "tanh",
        description="How actions stay within their bounds. tanh: the normal distribution is "
        "squashed by tanh; clip: its actions are clipped when the environment takes the step.",
    )
    std: Literal["shared", "by_observation"] = Field(
        "shared",
        description="Standard deviation of each dimension. shared: one parameter, the same for all "
        "observations; by_observation: an output of the network.",
    )
    initial_std: PositiveNumber = Field(0.37, description="Standard deviation at the start.")
    max_std: PositiveNumber | None = Field(
        None, description="Upper limit of the standard deviation; null: no limit."
    )

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.max_std is not None and self.initial_std >= self.max_std:
            yield "initial_std", f"must be below max_std, which is {self.max_std}"


class PolicyOverride(Frozen):
    """A group's overrides of the policy config; null: not overridden."""

    policy_type: PolicyType | None = None
    hidden_sizes: LayerSizes | None = None
    activation: Activation | None = None


class GRUConfig(Frozen):
    """The recurrent layer of recurrent policies."""

    hidden_size: Count = Field(64, description="Size of each recurrent layer.")
    num_layers: Count = Field(1, description="Recurrent layers, one on top of the other.")
    chunk_length: Count = Field(
        8,
        description="Steps of backpropagation through time; must divide the steps per environment "
        "in a batch, and the minibatch size.",
    )

    @property
    def memory_size(self) -> int:
        """Size of a network's recurrent hidden state: the states of all layers."""
        return self.num_layers * self.hidden_size


class CNNConfig(Frozen):
    """The convolutional layers of policies that see pictures."""

    channels: LayerSizes = Field([16, 32, 32], description="Channels of the convolutional layers.")
    kernel_size: Count = Field(3, description="Width and height of a filter.")
    stride: Count = Field(2, description="Step of the filters, by which each layer shrinks.")
    output_size: Count = Field(
        4, description="Width and height to which the last layer is averaged, if it is larger."
    )


class PolicyConfig(Frozen):
    """The actors and critics."""

    hidden_sizes: LayerSizes = Field([256, 256], description="Sizes of the hidden layers.")
    activation: Activation = "tanh"
    initialization: Initialization = Field(
        "orthogonal", description="Initial weights; xavier: uniform. Biases start at 0."
    )
    output_gain: PositiveNumber = Field(
        0.01,
        description="Gain of the actors' last layer. Small: the first policy is nearly uniform, or "
        "in the middle of the action's range.",
    )
    layer_norm: bool = Field(False, description="Layer normalisation after each hidden layer.")
    feature_norm: bool = Field(
        False, description="Layer normalisation of the observation, before the first layer."
    )
    observation_norm: bool = Field(
        False,
        description="Shift and scale each number of the observation by its running mean and "
        "standard deviation, updated once per iteration.",
    )
    gaussian: GaussianConfig = GaussianConfig()
    critic_hidden_sizes: LayerSizes | None = Field(
        None, description="Sizes of the critics' hidden layers; null: same as hidden_sizes."
    )
    share_policy_params: bool = Field(
        True,
        description="The agents of a group share one actor; false: every agent is its own group.",
    )
    critic: Literal["auto", "team", "group", "own"] = Field(
        "auto",
        description="team: one centralised critic; group: one centralised critic per group; own: "
        "critics that see only an agent's own observation. auto: team for HAPPO and MAPPO, else "
        "own.",
    )
    critic_input: Literal["auto", "state", "observations"] = Field(
        "auto",
        description="Input of centralised critics: the environment's state, or the observations of "
        "all agents; auto: the state if environment.state is true, else the observations.",
    )
    gru: GRUConfig = GRUConfig()
    cnn: CNNConfig = CNNConfig()
    groups: dict[str, PolicyOverride] = Field({}, description="Overrides by group.")

    @property
    def has_recurrent_override(self) -> bool:
        """Whether a group overrides policy_type with gru."""
        return any(override.policy_type == "gru" for override in self.groups.values())


class LossOverride(Frozen):
    """The overrides of the loss config for a group's actor; null: not overridden."""

    clip_epsilon: ClipRange | None = None
    entropy_coef: Coefficient | None = None


class LossConfig(Frozen):
    """The loss, advantages and value targets."""

    clip_epsilon: ClipRange = 0.2
    entropy_coef: Coefficient = 0.01
    critic_coef: Coefficient = 0.5
    critic_loss: Literal["huber", "l2"] = "huber"
    huber_delta: PositiveNumber = Field(
        10.0,
        description="Error above which the Huber loss is linear, in the critic's units.",
    )
    clip_value: bool = Field(
        True,
        description="Clip value predictions to within clip_epsilon of those before the update.",
    )
    gamma: Discount = 0.99
    gae_lambda: Discount = 0.95
    normalize_advantage: bool = True
    normalize_value: bool = Field(True, description="Train critics on normalised returns.")
    value_norm_floor: PositiveNumber = Field(
        1e-5, description="Lower limit of the variance that returns are normalised by."
    )
    use_policy_active_masks: bool = Field(
        True,
        description="Average the actor's loss over active steps; false: divide by all steps.",
    )
    agent_order: Literal["random", "fixed"] = "random"
    action_aggregation: Literal["prod", "mean"] = "prod"
    groups: dict[str, LossOverride] = Field({}, description="Overrides by group.")


class OptimizerOverride(Frozen):
    """The overrides of the optimizer config for a group's actor; null: not overridden."""

    learning_rate: LearningRate | None = None
    weight_decay: Coefficient | None = None


Smoothing = Annotated[float, Field(ge=0, lt=1), Number]


class OptimizerConfig(Frozen):
    """The optimizers: one per actor and one per critic."""

    learning_rate: LearningRate = 3e-4
    critic_learning_rate: LearningRate | None = Field(
        None, description="Learning rate of the critics; null: same as learning_rate."
    )
    eps: PositiveNumber = Field(
        1e-5, description="adam, adamw and rmsprop only: added to the denominator."
    )
    betas: tuple[Smoothing, Smoothing] = Field(
        (0.9, 0.999),
        description="adam and adamw only: decay rates of the gradient's first and second moments.",
    )
    weight_decay: Coefficient = 0.0
    momentum: Smoothing = Field(0.0, description="sgd and rmsprop only.")
    nesterov: bool = Field(False, description="sgd only: use Nesterov momentum.")
    alpha: Smoothing = Field(0.99, description="rmsprop only: decay rate of the squared gradient.")
    groups: dict[str, OptimizerOverride] = Field({}, description="Overrides by group.")

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.nesterov and not self.momentum:
            yield "nesterov", "needs momentum; set optimizer.momentum, for example to 0.9"


class CollectorConfig(Frozen):
    """The data collection."""

    frames_per_batch: Count = 2048
    num_collectors: Count = Field(
        2, description="multi_sync only: processes that each collect a part of the batch."
    )


class ReplayBufferConfig(Frozen):
    """The minibatches of a batch."""

    minibatch_size: Count = 64
    critic_minibatch_size: Count | None = Field(
        None, description="The critics' minibatch size; null: same as minibatch_size."
    )


class TrainingConfig(Frozen):
    """The budget, updates, threads and checkpoints."""

    total_frames: Count = Field(description="Frames to train for, rounded up to whole iterations.")
    num_batches: Count | None = Field(
        None,
        description="Language models: iterations per epoch, so that total_frames is num_batches "
        "times epochs times the frames per batch; null: total_frames alone sets the length.",
    )
    epochs: Count = Field(1, description="Language models: epochs of num_batches iterations.")
    num_epochs: Count = Field(10, description="Passes over each collected batch.")
    critic_epochs: Count | None = Field(
        None, description="Passes of the critics over each batch; null: same as num_epochs."
    )
    max_grad_norm: PositiveNumber | None = Field(
        0.5, description="Maximum gradient norm; null: no clipping."
    )
    num_threads: Count = Field(1, description="CPU threads that torch uses.")
    matmul_precision: Literal["highest", "high", "medium"] = Field(
        "highest",
        description="Precision of products of float32 matrices: highest: float32; high: at most "
        "TF32; medium: at most bfloat16, sums in float32. Lower ones are faster where the "
        "processor or GPU has units for them.",
    )
    checkpoint_interval: Count = Field(
        10, description="Iterations between checkpoints; does not affect the training."
    )
    keep_checkpoints: Count = Field(2, description="Number of newest checkpoints to keep.")


EvaluationOpponent = Literal[Opponent, ScriptName]
Preset = Literal["greedy", "standard", "liberal", "sampled"]  # sampling in evaluations


class EvaluationConfig(Frozen):
    """The evaluations after and during training."""

    episodes: Count = 100
    deterministic: bool = Field(
        True, description="Take the most likely action instead of sampling one."
    )
    interval: NaturalNumber = Field(
        0, description="Iterations between evaluations during training; 0: only at the end."
    )
    max_steps: Count | None = Field(None, description="Maximum frames per episode; null: no limit.")
    opponent: EvaluationOpponent | None = Field(
        None,
        description="Turn-based games: the opponent; Skirmish: the script that commands the "
        "enemies. null: as in training.",
    )
    seat: Seat | None = Field(None, description="The learner's seat; null: as in training.")
    preset: Preset | None = Field(
        None,
        description="Language models: how to sample responses. sampled: as in training; null: "
        "greedy if deterministic is true, else sampled.",
    )
    passes: Count = Field(
        1, description="Language models: attempts per problem; pass@k needs k attempts."
    )


class LoggerConfig(Frozen):
    """Additional logging back ends. metrics.csv and the console's progress are always written."""

    backends: list[LoggingBackend] = Field([], description="Any of tensorboard, wandb, mlflow.")
    project: str = Field(
        "heteromark", description="Project name in W&B, experiment name in MLflow."
    )
    offline: bool = Field(True, description="W&B: only write files, to be uploaded later.")
