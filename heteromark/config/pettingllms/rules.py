"""What must hold in a team config, between its values and beside what runs here can do.

Every fault is told under the documented key, all of them at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from heteromark.config.errors import Fault, nearest
from heteromark.config.fields import is_import_path, nearest_divisors
from heteromark.config.models.llm import TINY
from heteromark.config.models.tasks import TASK_ROLES
from heteromark.config.pettingllms.registry import AGENTS, ENVIRONMENTS
from heteromark.config.pettingllms.sections import SYNTHETIC, TeamSections

CHECKPOINTS = "checkpoints"  # of every run, in its own folder
_FILE = (".jsonl", ".json")


def team_faults(sections: TeamSections) -> Iterator[Fault]:
    """All that is wrong with a team config whose types are right."""
    yield from _impossible(sections)
    yield from _env_faults(sections)
    yield from _model_faults(sections)
    yield from _agent_faults(sections)
    yield from _order_faults(sections)
    yield from _training_faults(sections)
    yield from _repeated_faults(sections)
    yield from _filter_faults(sections)


def task_of(sections: TeamSections) -> str | None:
    """The task of `env`, or the import path of the user's own; None: there is none of that name."""
    env = sections.env
    if is_import_path(env.name):
        return env.name
    tasks = ENVIRONMENTS.get(env.name, ())
    if len(tasks) > 1:
        return env.benchmark if env.benchmark in tasks else None
    return tasks[0] if tasks else None


def role_of(sections: TeamSections, agent_name: str) -> str | None:
    """The role that an agent plays in the task; None: it is not registered for it."""
    agent, task = sections.agents[agent_name], task_of(sections)
    if agent.role is not None or task is None:
        return agent.role
    return agent_name if is_import_path(task) else AGENTS[task].get(agent_name)


def is_file(dataset: str) -> bool:
    """Whether a dataset is a file of problems, rather than a name."""
    return dataset.endswith(_FILE)


def _impossible(sections: TeamSections) -> Iterator[Fault]:
    """Keys that could only act in another system, unless they say what is the case here."""
    resource, env, training = sections.resource, sections.env, sections.training
    one_device = (
        "a run has one device, and no model is split over several; other GPUs are for other runs, "
        "which CUDA_VISIBLE_DEVICES gives each its own"
    )
    if resource.nnodes != 1:
        message = f"must be 1: a run is on one machine, and {one_device}"
        yield Fault("", message, "resource.nnodes", resource.nnodes)
    gpus = {"resource.n_gpus_per_node": resource.n_gpus_per_node}
    for name, model in sections.models.items():
        key = f"models.{name}.ppo_trainer_config.actor_rollout_ref.rollout"
        rollout = model.ppo_trainer_config.actor_rollout_ref.rollout
        gpus[f"{key}.tensor_model_parallel_size"] = rollout.tensor_model_parallel_size
    for key, value in gpus.items():
        if (value or 0) > 1:
            yield Fault("", f"must be 0, 1 or null: {one_device}", key, value)
    wanted = {0: "cpu", 1: "cuda"}.get(resource.n_gpus_per_node, training.device)
    if training.device not in ("auto", wanted):
        message = (
            f"contradicts resource.n_gpus_per_node, which is {resource.n_gpus_per_node}; set "
            f"training.device to {wanted} or auto"
        )
        yield Fault("", message, "training.device", training.device)
    for key, value, allowed, reason in (
        ("env.resolve", env.resolve, False, "no task here resolves problems anew"),
        ("env.multi_modal", env.multi_modal, False, "prompts are text"),
        ("env.batched_init", env.batched_init, True, "the problems of a step are made together"),
    ):
        if value is not allowed:
            yield Fault("", f"must be {str(allowed).lower()}: {reason}", key, value)
    timeout = training.ray_wait_register_center_timeout
    if timeout is not None:
        message = "must be null, or left out: nothing here is distributed by Ray"
        yield Fault("", message, "training.ray_wait_register_center_timeout", timeout)
    if training.model_checkpoints_dir != CHECKPOINTS:
        message = (
            f"must be {CHECKPOINTS}, the folder of that name in the run's own; the run store, "
            "which HETEROMARK_STORE places, keeps that, and the output folder (hydra.run.dir) gets "
            "a copy of the final weights"
        )
        yield Fault("", message, "training.model_checkpoints_dir", training.model_checkpoints_dir)
    if "console" not in training.logger:
        message = "must have console in it: progress is always told there"
        yield Fault("", message, "training.logger", training.logger)


def _env_faults(sections: TeamSections) -> Iterator[Fault]:
    env = sections.env
    if is_import_path(env.name):
        for key in ("dataset", "benchmark"):
            if (value := getattr(env, key)) not in (SYNTHETIC, None):
                message = f"must be {SYNTHETIC}: {env.name} is your own, and makes its problems"
                yield Fault("", message, f"env.{key}", value)
        return
    if env.name not in ENVIRONMENTS:
        message = (
            f"is not registered.{nearest(env.name, ENVIRONMENTS)} There are: "
            f"{', '.join(ENVIRONMENTS)}; or the import path of your own task's factory, "
            "module:factory"
        )
        yield Fault("", message, "env.name", env.name)
        return
    tasks = ENVIRONMENTS[env.name]
    takes_files = env.name == "math_env"
    source = env.dataset if takes_files and is_file(env.dataset) else SYNTHETIC
    if env.dataset != source:
        allowed = f"must be {SYNTHETIC}"
        if takes_files:
            allowed += ", or a file of JSON Lines with question and answer (problems.jsonl)"
        message = f"{allowed}; nothing is downloaded, problems are generated from seeds"
        yield Fault("", message, "env.dataset", env.dataset)
    if len(tasks) > 1:
        if env.benchmark not in tasks:
            message = f"must be one of {', '.join(tasks)} with env.name {env.name}"
            yield Fault("", message, "env.benchmark", env.benchmark)
    elif env.benchmark not in (None, source):
        message = (
            f"must be null or {source}, as env.dataset: evaluations are on problems of the "
            "same source that training never sees"
        )
        yield Fault("", message, "env.benchmark", env.benchmark)


def _model_faults(sections: TeamSections) -> Iterator[Fault]:
    paths: dict[str, str] = {}
    used = {agent.policy_name for agent in sections.agents.values()}
    for key, model in sections.base_models.items():
        first = paths.setdefault(model.name, model.path)
        if first != model.path:
            message = (
                f"is {model.name} too, which has the path {first}; agents that share a model share "
                "its path, others have names of their own"
            )
            yield Fault("", message, f"base_models.{key}.path", model.path)
        if model.name not in used:
            message = (
                "no agent has it; make it the policy_name of one in "
                "agent_policy_configs.agent_configs, or leave it out"
            )
            yield Fault("", message, f"base_models.{key}.name", model.name)
        if not re.match(r"^[\w./~-][\w./~ -]*$", model.path) or " base model path" in model.path:
            message = f"is no path; name a folder, a model of the Hugging Face hub, or {TINY}"
            yield Fault("", message, f"base_models.{key}.path", model.path)
    for key, model in sections.models.items():
        if model.name not in paths:
            message = f"is none of base_models.{nearest(model.name, paths)} {_there_are(paths)}"
            yield Fault("", message, f"models.{key}.name", model.name)
            continue
        actor = model.ppo_trainer_config.actor_rollout_ref
        own = {"path": model.path}
        own["ppo_trainer_config.actor_rollout_ref.model.path"] = actor.model.path
        for place, path in own.items():
            if path not in (None, paths[model.name]):
                message = (
                    f"must be the path of {model.name} in base_models, which is "
                    f"{paths[model.name]}: write ${{base_models.….path}}, or leave it out"
                )
                yield Fault("", message, f"models.{key}.{place}", path)


def _agent_faults(sections: TeamSections) -> Iterator[Fault]:
    configs, names = sections.agent_policy_configs, sections.agents
    policies = {model.name for model in sections.base_models.values()}
    task = task_of(sections)
    seen: set[str] = set()
    for key, agent in configs.agent_configs.items():
        place = f"agent_policy_configs.agent_configs.{key}"
        if agent.name in seen:
            yield Fault("", "is the name of two agents", f"{place}.name", agent.name)
        seen.add(agent.name)
        if agent.policy_name not in policies:
            message = (
                f"is the name of none of base_models.{nearest(agent.policy_name, policies)} "
                f"{_there_are(policies)}"
            )
            yield Fault("", message, f"{place}.policy_name", agent.policy_name)
        if task is None:
            continue
        if is_import_path(task):
            others = {each.policy_name for each in names.values() if each.role == agent.role}
            if agent.role is not None and len(others) > 1:
                message = (
                    f"two agents play it with different models; let {task} have a role for each"
                )
                yield Fault("", message, f"{place}.role", agent.role)
            continue
        known, roles = AGENTS[task], TASK_ROLES[task]
        if agent.role is not None:
            if agent.role not in roles:
                message = f"is no role of {task}. {_there_are(roles)}"
                yield Fault("", message, f"{place}.role", agent.role)
        elif agent.name not in known:
            message = (
                f"is not registered for {task}.{nearest(agent.name, known)} {_there_are(known)}; "
                f"or add `role:` with what it does: {' or '.join(roles)}"
            )
            yield Fault("", message, f"{place}.name", agent.name)
    if configs.num_agents not in (None, len(configs.agent_configs)):
        message = f"must be {len(configs.agent_configs)}: so many are in agent_configs"
        yield Fault("", message, "agent_policy_configs.num_agents", configs.num_agents)
    listed = configs.policy_list
    if listed is not None and set(listed) not in (set(names), policies):
        message = f"must list the agents: {', '.join(names)}; or their models: "
        yield Fault(
            "",
            message + ", ".join(sorted(policies)),
            "agent_policy_configs.policy_list",
            listed,
        )


def _order_faults(sections: TeamSections) -> Iterator[Fault]:
    interaction, names = sections.multi_agent_interaction, sections.agents
    order = interaction.turn_order
    for name in dict.fromkeys(order):
        if name not in names:
            message = f"{name} is no agent of agent_configs.{nearest(name, names)}"
            message += f" {_there_are(names)}"
            yield Fault("", message, "multi_agent_interaction.turn_order", order)
    idle = [name for name in names if name not in order]
    if idle:
        message = (
            f"every agent acts, but {', '.join(idle)} of agent_configs "
            f"{'is' if len(idle) == 1 else 'are'} not in it"
        )
        yield Fault("", message, "multi_agent_interaction.turn_order", order)
    acting = len(set(order))
    if interaction.num_interacting_agents not in (None, acting):
        message = f"must be {acting}: so many different agents are in turn_order"
        key = "multi_agent_interaction.num_interacting_agents"
        yield Fault("", message, key, interaction.num_interacting_agents)


def _training_faults(sections: TeamSections) -> Iterator[Fault]:
    training = sections.training
    if training.val_freq >= training.total_training_steps:
        message = (
            f"must be below training.total_training_steps, which is "
            f"{training.total_training_steps}; or 0, for the evaluation at the end alone"
        )
        yield Fault("", message, "training.val_freq", training.val_freq)
    frames = training.train_batch_size * training.train_sample_num * sections.env.max_turns
    minibatch = sections.replay_buffer.get("minibatch_size")
    if isinstance(minibatch, int) and minibatch > 0 and frames % minibatch:
        message = (
            f"must divide the {frames} responses of a step: training.train_batch_size times "
            "training.train_sample_num times env.max_turns; "
            f"{nearest_divisors(minibatch, frames)}"
        )
        yield Fault("", message, "replay_buffer.minibatch_size", minibatch)
    for key in ("lora_rank", "lora_alpha"):
        value, wanted = getattr(training, key), getattr(sections, key)
        if value not in (None, wanted):
            message = f"must be {key}, which is {wanted}: write ${{{key}}}, or leave it out"
            yield Fault("", message, f"training.{key}", value)


def _repeated_faults(sections: TeamSections) -> Iterator[Fault]:
    """Values that models only repeat, and that differ from what they repeat."""
    training, gpus = sections.training, sections.resource.n_gpus_per_node
    for name, model in sections.models.items():
        config = model.ppo_trainer_config
        data, actor = config.data, config.actor_rollout_ref
        repeated: dict[str, tuple[Any, str, Any]] = {}
        for key in ("max_prompt_length", "max_response_length"):
            wanted = getattr(training, key)
            repeated[f"data.{key}"] = (getattr(data, key), f"training.{key}", wanted)
            short = key.removeprefix("max_")
            value = getattr(actor.rollout, short)
            repeated[f"actor_rollout_ref.rollout.{short}"] = (value, f"training.{key}", wanted)
        repeated["actor_rollout_ref.rollout.temperature"] = (
            *(actor.rollout.temperature, "training.sample_temperature"),
            training.sample_temperature,
        )
        for key in ("n_gpus_per_node", "n_training_gpus_per_node"):
            value = getattr(actor.trainer, key)
            repeated[f"actor_rollout_ref.trainer.{key}"] = (
                *(value, "resource.n_gpus_per_node"),
                gpus,
            )
        for key, (value, source, wanted) in repeated.items():
            if value not in (None, wanted):
                shown = "null" if wanted is None else wanted
                message = f"must be {source}, which is {shown}: write ${{{source}}}, or leave it "
                yield Fault("", f"{message}out", f"models.{name}.ppo_trainer_config.{key}", value)


def _filter_faults(sections: TeamSections) -> Iterator[Fault]:
    for key in ("filter_method", "filter_ratio"):
        said = {
            name: getattr(model.ppo_trainer_config, key) for name, model in sections.models.items()
        }
        said = {name: value for name, value in said.items() if value is not None}
        for name, value in said.items():
            first = next(iter(said))
            if value != said[first]:
                message = (
                    f"must be {said[first]}, as in models.{first}: there is one filter for all "
                    "policies"
                )
                yield Fault("", message, f"models.{name}.ppo_trainer_config.{key}", value)


def _there_are(names: Iterable[str]) -> str:
    return f"There are: {', '.join(names)}"
