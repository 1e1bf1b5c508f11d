"""The rules of language-model agents: which keys act, and what must hold between values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from heteromark.config.errors import Fault, nearest
from heteromark.config.fields import is_import_path, nearest_multiples
from heteromark.config.models.agent import AgentConfig
from heteromark.config.models.llm import TINY
from heteromark.config.models.run import RunConfig
from heteromark.config.models.tasks import TASK_CONFIGS, TASK_ROLES
from heteromark.config.nested import lies_in
from heteromark.config.rules.model_paths import model_faults

# What the components of other agents are made of.
_OF_NETWORKS = (
    *("buffer_type", "collector.num_collectors"),
    *("environment.episode_length", "environment.group_by", "environment.groups"),
    *("environment.num_workers", "environment.opponent", "environment.reward"),
    *("environment.skirmish", "environment.smac", "environment.state"),
    *("evaluation.deterministic", "evaluation.max_steps", "evaluation.opponent", "evaluation.seat"),
    *("loss.action_aggregation", "loss.agent_order", "loss.clip_value", "loss.critic_coef"),
    *("loss.critic_loss", "loss.entropy_coef", "loss.gae_lambda", "loss.gamma"),
    *("loss.huber_delta", "loss.normalize_advantage", "loss.normalize_value"),
    *("optimizer.critic_learning_rate", "policy"),
)
_HYPERPARAMETERS_OF_NETWORKS = (
    *("gamma", "happo", "network.activation_fn", "network.net_arch"),
    *("ppo.ent_coef", "ppo.gae_lambda", "ppo.vf_coef"),
)


class LanguageModelRules:
    """See `kinds.KindRules`."""

    packages = ("transformers", "peft")

    def faults(self, config: RunConfig) -> Iterator[Fault]:
        yield from _shape_misfits(config)
        yield from _role_misfits(config)
        yield from _model_misfits(config)

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
        idle = dict.fromkeys(_OF_NETWORKS, reason)
        if is_import_path(config.agent.algorithm):  # which may read the section of the loss
            idle = {key: why for key, why in idle.items() if not lies_in(key, "loss")}
        if config.evaluation.preset is None:
            del idle["evaluation.deterministic"]
        text, model, grpo = config.environment.text, config.model, config.grpo
        for task in TASK_CONFIGS:
            if text.task != task:
                idle[f"environment.text.{task}"] = f"environment.text.task is {text.task}"
        if text.task_is_own:
            idle["environment.text.cast"] = (
                "environment.text.task is your own; let it have these roles"
            )
        else:
            idle["environment.kwargs"] = f"environment.text.task is {text.task}, which is built in"
        paths = {model.path, *(policy.path for policy in model.by_policy.values())} - {None}
        if TINY not in paths:
            idle["model.tiny"] = f"model.path is {model.path}; set model.path={TINY}"
        if paths == {TINY}:
            for key in ("dtype", "trust_remote_code"):
                idle[f"model.{key}"] = "model.path is tiny, which is built rather than loaded"
        if not model.warm_up.steps:
            for key in ("batch_size", "learning_rate", "mistakes", "ramp", "seed", "target_loss"):
                idle[f"model.warm_up.{key}"] = "model.warm_up.steps is 0"
        elif config.turn_order is not None and len(config.turn_order) == 1:
            idle["model.warm_up.mistakes"] = "a single role acts, and nobody after it"
        specializations = {policy.specialization for policy in model.by_policy.values()} - {None}
        if "lora" not in {model.specialization, *specializations}:
            for key in ("lora_rank", "lora_alpha", "lora_modules"):
                idle[f"model.{key}"] = (
                    f"model.specialization is {model.specialization}; set model.specialization=lora"
                )
        if model.roles:
            idle["model.policies"] = "model.roles gives each role its policy"
        if grpo.filter_method == "none":
            idle["grpo.filter_ratio"] = "grpo.filter_method is none; set grpo.filter_method=mean"
        for key, (follower, value) in defaults_of(config).items():
            if getattr(text, key) != value:
                idle[f"environment.text.{key}"] = f"{follower} has a value of its own"
        return idle


def defaults_of(config: RunConfig) -> dict[str, tuple[str, float | None]]:
    """Keys of `environment.text` that are only defaults: of which key, and what that is now."""
    generation = config.generation
    return {
        "max_prompt_length": ("generation.max_prompt_length", generation.max_prompt_length),
        "max_response_length": ("generation.max_response_length", generation.max_response_length),
        "warm_up_steps": ("model.warm_up.steps", config.model.warm_up.steps),
        "warm_up_loss": ("model.warm_up.target_loss", config.model.warm_up.target_loss),
        "warm_up_mistakes": ("model.warm_up.mistakes", config.model.warm_up.mistakes),
    }


def _fault(key: str, value: Any, message: str) -> Fault:
    """A value that does not fit others, under the key that a user would change; of unknown file."""
    return Fault("", message, key, value)


def _shape_misfits(config: RunConfig) -> Iterator[Fault]:
    frames, unit = config.collector.frames_per_batch, config.frames_per_problem
    if frames % unit:
        yield _fault(
            "collector.frames_per_batch",
            frames,
            f"(agent.n_steps) must be a multiple of {unit}: {config.grpo.num_generations} "
            f"responses (grpo.num_generations) times {config.environment.text.max_turns} rounds "
            f"(environment.text.max_turns) for each problem; for example "
            f"{nearest_multiples(frames, unit)}",
        )
    training = config.training
    if training.num_batches is not None:
        wanted = training.num_batches * training.epochs * frames
        if training.total_frames != wanted:
            yield _fault(
                "training.total_frames",
                training.total_frames,
                f"must be {wanted} with training.num_batches {training.num_batches} and "
                f"training.epochs {training.epochs}, or training.num_batches null",
            )
    for key, value in (
        ("collector_type", config.collector_type),
        ("environment.task", config.environment.task),
    ):
        if value not in ("sync", None):
            wanted = "sync" if key == "collector_type" else "null"
            yield _fault(key, value, f"must be {wanted} with env_type text")
    if not config.environment.text.task_is_own and config.environment.kwargs:
        yield _fault(
            "environment.kwargs",
            config.environment.kwargs,
            f"must be empty: the task's settings are in environment.text."
            f"{config.environment.text.task}",
        )


def _role_misfits(config: RunConfig) -> Iterator[Fault]:
    text, roles = config.environment.text, config.model.roles
    if text.turn_order is not None and not text.turn_order:
        yield _fault("environment.text.turn_order", [], "must name at least one role, or be null")
        return
    if not text.task_is_own:
        known = tuple(text.cast) or TASK_ROLES[text.task]
        for agent, role in text.cast.items():
            if role not in TASK_ROLES[text.task]:
                yield _fault(
                    f"environment.text.cast.{agent}",
                    role,
                    f"task {text.task} has no such role.{nearest(role, TASK_ROLES[text.task])} "
                    f"Its roles: {', '.join(TASK_ROLES[text.task])}",
                )
        named = {"turn_order": text.turn_order or (), "templates": text.templates}
        for key, names in named.items():
            for role in names:
                if role not in known:
                    yield _fault(
                        f"environment.text.{key}",
                        role,
                        f"task {text.task} has no such role.{nearest(role, known)} Its roles: "
                        f"{', '.join(known)}",
                    )
    if roles and config.turn_order is not None:
        without = [role for role in config.turn_order if role not in roles]
        if without:
            yield _fault(
                "model.roles",
                roles,
                f"gives no policy to {', '.join(dict.fromkeys(without))}, who act in turn; name "
                "one for each role, or leave it empty",
            )
    policies = config.policy_names
    for key, named in (
        ("model.by_policy", config.model.by_policy),
        ("loss.groups", config.loss.groups),
        ("optimizer.groups", config.optimizer.groups),
    ):
        for name in named:
            if policies is not None and name not in policies:
                yield _fault(
                    key,
                    name,
                    f"no role has this policy.{nearest(name, policies)} There are: "
                    f"{', '.join(policies)}",
                )


def _model_misfits(config: RunConfig) -> Iterator[Fault]:
    model, generation = config.model, config.generation
    longest = generation.max_prompt_length + generation.max_response_length
    if model.path == TINY and longest > model.tiny.max_length:
        yield _fault(
            "model.tiny.max_length",
            model.tiny.max_length,
            f"must be at least {longest}: generation.max_prompt_length "
            f"{generation.max_prompt_length} and generation.max_response_length "
            f"{generation.max_response_length} together",
        )
    if model.tiny.hidden_size % (2 * model.tiny.num_heads):
        yield _fault(
            "model.tiny.hidden_size",
            model.tiny.hidden_size,
            f"must be a multiple of {2 * model.tiny.num_heads}, twice model.tiny.num_heads",
        )
