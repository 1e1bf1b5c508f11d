"""The typed, frozen models of what only language-model agents use."""

from __future__ import annotations

from typing import Annotated, Literal

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

TINY = "tiny"  # the path of models that are built rather than loaded
SHARED = "team"  # name of a policy that all roles share

TaskName = selector("math", "plan_path", "sokoban", "sudoku", "code", "search")
Temperature = Annotated[float, Field(gt=0, le=10), Number]
Share = Annotated[float, Field(gt=0, le=1), Number]
Specialization = Literal["full", "lora", "prompt", "none"]
PolicyKind = Literal["language_model", "mlp"]
Role = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$", max_length=64)]


class GroupRelative(Frozen):
    """How responses are sampled in groups, and judged beside each other."""

    num_generations: Annotated[int, Field(ge=2, le=1024), Number] = Field(
        8, description="Responses to each prompt, which are judged beside each other (G, or K)."
    )
    sampling: Literal["tree", "chain"] = Field(
        "tree",
        description="tree: a role gives several candidates to the same prompt, and the team goes "
        "on from the best; chain: each problem is worked on several times over.",
    )
    alpha: Coefficient = Field(
        1.0, description="Weight of the team's reward beside a response's own."
    )
    normalization: Literal["grpo", "dapo", "dr_grpo"] = Field(
        "dapo",
        description="grpo: mean over responses of their tokens' means; dapo: mean over all tokens; "
        "dr_grpo: sum over the longest possible responses, and rewards undivided by their spread.",
    )
    clip_high: PositiveNumber | None = Field(
        None, description="How far the ratio may rise above 1; null: as far as it may fall."
    )
    beta: Coefficient = Field(
        0.0, description="Weight of the KL divergence from the model before training."
    )
    drop_flat: bool = Field(
        False, description="Leave out groups whose rewards are all equal; the others count as is."
    )
    filter_method: Literal["none", "mean", "median"] = Field(
        "none",
        description="mean, median: of each policy's responses only those are kept that earned most "
        "above the mean (or median) of their group; none: all are.",
    )
    filter_ratio: Share = Field(0.5, description="Share of responses that the filter keeps.")


class GRPOConfig(GroupRelative):
    """What only GRPO and AT-GRPO use; clip range and gradient norm are those of `ppo`."""

    temperature: Temperature = Field(1.0, description="At which responses are sampled.")


class LLMConfig(Frozen):
    """Which weights of a language model are trained, and who shares them."""

    specialization: Specialization = Field(
        "full",
        description="full: all weights; lora: adapters; prompt: none, but the wording of prompts "
        "is chosen; none: nothing, as a baseline.",
    )
    policies: Literal["shared", "role"] = Field(
        "shared", description="One policy for all roles, or one for each."
    )
    lora_rank: Count = Field(32, description="Rank of the adapters.")
    lora_alpha: PositiveNumber = Field(
        32.0, description="Adapters are scaled by lora_alpha / lora_rank."
    )
    lora_modules: str | None = Field(
        None,
        description="Regular expression that names of adapted modules match as a whole; null: all "
        "linear ones but the head.",
    )


class TinyModelConfig(Frozen):
    """A model with random weights over characters, which needs no download."""

    architecture: Literal["llama", "gemma3", "qwen3"] = "llama"
    hidden_size: Count = 128
    num_layers: Count = 4
    num_heads: Count = 4
    max_length: Count = Field(512, description="Tokens of a prompt and its response together.")
    seed: Seed = Field(0, description="Of the random weights, whatever the run's seed.")


class WarmUpConfig(Frozen):
    """Supervised learning from demonstrations, before any reinforcement learning."""

    steps: NaturalNumber = Field(0, description="At most; 0: there is none.")
    target_loss: PositiveNumber | None = Field(
        None,
        description="Stop at this loss (mean per token, in nats): a model that has learnt all "
        "leaves reinforcement learning nothing to improve; null: take all steps.",
    )
    mistakes: Probability = Field(
        0.0,
        description="Share of what a role tells those after it that is wrong: they learn to judge "
        "it.",
    )
    batch_size: Count = 32
    learning_rate: LearningRate = 1e-3
    ramp: NaturalNumber = Field(
        100, description="Steps over which the learning rate rises; it falls to zero at the last."
    )
    seed: Seed = Field(
        0, description="Of the demonstrations; all runs of a config start from the same model."
    )


class PolicyModelConfig(Frozen):
    """How one policy differs from the run's model; null: as there."""

    kind: PolicyKind = Field(
        "language_model",
        description="mlp: a small network over characters, which trains beside language models.",
    )
    path: str | None = None
    specialization: Specialization | None = None
    hidden_sizes: LayerSizes = Field([256, 256], description="kind mlp: widths of its layers.")


class ModelConfig(LLMConfig):
    """The language model, and how policies are made of it."""

    path: str = Field(
        TINY, description="Folder of a model, its name on the Hugging Face hub, or tiny."
    )
    tiny: TinyModelConfig = TinyModelConfig()
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Of loaded weights; tiny models have float32."
    )
    autocast: bool = Field(
        True,
        description="On a GPU that has bfloat16, compute in it, whatever the weights are; log "
        "probabilities stay float32.",
    )
    trust_remote_code: bool = Field(
        False, description="Run code that comes with a model. Only for those that you trust."
    )
    wording: NaturalNumber = Field(
        0,
        description="Which of the task's wordings prompts have: 0: the shortest, for tiny models; "
        "1 and up: in words.",
    )
    warm_up: WarmUpConfig = WarmUpConfig()
    roles: dict[Role, Role] = Field(
        {}, description="Each role's policy, by name; empty: as `policies` says."
    )
    by_policy: dict[Role, PolicyModelConfig] = Field(
        {}, description="Differences of single policies, by name."
    )


class GenerationConfig(Frozen):
    """How responses are sampled while training: never truncated, which would bias the ratio."""

    temperature: Temperature = 1.0
    max_prompt_length: Count = Field(256, description="Tokens; a longer prompt is an error.")
    max_response_length: Count = Field(32, description="Tokens, after which a response is cut off.")


class GroupRelativeConfig(GroupRelative):
    """The group-relative update."""

    micro_batch_size: Count = Field(
        256, description="Responses that are computed at once: memory and speed, not the result."
    )


class SchedulerConfig(Frozen):
    """How learning rates change over the run's iterations."""

    decay: Literal["none", "linear", "cosine"] = Field(
        "none", description="linear, cosine: learning rates fall to zero by the run's end."
    )
    warmup_ratio: Discount = Field(
        0.0, description="Share of the iterations over which learning rates rise from zero."
    )


class TextConfig(Frozen):
    """A task for language-model agents; without effect on other environments."""

    task: TaskName = Field("math", description="The task, or the import path of your own.")
    turn_order: list[Role] | None = Field(
        None,
        description="Roles of a round, in the order in which they act; null: the task's own order, "
        "or with GRPO its last role alone.",
    )
    max_turns: Count = Field(1, description="Rounds after which a problem is left unsolved.")
    max_prompt_length: Count = Field(256, description="Default of generation.max_prompt_length.")
    max_response_length: Count = Field(32, description="Default of generation.max_response_length.")
    warm_up_steps: NaturalNumber = Field(
        0, description="Default of model.warm_up.steps of tiny models."
    )
    warm_up_loss: PositiveNumber | None = Field(
        None, description="Default of model.warm_up.target_loss of tiny models."
    )
    warm_up_mistakes: Probability = Field(
        0.0, description="Default of model.warm_up.mistakes of tiny models."
    )
    cast: dict[Role, Role] = Field(
        {},
        description="Built-in tasks: agents by name, each with the task's role that it plays, so "
        "that several may play one; empty: an agent for each role, called like it.",
    )
    templates: dict[Role, str] = Field({}, description="Wordings of prompts, by role.")
    resample_freq: Count = Field(1, description="Iterations after which other problems are drawn.")
    epoch_size: Count | None = Field(
        None,
        description="Iterations after which the same problems come again; null: never the same.",
    )
    math: MathConfig = MathConfig()
    plan_path: PlanPathConfig = PlanPathConfig()
    sokoban: SokobanConfig = SokobanConfig()
    sudoku: SudokuConfig = SudokuConfig()
    code: CodeConfig = CodeConfig()
    search: SearchConfig = SearchConfig()

    @property
    def task_is_own(self) -> bool:
        """Whether the task is the user's own, named by its import path."""
        return ":" in self.task
