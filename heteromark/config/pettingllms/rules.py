"""The rules of team configs: conflicts between values, and settings that are not supported here.

All faults are reported at once, under the keys of the team config.
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

# Tasks by environment; `env.benchmark` chooses if there are several.
ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "code_env": ("code",),
    "math_env": ("math",),
    "search_env": ("search",),
    "stateful_env": ("plan_path", "sokoban", "sudoku"),
}

SINGLE_AGENT = "single_agent"  # plays the role that can solve the task alone

# Agent names by the role that they play. A generator proposes; a critic responds.
_NAMES_OF_ROLE: dict[str, tuple[str, ...]] = {
    "tool": ("tool_generator", "tool_call_agent", "generator"),
    "reasoner": ("reasoning_generator", "reasoning_agent", "critic"),
    "planner": ("plan_agent", "critic"),
    "coder": ("code_generator", "generator"),
    "tester": ("test_generator", "critic"),
    "searcher": ("web_search_agent", "generator"),
}

# Roles by task and agent name. An agent may also be named after its role.
AGENTS: dict[str, dict[str, str]] = {
    task: {SINGLE_AGENT: roles[-1]}
    | {name: role for role in roles for name in (role, *_NAMES_OF_ROLE[role])}
    for task, roles in TASK_ROLES.items()
}

CHECKPOINTS = "checkpoints"  # a subfolder of every run folder
_ONE_DEVICE = (
    "a run uses one device and cannot split a model across GPUs; to use several GPUs, start one "
    "run per GPU with CUDA_VISIBLE_DEVICES"
)
# Keys of PettingLLMs with only one supported value here, and why.
_ONLY_VALUE: dict[str, tuple[object, str]] = {
    "resource.nnodes": (1, f"must be 1: a run uses one machine; {_ONE_DEVICE}"),
    "env.resolve": (False, "must be false: no task here solves a problem twice"),
    "env.multi_modal": (False, "must be false: prompts are text"),
    "env.batched_init": (True, "must be true: all problems of a step are created together"),
    "training.ray_wait_register_center_timeout": (
        None,
        "must be null or left out: Ray is not used here",
    ),
    "training.model_checkpoints_dir": (
        CHECKPOINTS,
        f"must be {CHECKPOINTS}, a subfolder of the run folder. The run folder is in the run store "
        "(HETEROMARK_STORE); the output folder (hydra.run.dir) gets a copy of the final weights",
    ),
}
_PARALLEL = "ppo_trainer_config.actor_rollout_ref.rollout.tensor_model_parallel_size"
# Keys that repeat another key. Those in ppo_trainer_config exist once per model.
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

Conflicts = Iterator[tuple[str, str]]  # key in the team config, message


def team_faults(sections: TeamSections) -> Iterator[Fault]:
    """Yield all faults of a team config with valid types."""
    for find in (
        _device_conflicts,
        _env_conflicts,
        _base_model_conflicts,
        _model_conflicts,
        _agent_conflicts,
        _order_conflicts,
        _training_conflicts,
        _repetition_conflicts,
    ):
        for key, message in find(sections):
            yield fault_at(sections, key, message)


def task_of(sections: TeamSections) -> str | None:
    """Return the task of `env`, or the import path of a custom task; None: unknown environment."""
    env = sections.env
    if is_import_path(env.name):
        return env.name
    tasks = ENVIRONMENTS.get(env.name, ())
    if len(tasks) > 1:
        return env.benchmark if env.benchmark in tasks else None
    return tasks[0] if tasks else None


def role_of(sections: TeamSections, agent_name: str) -> str | None:
    """Return the role of an agent in the task; None: the agent's name has no role in it."""
    agent, task = sections.agents[agent_name], task_of(sections)
    if agent.role is not None or task is None:
        return agent.role
    return agent_name if is_import_path(task) else AGENTS[task].get(agent_name)


def is_file(dataset: str) -> bool:
    """Return whether a dataset is a file of problems, not a name."""
    return dataset.endswith((".jsonl", ".json"))


def _device_conflicts(sections: TeamSections) -> Conflicts:
    gpus, device = sections.resource.n_gpus_per_node, sections.training.device
    if (gpus or 0) > 1:
        yield "resource.n_gpus_per_node", f"must be 0, 1 or null: {_ONE_DEVICE}"
    wanted = {0: "cpu", 1: "cuda"}.get(gpus, device) if gpus is not None else device
    if device not in ("auto", wanted):
        yield (
            "training.device",
            f"contradicts resource.n_gpus_per_node ({gpus}); set training.device to {wanted} or "
            "auto",
        )
    for key, (value, message) in _ONLY_VALUE.items():
        if value_at(sections, key) != value:
            yield key, message
    if "console" not in sections.training.logger:
        yield "training.logger", "must contain console: progress is always printed"


def _env_conflicts(sections: TeamSections) -> Conflicts:
    env = sections.env
    if is_import_path(env.name):
        for key in ("dataset", "benchmark"):
            if getattr(env, key) not in (SYNTHETIC, None):
                message = f"must be {SYNTHETIC}: the custom task {env.name} creates its problems"
                yield f"env.{key}", message
        return
    if env.name not in ENVIRONMENTS:
        yield (
            "env.name",
            f"is not registered.{nearest(env.name, ENVIRONMENTS)} {_available(ENVIRONMENTS)}; or "
            "the import path of your own task's factory, module:factory",
        )
        return
    tasks = ENVIRONMENTS[env.name]
    takes_files = env.name == "math_env"
    source = env.dataset if takes_files and is_file(env.dataset) else SYNTHETIC
    if env.dataset != source:
        files = ", or a JSON Lines file with question and answer (problems.jsonl)"
        yield (
            "env.dataset",
            f"must be {SYNTHETIC}{files if takes_files else ''}. Synthetic problems are generated "
            "from seeds; nothing is downloaded",
        )
    if len(tasks) > 1 and env.benchmark not in tasks:
        message = f"must be one of {', '.join(tasks)} with env.name {env.name}"
        yield "env.benchmark", message
    if len(tasks) == 1 and env.benchmark not in (None, source):
        yield (
            "env.benchmark",
            f"must be null or {source}, like env.dataset: evaluations use held-out problems from "
            "the same source",
        )


def _base_model_conflicts(sections: TeamSections) -> Conflicts:
    paths: dict[str, str] = {}
    used = {agent.policy_name for agent in sections.agents.values()}
    for key, model in sections.base_models.items():
        first = paths.setdefault(model.name, model.path)
        if first != model.path:
            yield (
                f"base_models.{key}.path",
                f"must be {first}, the path of the other model named {model.name}; give the models "
                "the same path, or different names",
            )
        if model.name not in used:
            yield (
                f"base_models.{key}.name",
                "is not used by any agent; set it as policy_name of an agent in "
                "agent_policy_configs.agent_configs, or remove the model",
            )
        if not re.match(r"^[\w./~-][\w./~ -]*$", model.path) or " base model path" in model.path:
            message = f"is not a path; set a folder, a model on the Hugging Face hub, or {TINY}"
            yield f"base_models.{key}.path", message


def _model_conflicts(sections: TeamSections) -> Conflicts:
    paths = sections.paths
    for key, model in sections.models.items():
        if (value_at(model, _PARALLEL) or 0) > 1:
            yield f"models.{key}.{_PARALLEL}", f"must be 0, 1 or null: {_ONE_DEVICE}"
        if model.name not in paths:
            message = f"is not in base_models.{nearest(model.name, paths)} {_available(paths)}"
            yield f"models.{key}.name", message
            continue
        for path_key in ("path", "ppo_trainer_config.actor_rollout_ref.model.path"):
            if value_at(model, path_key) not in (None, paths[model.name]):
                yield (
                    f"models.{key}.{path_key}",
                    f"must be {paths[model.name]}, the path of {model.name} in base_models: write "
                    "${base_models.….path}, or remove this key",
                )
    for key in ("filter_method", "filter_ratio"):
        values = [
            (name, value)
            for name, model in sections.models.items()
            if (value := getattr(model.ppo_trainer_config, key)) is not None
        ]
        for name, value in values[1:]:
            first_name, first_value = values[0]
            if value != first_value:
                yield (
                    f"models.{name}.ppo_trainer_config.{key}",
                    f"must be {first_value}, as in models.{first_name}: all policies share one "
                    "filter",
                )


def _agent_conflicts(sections: TeamSections) -> Conflicts:
    configs, names, policies = sections.agent_policy_configs, sections.agents, sections.paths
    seen: set[str] = set()
    for key, agent in configs.agent_configs.items():
        path = f"agent_policy_configs.agent_configs.{key}"
        if agent.name in seen:
            yield f"{path}.name", "is the name of two agents; rename one"
        seen.add(agent.name)
        if agent.policy_name not in policies:
            yield (
                f"{path}.policy_name",
                f"is not a name in base_models.{nearest(agent.policy_name, policies)} "
                f"{_available(policies)}",
            )
        for part, message in _role_conflicts(sections, agent):
            yield f"{path}.{part}", message
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


def _role_conflicts(sections: TeamSections, agent: AgentChoice) -> Conflicts:
    task = task_of(sections)
    if task is None:
        return
    if is_import_path(task):
        others = {each.policy_name for each in sections.agents.values() if each.role == agent.role}
        if agent.role is not None and len(others) > 1:
            message = f"is played by two agents with different models; give {task} one role each"
            yield "role", message
        return
    known, roles = AGENTS[task], TASK_ROLES[task]
    if agent.role is not None and agent.role not in roles:
        yield "role", f"is not a role of {task}. {_available(roles)}"
    if agent.role is None and agent.name not in known:
        yield (
            "name",
            f"is not registered for {task}.{nearest(agent.name, known)} {_available(known)}. "
            f"Or set the agent's `role`: {' or '.join(roles)}",
        )


def _order_conflicts(sections: TeamSections) -> Conflicts:
    interaction, names = sections.multi_agent_interaction, sections.agents
    key, order = "multi_agent_interaction.turn_order", interaction.turn_order
    for name in dict.fromkeys(order):
        if name not in names:
            message = f"{name} is not an agent in agent_configs.{nearest(name, names)}"
            yield key, f"{message} {_available(names)}"
    missing = [name for name in names if name not in order]
    if missing:
        yield key, f"must contain every agent in agent_configs; missing: {', '.join(missing)}"
    acting = len(set(order))
    if interaction.num_interacting_agents not in (None, acting):
        message = f"must be {acting}, the number of distinct agents in turn_order"
        yield "multi_agent_interaction.num_interacting_agents", message


def _training_conflicts(sections: TeamSections) -> Conflicts:
    training, frames = sections.training, sections.frames_per_step
    if training.val_freq >= training.total_training_steps:
        yield (
            "training.val_freq",
            f"must be below training.total_training_steps ({training.total_training_steps}); or 0 "
            "to evaluate only at the end",
        )
    minibatch = sections.replay_buffer.get("minibatch_size")
    if isinstance(minibatch, int) and minibatch > 0 and frames % minibatch:
        yield (
            "replay_buffer.minibatch_size",
            f"must divide the {frames} responses of a step (training.train_batch_size times "
            "training.train_sample_num times env.max_turns). "
            f"{nearest_divisors(minibatch, frames)}",
        )


def _repetition_conflicts(sections: TeamSections) -> Conflicts:
    repeated = _REPEATED | {
        f"models.{name}.ppo_trainer_config.{key}": source
        for name in sections.models
        for key, source in _REPEATED_BY_MODELS.items()
    }
    for key, source in repeated.items():
        wanted = value_at(sections, source)
        if value_at(sections, key) not in (None, wanted):
            value = "null" if wanted is None else wanted
            yield key, f"must be {value}, like {source}: write ${{{source}}}, or remove this key"


def _available(names: Iterable[str]) -> str:
    return f"Available: {', '.join(names)}"
