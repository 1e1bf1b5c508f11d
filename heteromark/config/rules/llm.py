"""The rules of language-model agents: which keys act, and what must hold between values."""

from __future__ import annotations

from collections.abc import Iterator

from heteromark.config.errors import Fault, fault_at, nearest
from heteromark.config.fields import is_import_path, nearest_multiples
from heteromark.config.models.agent import AgentConfig
from heteromark.config.models.llm import TINY, WarmUpConfig
from heteromark.config.models.run import RunConfig
from heteromark.config.models.tasks import TASK_CONFIGS, TASK_ROLES
from heteromark.config.nested import lies_in, value_at
from heteromark.config.rules.model_paths import model_faults

# What language-model agents read of the sections that are made for networks too.
_READ = {
    "collector": ("frames_per_batch",),
    "environment": ("name", "task", "kwargs", "num_parallel_envs", "text"),
    "evaluation": ("episodes", "interval", "preset", "passes"),
    "loss": ("clip_epsilon", "groups"),
}
_NOT_READ = (
    "buffer_type",
    "optimizer.critic_learning_rate",
    "policy",
    *(
        f"{section}.{key}"
        for section, read in _READ.items()
        for key in RunConfig.model_fields[section].annotation.model_fields
        if key not in read
    ),
)
_HYPERPARAMETERS_OF_NETWORKS = (
    "gamma",
    "happo",
    "network.activation_fn",
    "network.net_arch",
    "ppo.ent_coef",
    "ppo.gae_lambda",
    "ppo.vf_coef",
)


class LanguageModelRules:
    """See `kinds.KindRules`."""

    packages = ("transformers", "peft")

    def faults(self, config: RunConfig) -> Iterator[Fault]:
        misfits = (*_shape_misfits(config), *_model_misfits(config))
        yield from (fault_at(config, key, message) for key, message in misfits)
        yield from _role_faults(config)

    def files(self, config: RunConfig) -> list[Fault]:
        return model_faults(config)

    def ignored(self, agent: AgentConfig, key: str) -> str:
        if not any(lies_in(key, section) for section in _HYPERPARAMETERS_OF_NETWORKS):
            return ""
        return f"is {agent.algorithm}, which has no critic and no such network"

    def questions(self, config: RunConfig) -> list[object]:
        return []

    def idle(self, config: RunConfig) -> dict[str, str]:
        reason = "env_type is text, and language-model agents have none of it"
        idle = dict.fromkeys(_NOT_READ, reason)
        if is_import_path(config.agent.algorithm):  # which may read the section of the loss
            idle = {key: why for key, why in idle.items() if not lies_in(key, "loss")}
        if config.evaluation.preset is None:
            del idle["evaluation.deterministic"]
        return idle | dict(_idle_in_task(config)) | dict(_idle_in_model(config))


def _idle_in_task(config: RunConfig) -> Iterator[tuple[str, str]]:
    text = config.environment.text
    for task in TASK_CONFIGS:
        if text.task != task:
            yield f"environment.text.{task}", f"environment.text.task is {text.task}"
    if text.task_is_own:
        reason = "environment.text.task is your own; let it have these roles"
        yield "environment.text.cast", reason
    else:
        yield "environment.kwargs", f"environment.text.task is {text.task}, which is built in"
    for key, (follower, value) in defaults_of(config).items():
        if getattr(text, key) != value:
            yield f"environment.text.{key}", f"{follower} has a value of its own"


def _idle_in_model(config: RunConfig) -> Iterator[tuple[str, str]]:
    model = config.model
    paths = {model.path, *(policy.path for policy in model.by_policy.values())} - {None}
    if TINY not in paths:
        yield "model.tiny", f"model.path is {model.path}; set model.path={TINY}"
    if paths == {TINY}:
        for key in ("dtype", "trust_remote_code"):
            yield f"model.{key}", "model.path is tiny, which is built rather than loaded"
    if not model.warm_up.steps:
        for key in WarmUpConfig.model_fields.keys() - {"steps"}:
            yield f"model.warm_up.{key}", "model.warm_up.steps is 0"
    elif config.turn_order is not None and len(config.turn_order) == 1:
        yield "model.warm_up.mistakes", "a single role acts, and nobody after it"
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
    """Keys of `environment.text` that are only defaults: of which key, and what that is now."""
    generation, warm_up = config.generation, config.model.warm_up
    return {
        "max_prompt_length": ("generation.max_prompt_length", generation.max_prompt_length),
        "max_response_length": ("generation.max_response_length", generation.max_response_length),
        "warm_up_steps": ("model.warm_up.steps", warm_up.steps),
        "warm_up_loss": ("model.warm_up.target_loss", warm_up.target_loss),
        "warm_up_mistakes": ("model.warm_up.mistakes", warm_up.mistakes),
    }


def _shape_misfits(config: RunConfig) -> Iterator[tuple[str, str]]:
    frames, unit = config.collector.frames_per_batch, config.frames_per_problem
    text = config.environment.text
    if frames % unit:
        yield (
            "collector.frames_per_batch",
            f"(agent.n_steps) must be a multiple of {unit}: {config.grpo.num_generations} "
            f"responses (grpo.num_generations) times {text.max_turns} rounds "
            f"(environment.text.max_turns) for each problem; for example "
            f"{nearest_multiples(frames, unit)}",
        )
    training = config.training
    if training.num_batches is not None:
        wanted = training.num_batches * training.epochs * frames
        if training.total_frames != wanted:
            yield (
                "training.total_frames",
                f"must be {wanted} with training.num_batches {training.num_batches} and "
                f"training.epochs {training.epochs}, or training.num_batches null",
            )
    if config.collector_type != "sync":
        yield "collector_type", "must be sync with env_type text"
    if config.environment.task is not None:
        yield "environment.task", "must be null with env_type text"
    if not text.task_is_own and config.environment.kwargs:
        message = f"must be empty: the task's settings are in environment.text.{text.task}"
        yield "environment.kwargs", message


def _model_misfits(config: RunConfig) -> Iterator[tuple[str, str]]:
    model, tiny, generation = config.model, config.model.tiny, config.generation
    longest = generation.max_prompt_length + generation.max_response_length
    if model.path == TINY and longest > tiny.max_length:
        yield (
            "model.tiny.max_length",
            f"must be at least {longest}: generation.max_prompt_length "
            f"{generation.max_prompt_length} and generation.max_response_length "
            f"{generation.max_response_length} together",
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
    if not text.task_is_own:
        of_task = TASK_ROLES[text.task]
        named = [(f"cast.{agent}", role, of_task) for agent, role in text.cast.items()]
        known = tuple(text.cast) or of_task
        named += [("turn_order", role, known) for role in text.turn_order or ()]
        named += [("templates", role, known) for role in text.templates]
        for key, role, among in named:
            if role not in among:
                message = f"task {text.task} has no such role.{nearest(role, among)} Its roles: "
                yield Fault("", message + ", ".join(among), f"environment.text.{key}", role)
    if roles and config.turn_order is not None:
        without = [role for role in config.turn_order if role not in roles]
        if without:
            message = (
                f"gives no policy to {', '.join(dict.fromkeys(without))}, who act in turn; name "
                "one for each role, or leave it empty"
            )
            yield fault_at(config, "model.roles", message)
    policies = config.policy_names
    for key in ("model.by_policy", "loss.groups", "optimizer.groups"):
        for name in value_at(config, key) if policies is not None else ():
            if name not in policies:
                message = f"no role has this policy.{nearest(name, policies)} There are: "
                yield Fault("", message + ", ".join(policies), key, name)
