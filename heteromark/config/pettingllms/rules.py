"""What must hold in a team config, between its values and beside what runs here can do.

Every fault is reported under the documented key, all of them at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from heteromark.config.errors import Fault, fault_at, nearest
from heteromark.config.fields import is_import_path, nearest_divisors
from heteromark.config.models.llm import TINY
from heteromark.config.models.tasks import TASK_ROLES
from heteromark.config.nested import value_at
from heteromark.config.pettingllms.sections import SYNTHETIC, AgentChoice, TeamSections

# Tasks by environment. Where there are several, `env.benchmark` chooses.
ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "code_env": ("code",),
    "math_env": ("math",),
    "search_env": ("search",),
    "stateful_env": ("plan_path", "sokoban", "sudoku"),
}

SINGLE_AGENT = "single_agent"  # the role that can solve a task alone, whichever that is

# Names of agents by the role that they play. A generator proposes, and a critic reacts to it.
_NAMES_OF_ROLE: dict[str, tuple[str, ...]] = {
    "tool": ("tool_generator", "tool_call_agent", "generator"),
    "reasoner": ("reasoning_generator", "reasoning_agent", "critic"),
    "planner": ("plan_agent", "critic"),
    "coder": ("code_generator", "generator"),
    "tester": ("test_generator", "critic"),
    "searcher": ("web_search_agent", "generator"),
}

# Roles by task and by name of agent; a role's own name is one of them.
AGENTS: dict[str, dict[str, str]] = {
    task: {SINGLE_AGENT: roles[-1]}
    | {name: role for role in roles for name in (role, *_NAMES_OF_ROLE[role])}
    for task, roles in TASK_ROLES.items()
}

CHECKPOINTS = "checkpoints"  # of every run, in its own folder
_ONE_DEVICE = (
    "a run has one device, and no model is split over several; other GPUs are for other runs, "
    "which CUDA_VISIBLE_DEVICES gives each its own"
)
# Keys that could only act in another system, unless they say what is the case here.
_ONLY_VALUE: dict[str, tuple[object, str]] = {
    "resource.nnodes": (1, f"must be 1: a run is on one machine, and {_ONE_DEVICE}"),
    "env.resolve": (False, "must be false: no task here resolves problems anew"),
    "env.multi_modal": (False, "must be false: prompts are text"),
    "env.batched_init": (True, "must be true: the problems of a step are made together"),
    "training.ray_wait_register_center_timeout": (
        None,
        "must be null, or left out: nothing here is distributed by Ray",
    ),
    "training.model_checkpoints_dir": (
        CHECKPOINTS,
        f"must be {CHECKPOINTS}, the folder of that name in the run's own; the run store, which "
        "HETEROMARK_STORE places, keeps that, and the output folder (hydra.run.dir) gets a copy "
        "of the final weights",
    ),
}
_PARALLEL = "ppo_trainer_config.actor_rollout_ref.rollout.tensor_model_parallel_size"
# Keys that only repeat another; those of ppo_trainer_config are there for each of the models.
_REPEATED = {
    "training.lora_rank": "lora_rank",
    "training.lora_alpha": "lora_alpha",
}
_REPEATED_BY_MODELS = {
    "data.max_prompt_length": "training.max_prompt_length",
    "data.max_response_length": "training.max_response_length",
    "actor_rollout_ref.rollout.prompt_length": "training.max_prompt_length",
    "actor_rollout_ref.rollout.response_length": "training.max_response_length",
    "actor_rollout_ref.rollout.temperature": "training.sample_temperature",
    "actor_rollout_ref.trainer.n_gpus_per_node": "resource.n_gpus_per_node",
    "actor_rollout_ref.trainer.n_training_gpus_per_node": "resource.n_gpus_per_node",
}

Misfits = Iterator[tuple[str, str]]  # the documented key of a value, and what is wrong with it


def team_faults(sections: TeamSections) -> Iterator[Fault]:
    """All that is wrong with a team config whose types are right."""
    for find in (
        _device_misfits,
        _env_misfits,
        _base_model_misfits,
        _model_misfits,
        _agent_misfits,
        _order_misfits,
        _training_misfits,
        _repetition_misfits,
    ):
        for key, message in find(sections):
            yield fault_at(sections, key, message)


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
    return dataset.endswith((".jsonl", ".json"))


def _device_misfits(sections: TeamSections) -> Misfits:
    gpus, device = sections.resource.n_gpus_per_node, sections.training.device
    if (gpus or 0) > 1:
        yield "resource.n_gpus_per_node", f"must be 0, 1 or null: {_ONE_DEVICE}"
    wanted = {0: "cpu", 1: "cuda"}.get(gpus, device)
    if device not in ("auto", wanted):
        yield (
            "training.device",
            f"contradicts resource.n_gpus_per_node, which is {gpus}; set training.device to "
            f"{wanted} or auto",
        )
    for key, (value, message) in _ONLY_VALUE.items():
        if value_at(sections, key) != value:
            yield key, message
    if "console" not in sections.training.logger:
        yield "training.logger", "must have console in it: progress is always told there"


def _env_misfits(sections: TeamSections) -> Misfits:
    env = sections.env
    if is_import_path(env.name):
        for key in ("dataset", "benchmark"):
            if getattr(env, key) not in (SYNTHETIC, None):
                message = f"must be {SYNTHETIC}: {env.name} is your own, and makes its problems"
                yield f"env.{key}", message
        return
    if env.name not in ENVIRONMENTS:
        yield (
            "env.name",
            f"is not registered.{nearest(env.name, ENVIRONMENTS)} {_there_are(ENVIRONMENTS)}; or "
            "the import path of your own task's factory, module:factory",
        )
        return
    tasks = ENVIRONMENTS[env.name]
    takes_files = env.name == "math_env"
    source = env.dataset if takes_files and is_file(env.dataset) else SYNTHETIC
    if env.dataset != source:
        files = ", or a file of JSON Lines with question and answer (problems.jsonl)"
        yield (
            "env.dataset",
            f"must be {SYNTHETIC}{files if takes_files else ''}; nothing is downloaded, problems "
            "are generated from seeds",
        )
    if len(tasks) > 1 and env.benchmark not in tasks:
        message = f"must be one of {', '.join(tasks)} with env.name {env.name}"
        yield "env.benchmark", message
    if len(tasks) == 1 and env.benchmark not in (None, source):
        yield (
            "env.benchmark",
            f"must be null or {source}, as env.dataset: evaluations are on problems of the same "
            "source that training never sees",
        )


def _base_model_misfits(sections: TeamSections) -> Misfits:
    paths: dict[str, str] = {}
    used = {agent.policy_name for agent in sections.agents.values()}
    for key, model in sections.base_models.items():
        first = paths.setdefault(model.name, model.path)
        if first != model.path:
            yield (
                f"base_models.{key}.path",
                f"is {model.name} too, which has the path {first}; agents that share a model share "
                "its path, others have names of their own",
            )
        if model.name not in used:
            yield (
                f"base_models.{key}.name",
                "no agent has it; make it the policy_name of one in "
                "agent_policy_configs.agent_configs, or leave it out",
            )
        if not re.match(r"^[\w./~-][\w./~ -]*$", model.path) or " base model path" in model.path:
            message = f"is no path; name a folder, a model of the Hugging Face hub, or {TINY}"
            yield f"base_models.{key}.path", message


def _model_misfits(sections: TeamSections) -> Misfits:
    paths = sections.paths
    for key, model in sections.models.items():
        if (value_at(model, _PARALLEL) or 0) > 1:
            yield f"models.{key}.{_PARALLEL}", f"must be 0, 1 or null: {_ONE_DEVICE}"
        if model.name not in paths:
            message = f"is none of base_models.{nearest(model.name, paths)} {_there_are(paths)}"
            yield f"models.{key}.name", message
            continue
        for place in ("path", "ppo_trainer_config.actor_rollout_ref.model.path"):
            if value_at(model, place) not in (None, paths[model.name]):
                yield (
                    f"models.{key}.{place}",
                    f"must be the path of {model.name} in base_models, which is "
                    f"{paths[model.name]}: write ${{base_models.….path}}, or leave it out",
                )
    for key in ("filter_method", "filter_ratio"):
        said = {
            name: value
            for name, model in sections.models.items()
            if (value := getattr(model.ppo_trainer_config, key)) is not None
        }
        first = next(iter(said), None)
        for name, value in said.items():
            if value != said[first]:
                yield (
                    f"models.{name}.ppo_trainer_config.{key}",
                    f"must be {said[first]}, as in models.{first}: there is one filter for all "
                    "policies",
                )


def _agent_misfits(sections: TeamSections) -> Misfits:
    configs, names, policies = sections.agent_policy_configs, sections.agents, sections.paths
    seen: set[str] = set()
    for key, agent in configs.agent_configs.items():
        place = f"agent_policy_configs.agent_configs.{key}"
        if agent.name in seen:
            yield f"{place}.name", "is the name of two agents"
        seen.add(agent.name)
        if agent.policy_name not in policies:
            yield (
                f"{place}.policy_name",
                f"is the name of none of base_models.{nearest(agent.policy_name, policies)} "
                f"{_there_are(policies)}",
            )
        for part, message in _role_misfits(sections, agent):
            yield f"{place}.{part}", message
    if configs.num_agents not in (None, len(configs.agent_configs)):
        message = f"must be {len(configs.agent_configs)}, the number of agent_configs"
        yield "agent_policy_configs.num_agents", message
    listed = configs.policy_list
    if listed is not None and set(listed) not in (set(names), set(policies)):
        yield (
            "agent_policy_configs.policy_list",
            f"must list the agents: {', '.join(names)}; or their models: "
            f"{', '.join(sorted(policies))}",
        )


def _role_misfits(sections: TeamSections, agent: AgentChoice) -> Misfits:
    task = task_of(sections)
    if task is None:
        return
    if is_import_path(task):
        others = {each.policy_name for each in sections.agents.values() if each.role == agent.role}
        if agent.role is not None and len(others) > 1:
            message = f"two agents play it with different models; let {task} have a role for each"
            yield "role", message
        return
    known, roles = AGENTS[task], TASK_ROLES[task]
    if agent.role is not None and agent.role not in roles:
        yield "role", f"is no role of {task}. {_there_are(roles)}"
    if agent.role is None and agent.name not in known:
        yield (
            "name",
            f"is not registered for {task}.{nearest(agent.name, known)} {_there_are(known)}; "
            f"or add `role:` with what it does: {' or '.join(roles)}",
        )


def _order_misfits(sections: TeamSections) -> Misfits:
    interaction, names = sections.multi_agent_interaction, sections.agents
    key, order = "multi_agent_interaction.turn_order", interaction.turn_order
    for name in dict.fromkeys(order):
        if name not in names:
            message = f"{name} is no agent of agent_configs.{nearest(name, names)}"
            yield key, f"{message} {_there_are(names)}"
    idle = [name for name in names if name not in order]
    if idle:
        be = "is" if len(idle) == 1 else "are"
        yield key, f"every agent acts, but {', '.join(idle)} of agent_configs {be} not in it"
    acting = len(set(order))
    if interaction.num_interacting_agents not in (None, acting):
        message = f"must be {acting}, the number of different agents in turn_order"
        yield "multi_agent_interaction.num_interacting_agents", message


def _training_misfits(sections: TeamSections) -> Misfits:
    training, frames = sections.training, sections.frames_per_step
    if training.val_freq >= training.total_training_steps:
        yield (
            "training.val_freq",
            f"must be below training.total_training_steps, which is "
            f"{training.total_training_steps}; or 0, for the evaluation at the end alone",
        )
    minibatch = sections.replay_buffer.get("minibatch_size")
    if isinstance(minibatch, int) and minibatch > 0 and frames % minibatch:
        yield (
            "replay_buffer.minibatch_size",
            f"must divide the {frames} responses of a step: training.train_batch_size times "
            "training.train_sample_num times env.max_turns; "
            f"{nearest_divisors(minibatch, frames)}",
        )


def _repetition_misfits(sections: TeamSections) -> Misfits:
    repeated = _REPEATED | {
        f"models.{name}.ppo_trainer_config.{key}": source
        for name in sections.models
        for key, source in _REPEATED_BY_MODELS.items()
    }
    for key, source in repeated.items():
        wanted = value_at(sections, source)
        if value_at(sections, key) not in (None, wanted):
            shown = "null" if wanted is None else wanted
            yield key, f"must be {source}, which is {shown}: write ${{{source}}}, or leave it out"


def _there_are(names: Iterable[str]) -> str:
    return f"There are: {', '.join(names)}"
