"""What must hold between the values of a run of language-model agents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from heteromark.config.errors import nearest
from heteromark.config.fields import TEXT_ALGORITHMS, nearest_multiples
from heteromark.config.models.llm import TINY
from heteromark.config.models.tasks import TASK_ROLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heteromark.config.models.run import RunConfig


class Misfit(NamedTuple):
    """A value that does not fit others, under the key that a user would change."""

    key: str
    value: Any
    message: str


def text_misfits(config: RunConfig) -> Iterator[Misfit]:
    """What is wrong with a run, if it is one of language-model agents or looks like one."""
    algorithm = config.agent.algorithm
    if (config.env_type == "text") != (algorithm in TEXT_ALGORITHMS):
        name = config.environment.name
        if config.env_type == "text":
            message = (
                f"environment {name} is for language-model agents, which "
                f"{' and '.join(TEXT_ALGORITHMS)} train; choose an agent config such as "
                "config/agents/grpo_agent_v1.yaml"
            )
        else:
            message = (
                f"{algorithm} trains language-model agents, but environment {name} has env_type "
                f"{config.env_type}; choose one with env_type text, such as math or plan_path"
            )
        yield Misfit("agent.algorithm", algorithm, message)
        return
    if config.env_type == "text":
        yield from _shape_misfits(config)
        yield from _role_misfits(config)
        yield from _model_misfits(config)


def _shape_misfits(config: RunConfig) -> Iterator[Misfit]:
    frames, unit = config.collector.frames_per_batch, config.frames_per_problem
    if frames % unit:
        yield Misfit(
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
            yield Misfit(
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
            yield Misfit(key, value, f"must be {wanted} with env_type text")
    if not config.environment.text.task_is_own and config.environment.kwargs:
        yield Misfit(
            "environment.kwargs",
            config.environment.kwargs,
            f"must be empty: the task's settings are in environment.text."
            f"{config.environment.text.task}",
        )


def _role_misfits(config: RunConfig) -> Iterator[Misfit]:
    text, roles = config.environment.text, config.model.roles
    if text.turn_order is not None and not text.turn_order:
        yield Misfit("environment.text.turn_order", [], "must name at least one role, or be null")
        return
    if not text.task_is_own:
        known = TASK_ROLES[text.task]
        named = {"turn_order": text.turn_order or (), "templates": text.templates}
        for key, names in named.items():
            for role in names:
                if role not in known:
                    yield Misfit(
                        f"environment.text.{key}",
                        role,
                        f"task {text.task} has no such role.{nearest(role, known)} Its roles: "
                        f"{', '.join(known)}",
                    )
    if roles and config.turn_order is not None:
        without = [role for role in config.turn_order if role not in roles]
        if without:
            yield Misfit(
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
                yield Misfit(
                    key,
                    name,
                    f"no role has this policy.{nearest(name, policies)} There are: "
                    f"{', '.join(policies)}",
                )


def _model_misfits(config: RunConfig) -> Iterator[Misfit]:
    model, generation = config.model, config.generation
    longest = generation.max_prompt_length + generation.max_response_length
    if model.path == TINY and longest > model.tiny.max_length:
        yield Misfit(
            "model.tiny.max_length",
            model.tiny.max_length,
            f"must be at least {longest}: generation.max_prompt_length "
            f"{generation.max_prompt_length} and generation.max_response_length "
            f"{generation.max_response_length} together",
        )
    if model.tiny.hidden_size % (2 * model.tiny.num_heads):
        yield Misfit(
            "model.tiny.hidden_size",
            model.tiny.hidden_size,
            f"must be a multiple of {2 * model.tiny.num_heads}, twice model.tiny.num_heads",
        )
