"""The typed, immutable models of a team config, which configures several language-model agents.

The sections and keys are those of PettingLLMs. A key with only one supported value here accepts
only that value (see `rules`). For settings that PettingLLMs has no key for, such as the difficulty
of problems, a team config also has the sections of a run config. `translation` turns both into a
run config.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from heteromark.config.fields import (
    ClipRange,
    Coefficient,
    Count,
    Device,
    Frozen,
    LearningRate,
    Mode,
    NaturalNumber,
    Number,
    OptimizerType,
    PositiveNumber,
    Seed,
)
from heteromark.config.models.llm import Role, Share, Specialization, Temperature

# Top-level sections. A file that contains one of them holds sections, not the keys of one section.
TEAM_SECTIONS = (
    "resource",
    "env",
    "base_models",
    "agent_policy_configs",
    "multi_agent_interaction",
    "training",
    "models",
)
SYNTHETIC = "synthetic"


class Resource(Frozen):
    """The machine's resources that a run uses."""

    nnodes: Count = 1
    n_gpus_per_node: NaturalNumber | None = Field(
        None, description="1: use the GPU; 0: use the CPU; null: training.device decides."
    )
    trust_remote_code: bool = Field(
        False, description="Run code that comes with a model. Set it only for models you trust."
    )


class Env(Frozen):
    """The problems that the agents solve."""

    name: str = Field(
        description="A registered environment, or the import path of your own task's factory."
    )
    dataset: str = Field(
        SYNTHETIC,
        description="synthetic: generated problems; math_env also takes a JSON Lines file.",
    )
    benchmark: str | None = Field(
        None, description="stateful_env: the puzzle; otherwise the held-out part of the dataset."
    )
    max_turns: Count = Field(1, description="Maximum rounds of turn_order per problem.")
    resolve: bool = False
    multi_modal: bool = False
    batched_init: bool = True


class BaseModelChoice(Frozen):
    """A model that agents can use."""

    path: str = Field(description="Model folder, model name on the Hugging Face hub, or tiny.")
    name: Role = Field(description="Its name in agent_configs and models.")


class AgentChoice(Frozen):
    """An agent and its model."""

    name: Role
    policy_name: str = Field(description="The name of a model in base_models.")
    role: Role | None = Field(
        None, description="The agent's role in the task; null: the role of its registered name."
    )


class AgentPolicyConfigs(Frozen):
    """The agents of the team."""

    num_agents: Count | None = None
    policy_list: list[str] | None = None
    agent_configs: Annotated[dict[str, AgentChoice], Field(min_length=1)]


class Interaction(Frozen):
    """The order in which agents act."""

    turn_order: Annotated[list[str], Field(min_length=1)] = Field(
        description="Agent names in the order of a round. An agent may act several times per round."
    )
    num_interacting_agents: Count | None = None


class TeamTraining(Frozen):
    """Budget, batch sizes, sampling and evaluation of the training."""

    device: Device = "auto"
    total_training_steps: Count = Field(description="Training iterations.")
    project_name: str = "heteromark"
    experiment_name: str | None = None
    logger: list[Literal["console", "wandb", "tensorboard", "mlflow"]] = Field(["console"])
    model_checkpoints_dir: str = "checkpoints"
    ray_wait_register_center_timeout: Coefficient | None = None
    train_batch_size: Count = Field(32, description="Problems per iteration.")
    train_sample_num: Annotated[int, Field(ge=2, le=1024), Number] = Field(
        8, description="Responses per prompt, whose rewards are compared with each other."
    )
    validate_sample_num: Count = Field(1, description="Attempts per problem in evaluations.")
    sample_temperature: Temperature = 1.0
    val_freq: NaturalNumber = Field(
        0, description="Steps between evaluations during training; 0: only at the end."
    )
    resample_freq: Count = Field(1, description="Steps between draws of new problems.")
    epoch_size: Count | None = Field(
        None, description="Steps after which the problems repeat; null: they never repeat."
    )
    max_prompt_length: Count = Field(256, description="In tokens; a longer prompt is an error.")
    max_response_length: Count = Field(32, description="In tokens; a longer response is cut off.")
    lora_rank: Count | None = None
    lora_alpha: Coefficient | None = None
    # Settings of a run config's training section that PettingLLMs does not have:
    num_epochs: Count = Field(1, description="Passes over each step's responses.")
    max_grad_norm: PositiveNumber | None = 1.0  # null: not clipped
    num_threads: Count = Field(1, description="CPU threads that torch uses.")
    checkpoint_interval: Count = Field(10, description="Steps between checkpoints.")
    keep_checkpoints: Count = Field(2, description="Number of newest checkpoints to keep.")


class DataConfig(Frozen):
    """The lengths, which must equal those in `training`."""

    max_prompt_length: Count | None = None
    max_response_length: Count | None = None


class ActorModel(Frozen):
    """The path, which must equal the one in `base_models`."""

    path: str | None = None


class RolloutConfig(Frozen):
    """The sampling settings, which must equal those in `training`, and the GPUs per model."""

    temperature: Temperature | None = None
    prompt_length: Count | None = None
    response_length: Count | None = None
    tensor_model_parallel_size: NaturalNumber | None = None


class TrainerConfig(Frozen):
    """The GPUs, which must equal those in `resource`."""

    n_gpus_per_node: NaturalNumber | None = None
    n_training_gpus_per_node: NaturalNumber | None = None


class OptimConfig(Frozen):
    """The optimizer settings of one model; null: those of `optimizer`."""

    lr: LearningRate | None = None
    weight_decay: Coefficient | None = None


class ActorConfig(Frozen):
    """The update settings of one model; null: those of `loss` and `optimizer`."""

    optim: OptimConfig = OptimConfig()
    clip_ratio: ClipRange | None = None


class ActorRolloutRef(Frozen):
    """The actor, rollout and trainer settings of one model."""

    model: ActorModel = ActorModel()
    rollout: RolloutConfig = RolloutConfig()
    trainer: TrainerConfig = TrainerConfig()
    actor: ActorConfig = ActorConfig()


class PPOTrainerConfig(Frozen):
    """The training settings of one model."""

    filter_method: Literal["none", "mean", "median"] | None = Field(
        None,
        description="mean, median: rank responses by how far their reward is above the mean (or "
        "median) of their group, and keep the best. Must be the same for all models.",
    )
    filter_ratio: Share | None = Field(None, description="Fraction of responses to keep.")
    data: DataConfig = DataConfig()
    actor_rollout_ref: ActorRolloutRef = ActorRolloutRef()


class TeamModel(Frozen):
    """The name of a model in `base_models`, and its training settings."""

    path: str | None = None
    name: str
    ppo_trainer_config: PPOTrainerConfig = PPOTrainerConfig()


RunSection = dict[str, Any]


class RunSections(Frozen):
    """The sections of a run config, for settings that PettingLLMs has no key for."""

    environment: RunSection = Field({})
    evaluation: RunSection = Field({})
    generation: RunSection = Field({})
    grpo: RunSection = Field({})
    logger: RunSection = Field({})
    loss: RunSection = Field({})
    model: RunSection = Field({})
    optimizer: RunSection = Field({})
    replay_buffer: RunSection = Field({})
    scheduler: RunSection = Field({})


class TeamSections(RunSections):
    """A complete team config."""

    specialization: Specialization = Field(
        "full",
        description="What to train. full: all weights; lora: LoRA adapters; prompt: the choice of "
        "prompt wordings; none: nothing, only evaluate.",
    )
    lora_rank: Count = 16
    lora_alpha: PositiveNumber = 32.0
    resource: Resource = Resource()
    env: Env
    base_models: Annotated[dict[str, BaseModelChoice], Field(min_length=1)]
    agent_policy_configs: AgentPolicyConfigs
    multi_agent_interaction: Interaction
    training: TeamTraining
    models: dict[str, TeamModel] = Field({})
    mode: Mode = "smoke"
    seed: Seed = 0
    tags: list[str] = Field([])
    optimizer_type: OptimizerType = "adamw"

    @property
    def agents(self) -> dict[str, AgentChoice]:
        """The agents by name."""
        return {agent.name: agent for agent in self.agent_policy_configs.agent_configs.values()}

    @property
    def paths(self) -> dict[str, str]:
        """The paths of the models by name."""
        return {model.name: model.path for model in self.base_models.values()}

    @property
    def frames_per_step(self) -> int:
        """Responses per iteration: problems times samples times rounds."""
        training = self.training
        return training.train_batch_size * training.train_sample_num * self.env.max_turns
