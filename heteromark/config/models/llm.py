"""The typed, immutable models of the settings that only language-model agents use."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from heteromark.config.fields import (
    Coefficient,
    Count,
    Discount,
    Frozen,
    LayerSizes,
    LearningRate,
    NaturalNumber,
    Number,
    PositiveNumber,
    Probability,
    Seed,
    selector,
)
from heteromark.config.models.tasks import (
    CodeConfig,
    MathConfig,
    PlanPathConfig,
    SearchConfig,
    SokobanConfig,
    SudokuConfig,
)

TINY = "tiny"  # the path of models that are built, not loaded
AUTO, BARE = "auto", "none"  # values of model.chat_template that are no files
SHARED = "team"  # name of the policy that all roles share

TaskName: Any = selector("math", "plan_path", "sokoban", "sudoku", "code", "search")
Temperature = Annotated[float, Field(gt=0, le=10), Number]
Share = Annotated[float, Field(gt=0, le=1), Number]
Specialization = Literal["full", "lora", "prompt", "none"]
PolicyKind = Literal["language_model", "mlp"]
Role = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$", max_length=64)]


class GroupRelative(Frozen):
    """The sampling of response groups and the normalization of their rewards."""

    num_generations: Annotated[int, Field(ge=2, le=1024), Number] = Field(
        8, description="Responses per prompt, whose rewards are compared with each other (G or K)."
    )
    sampling: Literal["tree", "chain"] = Field(
        "tree",
        description="tree: each role samples several candidates for a prompt, and the team "
        "continues from the best; chain: the team works on each problem several times, "
        "independently.",
    )
    alpha: Coefficient = Field(
        1.0, description="Weight of the team's reward; a response's own reward has weight 1."
    )
    normalization: Literal["grpo", "dapo", "dr_grpo"] = Field(
        "dapo",
        description="Loss averaging. grpo: token mean per response, then mean over responses; "
        "dapo: mean over all tokens; dr_grpo: token sum divided by responses times maximum "
        "response length, with advantages not divided by the rewards' standard deviation.",
    )
    clip_high: PositiveNumber | None = Field(
        None, description="Upper clip range of the probability ratio; null: same as the lower."
    )
    beta: Coefficient = Field(
        0.0, description="Weight of the KL divergence from the model before training."
    )
    drop_flat: bool = Field(
        False,
        description="Drop groups in which all rewards are equal, without reweighting the others.",
    )
    filter_method: Literal["none", "mean", "median"] = Field(
        "none",
        description="mean, median: per policy, rank responses by how far their reward is above the "
        "mean (or median) of their group, and keep the best; none: keep all.",
    )
    filter_ratio: Share = Field(0.5, description="Fraction of responses that the filter keeps.")


class GRPOConfig(GroupRelative):
    """The settings of GRPO and AT-GRPO. Their clip range and gradient norm are in `ppo`."""

    temperature: Temperature = Field(1.0, description="Sampling temperature of responses.")


class LLMConfig(Frozen):
    """The trained weights of a language model, and their sharing between roles."""

    specialization: Specialization = Field(
        "full",
        description="What to train. full: all weights; lora: LoRA adapters; prompt: the choice of "
        "prompt wordings; none: nothing, as a baseline.",
    )
    policies: Literal["shared", "role"] = Field(
        "shared", description="shared: one policy for all roles; role: one policy per role."
    )
    lora_rank: Count = Field(32, description="Rank of the LoRA adapters.")
    lora_alpha: PositiveNumber = Field(
        32.0, description="LoRA adapters are scaled by lora_alpha / lora_rank."
    )
    lora_modules: str | None = Field(
        None,
        description="Regular expression for the full names of the modules to adapt; null: all "
        "linear layers except the output head.",
    )


class TinyModelConfig(Frozen):
    """A character-level model with random initial weights, which needs no download."""

    architecture: Literal["llama", "gemma3", "qwen3"] = "llama"
    hidden_size: Count = 128
    num_layers: Count = 4
    num_heads: Count = 4
    max_length: Count = Field(512, description="Maximum tokens of prompt plus response.")
    seed: Seed = Field(0, description="Seed of the initial weights, independent of the run's seed.")


class WarmUpConfig(Frozen):
    """Supervised learning from demonstrations before reinforcement learning."""

    steps: NaturalNumber = Field(0, description="Maximum number of steps; 0: no warm-up.")
    target_loss: PositiveNumber | None = Field(
        None,
        description="Stop at this loss (mean per token, in nats), so that reinforcement learning "
        "has something left to improve; null: take all steps.",
    )
    mistakes: Probability = Field(
        0.0,
        description="Fraction of messages between roles that are wrong, so that later roles learn "
        "to judge them.",
    )
    batch_size: Count = 32
    learning_rate: LearningRate = 1e-3
    ramp: NaturalNumber = Field(
        100,
        description="Steps over which the learning rate rises. It then falls to zero at the last "
        "step.",
    )
    seed: Seed = Field(
        0,
        description="Seed of the demonstrations. All runs of a config start from the same model.",
    )


class PolicyModelConfig(Frozen):
    """The differences of one policy from the run's model; null: no difference."""

    kind: PolicyKind = Field(
        "language_model",
        description="mlp: a small character-level network, trained alongside language models.",
    )
    path: str | None = None
    specialization: Specialization | None = None
    hidden_sizes: LayerSizes = Field(
        [256, 256], description="For kind mlp: sizes of the hidden layers."
    )


class ModelConfig(LLMConfig):
    """The language model and the policies that use it."""

    path: str = Field(
        TINY, description="Model folder, model name on the Hugging Face hub, or tiny."
    )
    tiny: TinyModelConfig = TinyModelConfig()
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Data type of loaded weights; tiny models use float32."
    )
    autocast: bool = Field(
        True,
        description="Compute in bfloat16 on GPUs that support it, whatever the data type of the "
        "weights. Log-probabilities stay float32.",
    )
    trust_remote_code: bool = Field(
        False, description="Run code that comes with a model. Set it only for models you trust."
    )
    chat_template: str = Field(
        AUTO,
        description="How prompts are sent. auto: in the chat template of the model's tokenizer, as "
        "bare text if it has none; none: as bare text; or a file with a Jinja template.",
    )
    enable_thinking: bool = Field(
        False,
        description="Let models that can think do so before they answer. A task reads what follows "
        "the thought, which must end within generation.max_response_length.",
    )
    wording: NaturalNumber = Field(
        0,
        description="Number of the task's prompt wording. 0: the shortest, for tiny models; 1 and "
        "above: natural language.",
    )
    warm_up: WarmUpConfig = WarmUpConfig()
    roles: dict[Role, Role] = Field(
        {}, description="Policy name by role; empty: `policies` decides."
    )
    by_policy: dict[Role, PolicyModelConfig] = Field(
        {}, description="Settings of individual policies, by policy name."
    )

    @property
    def template_file(self) -> str | None:
        """The file that `chat_template` names, if it names one."""
        return None if self.chat_template in (AUTO, BARE) else self.chat_template


class GenerationConfig(Frozen):
    """The sampling of responses in training. No top-k or top-p, which would bias the ratio."""

    temperature: Temperature = 1.0
    max_prompt_length: Count = Field(256, description="In tokens; a longer prompt is an error.")
    max_response_length: Count = Field(32, description="In tokens; a longer response is cut off.")


class GroupRelativeConfig(GroupRelative):
    """The group-relative update."""

    micro_batch_size: Count = Field(
        256,
        description="Responses per forward pass. Changes memory and speed, not the result.",
    )


class SchedulerConfig(Frozen):
    """The learning-rate schedule over the run's iterations."""

    decay: Literal["none", "linear", "cosine"] = Field(
        "none", description="linear, cosine: learning rates fall to zero at the end of the run."
    )
    warmup_ratio: Discount = Field(
        0.0, description="Fraction of the iterations in which learning rates rise from zero."
    )


class TextConfig(Frozen):
    """A task for language-model agents; ignored by other environments."""

    task: TaskName = Field("math", description="A built-in task, or the import path of your own.")
    turn_order: list[Role] | None = Field(
        None,
        description="Roles of a round, in the order in which they act; null: the task's order, or "
        "with GRPO only its last role.",
    )
    max_turns: Count = Field(1, description="Maximum rounds per problem.")
    max_prompt_length: Count = Field(256, description="Default of generation.max_prompt_length.")
    max_response_length: Count = Field(32, description="Default of generation.max_response_length.")
    warm_up_steps: NaturalNumber = Field(
        0, description="Default of model.warm_up.steps for tiny models."
    )
    warm_up_loss: PositiveNumber | None = Field(
        None, description="Default of model.warm_up.target_loss for tiny models."
    )
    warm_up_mistakes: Probability = Field(
        0.0, description="Default of model.warm_up.mistakes for tiny models."
    )
    cast: dict[Role, Role] = Field(
        {},
        description="Built-in tasks: role by agent name. Several agents may play one role. empty: "
        "one agent per role, with the role's name.",
    )
    templates: dict[Role, str] = Field({}, description="Custom prompt wordings by role.")
    system_prompts: dict[Role, str] = Field(
        {},
        description="System prompt by role. Models without a chat template get it before the "
        "prompt.",
    )
    resample_freq: Count = Field(1, description="Iterations between draws of new problems.")
    epoch_size: Count | None = Field(
        None,
        description="Iterations after which the problems repeat; null: they never repeat.",
    )
    math: MathConfig = MathConfig()
    plan_path: PlanPathConfig = PlanPathConfig()
    sokoban: SokobanConfig = SokobanConfig()
    sudoku: SudokuConfig = SudokuConfig()
    code: CodeConfig = CodeConfig()
    search: SearchConfig = SearchConfig()

    @property
    def task_is_custom(self) -> bool:
        """Whether the task is a custom one, given by its import path."""
        return ":" in self.task
