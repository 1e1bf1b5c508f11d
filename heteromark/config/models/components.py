"""The typed, frozen models of the components of a run: one Hydra config group each."""

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
    task: ImportPath | None = Field(
        None,
        description="Import path `module:callable` of the environment's factory; null for "
        "skirmish, which is built in.",
    )
    kwargs: dict[str, Any] = Field({}, description="Keyword arguments of the factory.")
    episode_length: Count | None = Field(
        None, description="Frames of a full episode; lets budgets be given in episodes."
    )
    num_parallel_envs: Count = Field(16, description="Copies stepped together in one batch.")
    num_workers: NaturalNumber = Field(
        0,
        description="Processes that the copies are split over; 0: within the training process. "
        "Changes the speed, not the result, unless the environment is warned about: for drawing "
        "from Python's or NumPy's global generator after whole episodes without.",
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
    skirmish: SkirmishConfig = SkirmishConfig()
    text: TextConfig = TextConfig()


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

    hidden_sizes: LayerSizes = Field([256, 256], description="Widths of the hidden layers.")
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
    """How the loss of a group's actor differs from the loss config; null: as there."""

    clip_epsilon: ClipRange | None = None
    entropy_coef: Coefficient | None = None


class LossConfig(Frozen):
    """Loss of one iteration's batch."""

    clip_epsilon: ClipRange = 0.2
    entropy_coef: Coefficient = 0.01
    critic_coef: Coefficient = 0.5
    critic_loss: Literal["huber", "l2"] = "huber"
    huber_delta: PositiveNumber = Field(
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
    """How the optimizer of a group's actor differs from the optimizer config; null: as there."""

    learning_rate: LearningRate | None = None
    weight_decay: Coefficient | None = None


Smoothing = Annotated[float, Field(ge=0, lt=1), Number]


class OptimizerConfig(Frozen):
    """One optimizer per group's actor and one per critic."""

    learning_rate: LearningRate = 3e-4
    critic_learning_rate: LearningRate | None = Field(
        None, description="Learning rate of the critics; null: as learning_rate."
    )
    eps: PositiveNumber = Field(1e-5, description="Added to the denominator: adam, adamw, rmsprop.")
    betas: tuple[Smoothing, Smoothing] = Field(
        (0.9, 0.999), description="adam, adamw only: smoothing of the gradient and of its square."
    )
    weight_decay: Coefficient = 0.0
    momentum: Smoothing = Field(0.0, description="sgd and rmsprop only.")
    nesterov: bool = Field(False, description="sgd only: Nesterov's momentum.")
    alpha: Smoothing = Field(0.99, description="rmsprop only: smoothing of the squared gradient.")
    groups: dict[str, OptimizerOverride] = Field({}, description="Overrides by group.")

    def misfits(self) -> Iterator[tuple[str, str]]:
        if self.nesterov and not self.momentum:
            yield "nesterov", "needs momentum; set optimizer.momentum, for example to 0.9"


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
    num_batches: Count | None = Field(
        None,
        description="Language models: iterations of an epoch, which goes through the same problems "
        "as the one before; null: total_frames alone says how long the run is.",
    )
    epochs: Count = Field(1, description="Times that num_batches iterations are gone through.")
    num_epochs: Count = Field(10, description="Passes over each collected batch.")
    max_grad_norm: PositiveNumber | None = Field(
        0.5, description="Gradient norm is clipped to this; null: not clipped."
    )
    num_threads: Count = Field(1, description="Threads of torch on the CPU.")
    checkpoint_interval: Count = Field(10, description="Iterations between checkpoints.")
    checkpoints_after: list[Count] = Field(
        [], description="Further iterations after which there is a checkpoint."
    )
    keep_checkpoints: Count = Field(2, description="Newest checkpoints kept while training.")

    def has_checkpoint_after(self, iteration: int) -> bool:
        """Whether a run has a checkpoint after an iteration, if it continues."""
        return iteration % self.checkpoint_interval == 0 or iteration in self.checkpoints_after


EvaluationOpponent = Literal[Opponent, ScriptName]
Preset = Literal["greedy", "standard", "liberal", "sampled"]  # of sampling, in evaluations


class EvaluationConfig(Frozen):
    """What is measured once training is over, and now and then before."""

    episodes: Count = 100
    deterministic: bool = Field(True, description="Most likely action, rather than a sample.")
    interval: NaturalNumber = Field(
        0, description="Iterations between evaluations while training; 0: only at the end."
    )
    max_steps: Count | None = Field(
        None, description="Frames after which an episode is cut off; null: never."
    )
    opponent: EvaluationOpponent | None = Field(
        None,
        description="Turn-based games: who plays the other seats; Skirmish: the script that "
        "commands the other side. null: as in training.",
    )
    seat: Seat | None = Field(None, description="The learner's seat; null: as in training.")
    preset: Preset | None = Field(
        None,
        description="Language models: how responses are sampled; sampled: as in training; null: "
        "greedy where deterministic, else sampled.",
    )
    passes: Count = Field(
        1, description="Language models: attempts at each problem; pass@k needs k of them."
    )


class LoggerConfig(Frozen):
    """Where else metrics go; metrics.csv and the console's progress are always there."""

    backends: list[LoggingBackend] = Field([], description="tensorboard, wandb, mlflow.")
    project: str = Field("heteromark", description="Project or experiment name of a back end.")
    offline: bool = Field(True, description="W&B: write files only, to be uploaded later.")
