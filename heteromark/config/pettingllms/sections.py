"""The typed, frozen models of a team config: several language-model agents, section by section.

The sections and their keys are those of PettingLLMs' configuration; a key that can only have one
meaning here is accepted with that one (see `rules`). What they have no key for, such as how hard
the problems are, is said in the sections of a run config, which stand beside them. `translation`
makes a run config of both.
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

# Whole sections, which tell a file of them from a file of one section's keys.
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
    """What a run may use of the machine."""

    nnodes: Count = 1
    n_gpus_per_node: NaturalNumber | None = Field(
        None, description="1: needs a GPU; 0: on the CPU; null: as training.device says."
    )
    trust_remote_code: bool = Field(
        False, description="Run code that comes with a model. Only for those that you trust."
    )


class Env(Frozen):
    """What the agents work on."""

    name: str = Field(
        description="A registered environment, or the import path of your own task's factory."
    )
    dataset: str = Field(
        SYNTHETIC, description="synthetic: generated; math_env: or a file of JSON Lines."
    )
    benchmark: str | None = Field(
        None, description="stateful_env: which puzzle; elsewhere the held-out part of the dataset."
    )
    max_turns: Count = Field(1, description="Rounds of turn_order after which a problem is left.")
    resolve: bool = False
    multi_modal: bool = False
    batched_init: bool = True


class BaseModelChoice(Frozen):
    """A model that agents can be given."""

    path: str = Field(description="Folder of a model, its name on the hub, or tiny.")
    name: Role = Field(description="What agent_configs and models call it.")


class AgentChoice(Frozen):
    """An agent, and the model that it speaks with."""

    name: Role
    policy_name: str = Field(description="The name of one of base_models.")
    role: Role | None = Field(
        None, description="The role of the task that it plays; null: that of its registered name."
    )


class AgentPolicyConfigs(Frozen):
    """Who there is."""

    num_agents: Count | None = None
    policy_list: list[str] | None = None
    agent_configs: Annotated[dict[str, AgentChoice], Field(min_length=1)]


class Interaction(Frozen):
    """Who acts when."""

    turn_order: Annotated[list[str], Field(min_length=1)] = Field(
        description="Names of agents, in the order of a round; one may act several times in it."
    )
    num_interacting_agents: Count | None = None


class TeamTraining(Frozen):
    """How long, how often, on how much."""

    device: Device = "auto"
    total_training_steps: Count = Field(description="Iterations.")
    project_name: str = "heteromark"
    experiment_name: str | None = None
    logger: list[Literal["console", "wandb", "tensorboard", "mlflow"]] = Field(["console"])
    model_checkpoints_dir: str = "checkpoints"
    ray_wait_register_center_timeout: Coefficient | None = None
    train_batch_size: Count = Field(32, description="Problems of an iteration.")
    train_sample_num: Annotated[int, Field(ge=2, le=1024), Number] = Field(
        8, description="Responses to each prompt, which are judged beside each other."
    )
    validate_sample_num: Count = Field(1, description="Attempts at each problem of an evaluation.")
    sample_temperature: Temperature = 1.0
    val_freq: NaturalNumber = Field(
        0, description="Steps between evaluations while training; 0: only at the end."
    )
    resample_freq: Count = Field(1, description="Steps after which other problems are drawn.")
    epoch_size: Count | None = Field(
        None, description="Steps after which the same problems come again; null: never the same."
    )
    max_prompt_length: Count = Field(256, description="Tokens; a longer prompt is an error.")
    max_response_length: Count = Field(32, description="Tokens, after which it is cut off.")
    lora_rank: Count | None = None
    lora_alpha: Coefficient | None = None
    # what a run config says of its training besides
    num_epochs: Count = Field(1, description="Passes over each step's responses.")
    max_grad_norm: PositiveNumber | None = 1.0  # null: not clipped
    num_threads: Count = Field(1, description="Threads of torch on the CPU.")
    checkpoint_interval: Count = Field(10, description="Steps between checkpoints.")
    keep_checkpoints: Count = Field(2, description="Newest checkpoints kept while training.")


class DataConfig(Frozen):
    """The lengths once more; they are those of `training`."""

    max_prompt_length: Count | None = None
    max_response_length: Count | None = None


class ActorModel(Frozen):
    """The path once more; it is that of `base_models`."""

    path: str | None = None


class RolloutConfig(Frozen):
    """How responses are sampled, once more; and over how many GPUs a model is split."""

    temperature: Temperature | None = None
    prompt_length: Count | None = None
    response_length: Count | None = None
    tensor_model_parallel_size: NaturalNumber | None = None


class TrainerConfig(Frozen):
    """The GPUs once more; they are those of `resource`."""

    n_gpus_per_node: NaturalNumber | None = None
    n_training_gpus_per_node: NaturalNumber | None = None


class OptimConfig(Frozen):
    """The optimizer of one model's weights; null: as `optimizer` says."""

    lr: LearningRate | None = None
    weight_decay: Coefficient | None = None


class ActorConfig(Frozen):
    """The update of one model; null: as `loss` and `optimizer` say."""

    optim: OptimConfig = OptimConfig()
    clip_ratio: ClipRange | None = None


class ActorRolloutRef(Frozen):
    """A model at work."""

    model: ActorModel = ActorModel()
    rollout: RolloutConfig = RolloutConfig()
    trainer: TrainerConfig = TrainerConfig()
    actor: ActorConfig = ActorConfig()


class PPOTrainerConfig(Frozen):
    """How one model is trained."""

    filter_method: Literal["none", "mean", "median"] | None = Field(
        None,
        description="mean, median: only those responses are kept that earned most above the mean "
        "(or median) of their group. The same for all models.",
    )
    filter_ratio: Share | None = Field(None, description="Share of responses kept.")
    data: DataConfig = DataConfig()
    actor_rollout_ref: ActorRolloutRef = ActorRolloutRef()


class TeamModel(Frozen):
    """One of `base_models`, and how it is trained."""

    path: str | None = None
    name: str
    ppo_trainer_config: PPOTrainerConfig = PPOTrainerConfig()


RunSection = dict[str, Any]


class RunSections(Frozen):
    """The sections of a run config that say what the documented ones have no key for."""

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
    """A whole team config."""

    specialization: Specialization = Field(
        "full",
        description="full: all weights; lora: adapters; prompt: none, but the wording of prompts "
        "is chosen; none: nothing, to evaluate only.",
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
        """The agents, by name."""
        return {agent.name: agent for agent in self.agent_policy_configs.agent_configs.values()}

    @property
    def paths(self) -> dict[str, str]:
        """The paths of the models, by the name that agents call each."""
        return {model.name: model.path for model in self.base_models.values()}

    @property
    def frames_per_step(self) -> int:
        """Responses of an iteration: of all problems, samples and rounds."""
        training = self.training
        return training.train_batch_size * training.train_sample_num * self.env.max_turns
