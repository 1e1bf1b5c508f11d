"""The config rules of language-model agents: conflicts, and keys without effect."""

from __future__ import annotations

from collections.abc import Iterator

from heteromark.config.errors import Fault, fault_at, nearest
from heteromark.config.fields import Frozen, is_import_path, nearest_multiples
from heteromark.config.models.agent import AgentConfig, NetworkConfig, PPOConfig
from heteromark.config.models.components import (
    CollectorConfig,
    EnvironmentConfig,
    EvaluationConfig,
    LossConfig,
)
from heteromark.config.models.llm import BARE, TINY, WarmUpConfig
from heteromark.config.models.run import RunConfig
from heteromark.config.models.tasks import TASK_CONFIGS, TASK_ROLES
from heteromark.config.nested import lies_in, value_at
from heteromark.config.rules.model_paths import model_faults

# The keys that language-model agents read from sections that networks use too.
_READ: dict[str, tuple[type[Frozen], tuple[str, ...]]] = {
    "collector": (CollectorConfig, ("frames_per_batch",)),
    "environment": (EnvironmentConfig, ("name", "task", "kwargs", "num_parallel_envs", "text")),
    "evaluation": (EvaluationConfig, ("episodes", "interval", "preset", "passes")),
    "loss": (LossConfig, ("clip_epsilon", "groups")),
}
_NOT_READ = (
    "buffer_type",
    "optimizer.critic_learning_rate",
    "policy",
    *(
        f"{section}.{key}"
        for section, (model, read) in _READ.items()
        for key in model.model_fields
        if key not in read
    ),
)
_HYPERPARAMETERS_OF_NETWORKS = (
    "gamma",
    "happo",
    *(f"network.{key}" for key in NetworkConfig.model_fields if key != "policy"),
    *(f"ppo.{key}" for key in PPOConfig.model_fields if key not in ("clip_range", "max_grad_norm")),
)


class LanguageModelRules:
    """See `kinds.KindRules`."""

    packages: tuple[str, ...] = ("transformers", "peft")

    def faults(self, config: RunConfig) -> Iterator[Fault]:
        conflicts = (*_batch_conflicts(config), *_model_conflicts(config))
        yield from (fault_at(config, key, message) for key, message in conflicts)
        yield from _role_faults(config)

    def files(self, config: RunConfig) -> list[Fault]:
        return model_faults(config)

    def ignored(self, agent: AgentConfig, key: str) -> str:
        if not any(lies_in(key, section) for section in _HYPERPARAMETERS_OF_NETWORKS):
            return ""
        return f"is {agent.algorithm}, which trains language models without a critic"

    def checked_by_environment(self, config: RunConfig) -> list[object]:
        return []

    def ineffective(self, config: RunConfig) -> dict[str, str]:
        reason = "env_type is text, and language-model agents do not use this key"
        reasons = dict.fromkeys(_NOT_READ, reason)
        if is_import_path(config.agent.algorithm):  # a custom algorithm may read the loss section
            reasons = {key: text for key, text in reasons.items() if not lies_in(key, "loss")}
        if config.evaluation.preset is None:
            del reasons["evaluation.deterministic"]
        return reasons | dict(_ineffective_in_task(config)) | dict(_ineffective_in_model(config))


def _ineffective_in_task(config: RunConfig) -> Iterator[tuple[str, str]]:
    text = config.environment.text
    for task in TASK_CONFIGS:
        if text.task != task:
            yield f"environment.text.{task}", f"environment.text.task is {text.task}"
    if text.task_is_custom:
        reason = "environment.text.task is a custom task; define the roles in it"
        yield "environment.text.cast", reason
    else:
        yield "environment.kwargs", f"environment.text.task is {text.task}, which is built in"
    for key, (derived_key, value) in defaults_of(config).items():
        if getattr(text, key) != value:
            yield f"environment.text.{key}", f"{derived_key} overrides it"


def _ineffective_in_model(config: RunConfig) -> Iterator[tuple[str, str]]:
    model = config.model
    paths = {model.path, *(policy.path for policy in model.by_policy.values())} - {None}
    if TINY not in paths:
        yield "model.tiny", f"model.path is {model.path}; set model.path={TINY}"
    if paths == {TINY}:
        for key in ("dtype", "trust_remote_code", "chat_template", "enable_thinking"):
            yield f"model.{key}", "model.path is tiny, which is built, not loaded"
    elif model.chat_template == BARE:
        yield "model.enable_thinking", "model.chat_template is none"
    if TINY not in paths:
        yield "model.warm_up", "only tiny models are warmed up; others are loaded as they are"
    elif not model.warm_up.steps:
        for key in WarmUpConfig.model_fields.keys() - {"steps"}:
            yield f"model.warm_up.{key}", "model.warm_up.steps is 0"
    elif config.turn_order is not None and len(config.turn_order) == 1:
        yield "model.warm_up.mistakes", "only one role acts, so no role reads its messages"
    specializations = {policy.specialization for policy in model.by_policy.values()}
    if "lora" not in {model.specialization, *specializations}:
        reason = f"model.specialization is {model.specialization}; set model.specialization=lora"
        for key in ("lora_rank", "lora_alpha", "lora_modules"):
            yield f"model.{key}", reason
    if model.roles:
        yield "model.policies", "model.roles gives each role its policy"
    if config.grpo.filter_method == "none":
        yield "grpo.filter_ratio", "grpo.filter_method is none; set grpo.filter_method=mean"


def defaults_of(config: RunConfig) -> dict[str, tuple[str, float | None]]:
    """Map keys of `environment.text` that are only defaults to the derived key and its value."""
    generation, warm_up = config.generation, config.model.warm_up
    return {
        "max_prompt_length": ("generation.max_prompt_length", generation.max_prompt_length),
        "max_response_length": ("generation.max_response_length", generation.max_response_length),
        "warm_up_steps": ("model.warm_up.steps", warm_up.steps),
        "warm_up_loss": ("model.warm_up.target_loss", warm_up.target_loss),
        "warm_up_mistakes": ("model.warm_up.mistakes", warm_up.mistakes),
    }


def _batch_conflicts(config: RunConfig) -> Iterator[tuple[str, str]]:
    frames, unit = config.collector.frames_per_batch, config.frames_per_problem
    text = config.environment.text
    if frames % unit:
        yield (
            "collector.frames_per_batch",
            f"must be a multiple of {unit}, the responses per problem: grpo.num_generations "
            f"({config.grpo.num_generations}) times environment.text.max_turns "
            f"({text.max_turns}). Nearest valid: {nearest_multiples(frames, unit)}; usually set "
            "by agent.n_steps",
        )
    training = config.training
    if training.num_batches is not None:
        wanted = training.num_batches * training.epochs * frames
        if training.total_frames != wanted:
            yield (
                "training.total_frames",
                f"must be {wanted} with training.num_batches={training.num_batches} and "
                f"training.epochs={training.epochs}; or set training.num_batches=null",
            )
    if config.collector_type != "sync":
        yield "collector_type", "must be sync with env_type text"
    if config.environment.task is not None:
        yield "environment.task", "must be null with env_type text"
    if not text.task_is_custom and config.environment.kwargs:
        message = f"must be empty; set the task's options in environment.text.{text.task}"
        yield "environment.kwargs", message


def _model_conflicts(config: RunConfig) -> Iterator[tuple[str, str]]:
    model, tiny, generation = config.model, config.model.tiny, config.generation
    longest = generation.max_prompt_length + generation.max_response_length
    if model.path == TINY and longest > tiny.max_length:
        yield (
            "model.tiny.max_length",
            f"must be at least {longest}: generation.max_prompt_length "
            f"({generation.max_prompt_length}) plus generation.max_response_length "
            f"({generation.max_response_length})",
        )
    if tiny.hidden_size % (2 * tiny.num_heads):
        unit = 2 * tiny.num_heads
        message = f"must be a multiple of {unit}, twice model.tiny.num_heads"
        yield "model.tiny.hidden_size", message


def _role_faults(config: RunConfig) -> Iterator[Fault]:
    text, roles = config.environment.text, config.model.roles
    if text.turn_order is not None and not text.turn_order:
        message = "must name at least one role, or be null"
        yield fault_at(config, "environment.text.turn_order", message)
        return
    if not text.task_is_custom:
        of_task = TASK_ROLES[text.task]
        named = [(f"cast.{agent}", role, of_task) for agent, role in text.cast.items()]
        known = tuple(text.cast) or of_task
        named += [("turn_order", role, known) for role in text.turn_order or ()]
        named += [("templates", role, known) for role in text.templates]
        named += [("system_prompts", role, known) for role in text.system_prompts]
        for key, role, allowed in named:
            if role not in allowed:
                message = f"task {text.task} has no such role.{nearest(role, allowed)} Its roles: "
                yield Fault("", message + ", ".join(allowed), f"environment.text.{key}", role)
    if roles and config.turn_order is not None:
        without = [role for role in config.turn_order if role not in roles]
        if without:
            message = (
                f"has no policy for {', '.join(dict.fromkeys(without))} in the turn order; give "
                "each role a policy, or leave model.roles empty"
            )
            yield fault_at(config, "model.roles", message)
    policies = config.policy_names
    if policies is None:
        return
    for key in ("model.by_policy", "loss.groups", "optimizer.groups"):
        for name in value_at(config, key):
            if name not in policies:
                message = f"no role uses this policy.{nearest(name, policies)} Available: "
                yield Fault("", message + ", ".join(policies), key, name)
