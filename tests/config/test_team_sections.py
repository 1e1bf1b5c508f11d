"""Team configs: the effect of every documented key, and the faults of unsupported settings."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from heteromark.config.compose.job import Job
from heteromark.config.errors import ConfigError
from heteromark.config.models.tasks import TASK_ROLES
from heteromark.config.nested import merge, unflatten
from heteromark.config.pettingllms.rules import AGENTS, ENVIRONMENTS
from heteromark.config.pettingllms.sections import TeamSections
from heteromark.config.pettingllms.translation import team_job_data
from heteromark.runs.digest import run_digest

ACTOR = "models.model_0.ppo_trainer_config.actor_rollout_ref"
AGENT_1 = "agent_policy_configs.agent_configs.agent_1"

TEAM: dict[str, Any] = {
    "specialization": "lora",
    "env": {"name": "math_env", "max_turns": 2},
    "base_models": {
        "policy_0": {"path": "tiny", "name": "tools"},
        "policy_1": {"path": "tiny", "name": "reasons"},
    },
    "agent_policy_configs": {
        "num_agents": 2,
        "policy_list": ["tool_generator", "reasoning_generator"],
        "agent_configs": {
            "agent_0": {"name": "tool_generator", "policy_name": "tools"},
            "agent_1": {"name": "reasoning_generator", "policy_name": "reasons"},
        },
    },
    "multi_agent_interaction": {
        "turn_order": ["tool_generator", "reasoning_generator"],
        "num_interacting_agents": 2,
    },
    "training": {"total_training_steps": 20, "train_batch_size": 4, "train_sample_num": 8},
    "models": {"model_0": {"name": "tools"}, "model_1": {"name": "reasons"}},
}


def with_changes(changes: dict[str, Any]) -> dict[str, Any]:
    """The team with other values, by dotted key."""
    return merge(copy.deepcopy(TEAM), unflatten(copy.deepcopy(changes)))


def job(**changes: Any) -> Job:
    return job_with(changes)


def job_with(changes: dict[str, Any]) -> Job:
    return Job.model_validate(team_job_data(with_changes(changes))[0])


def faults(changes: dict[str, Any]) -> dict[str, str]:
    """Messages by key."""
    with pytest.raises(ConfigError) as caught:
        team_job_data(with_changes(changes))
    return {fault.key: fault.message for fault in caught.value.faults}


def value_at(made: Job, key: str) -> Any:
    value: Any = made
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value


# --- every key has an effect -----------------------------------------------------------------

# documented key: (value, run-config key, its value); all other keys as in TEAM
ACTING = {
    "specialization": ("full", "model.specialization", "full"),
    "lora_rank": (4, "model.lora_rank", 4),
    "lora_alpha": (8, "model.lora_alpha", 8.0),
    "resource.n_gpus_per_node": (0, "device", "cpu"),
    "resource.trust_remote_code": (True, "model.trust_remote_code", True),
    "env.name": ("code_env", "environment.text.task", "code"),
    "env.dataset": ("some/problems.jsonl", "environment.text.math.file", "some/problems.jsonl"),
    "env.max_turns": (3, "environment.text.max_turns", 3),
    "base_models.policy_0.path": ("models/a", "model.path", "models/a"),
    "base_models.policy_1.path": ("models/b", "model.by_policy.reasons.path", "models/b"),
    "multi_agent_interaction.turn_order": (
        ["reasoning_generator", "tool_generator"],
        "environment.text.turn_order",
        ["reasoner", "tool"],
    ),
    "training.device": ("cpu", "device", "cpu"),
    "training.total_training_steps": (7, "num_iterations", 7),
    "training.project_name": ("mine", "project", "mine"),
    "training.experiment_name": ("first", "agent.short_name", "first_v1"),
    "training.logger": (["console", "wandb"], "logger.backends", ["wandb"]),
    "training.train_batch_size": (5, "problems_per_batch", 5),
    "training.train_sample_num": (6, "grpo.num_generations", 6),
    "training.validate_sample_num": (3, "evaluation.passes", 3),
    "training.sample_temperature": (0.7, "generation.temperature", 0.7),
    "training.val_freq": (5, "evaluation.interval", 5),
    "training.resample_freq": (3, "environment.text.resample_freq", 3),
    "training.epoch_size": (10, "environment.text.epoch_size", 10),
    "training.max_prompt_length": (100, "generation.max_prompt_length", 100),
    "training.max_response_length": (20, "generation.max_response_length", 20),
    "training.num_epochs": (2, "training.num_epochs", 2),
    "training.max_grad_norm": (0.1, "training.max_grad_norm", 0.1),
    "training.num_threads": (2, "training.num_threads", 2),
    "training.checkpoint_interval": (3, "training.checkpoint_interval", 3),
    "training.keep_checkpoints": (4, "training.keep_checkpoints", 4),
    "models.model_0.ppo_trainer_config.filter_method": ("median", "grpo.filter_method", "median"),
    "models.model_0.ppo_trainer_config.filter_ratio": (0.25, "grpo.filter_ratio", 0.25),
    f"{ACTOR}.actor.optim.lr": (1e-3, "optimizer.groups.tools.learning_rate", 1e-3),
    f"{ACTOR}.actor.optim.weight_decay": (0.3, "optimizer.groups.tools.weight_decay", 0.3),
    f"{ACTOR}.actor.clip_ratio": (0.1, "loss.groups.tools.clip_epsilon", 0.1),
    "mode": ("full", "mode", "full"),
    "seed": (3, "seed", 3),
    "tags": (["new"], "tags", ["new"]),
    "optimizer_type": ("sgd", "optimizer_type", "sgd"),
    "environment.text.math.max_operand": (9, "environment.text.math.max_operand", 9),
    "evaluation.episodes": (7, "evaluation.episodes", 7),
    "grpo.alpha": (0.5, "grpo.alpha", 0.5),
    "logger.offline": (False, "logger.offline", False),
    "loss.clip_epsilon": (0.3, "loss.clip_epsilon", 0.3),
    "model.tiny.hidden_size": (64, "model.tiny.hidden_size", 64),
    "optimizer.learning_rate": (1e-2, "agent.learning_rate", 1e-2),
    "replay_buffer.minibatch_size": (32, "agent.batch_size", 32),
    "scheduler.decay": ("cosine", "agent.scheduler.decay", "cosine"),
}
# Keys that repeat others, refer to others, or have only one supported value.
CHECKED = (
    *("resource.nnodes", "env.benchmark", "env.resolve", "env.multi_modal", "env.batched_init"),
    *("base_models.policy_0.name", "agent_policy_configs.num_agents"),
    *("agent_policy_configs.policy_list", f"{AGENT_1}.name", f"{AGENT_1}.policy_name"),
    *(f"{AGENT_1}.role", "multi_agent_interaction.num_interacting_agents"),
    *("training.model_checkpoints_dir", "training.ray_wait_register_center_timeout"),
    *("training.lora_rank", "training.lora_alpha", "models.model_0.path", "models.model_0.name"),
    *(f"{ACTOR}.model.path", f"{ACTOR}.rollout.temperature", f"{ACTOR}.rollout.prompt_length"),
    *(f"{ACTOR}.rollout.response_length", f"{ACTOR}.rollout.tensor_model_parallel_size"),
    *(f"{ACTOR}.trainer.n_gpus_per_node", f"{ACTOR}.trainer.n_training_gpus_per_node"),
    "models.model_0.ppo_trainer_config.data.max_prompt_length",
    "models.model_0.ppo_trainer_config.data.max_response_length",
)


@pytest.mark.parametrize("key", ACTING)
def test_every_documented_key_has_an_effect(key):
    value, run_key, expected = ACTING[key]
    changes = {key: value}
    if key == "env.name":  # the agents of another environment have other names
        changes |= {
            "agent_policy_configs.agent_configs.agent_0.role": "tester",
            f"{AGENT_1}.role": "coder",
        }
    made, before = job_with(changes), job_with({})
    assert value_at(made, run_key) == expected
    group = run_key.rpartition(".groups.")[0]
    assert group or run_key.startswith("model.by_policy") or value_at(before, run_key) != expected


def test_every_documented_key_is_tested():
    schema = TeamSections.model_json_schema()

    def keys(node: dict[str, Any], prefix: str):
        while "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
        for name, child in node.get("properties", {}).items():
            yield from keys(child, f"{prefix}{name}.")
        if isinstance(node.get("additionalProperties"), dict):
            yield from keys(node["additionalProperties"], f"{prefix}*.")
        elif "properties" not in node:
            yield prefix[:-1]

    def generic(key: str) -> str:
        parts = key.split(".")
        return ".".join("*" if part.rpartition("_")[2].isdigit() else part for part in parts)

    tested = {generic(key) for key in (*ACTING, *CHECKED)}
    free = {key.partition(".")[0] for key in ACTING} - {"training"}
    missing = {key for key in keys(schema, "") if key not in tested}
    assert {key for key in missing if key.partition(".")[0] not in free | {"generation"}} == set()


def test_sizes_follow_from_batch_samples_and_turns():
    made = job()
    assert made.frames_per_problem == 8 * 2
    assert made.collector.frames_per_batch == 4 * 8 * 2
    assert (made.problems_per_batch, made.num_iterations) == (4, 20)
    assert made.policy_names == ("tools", "reasons")
    assert made.agent.algorithm == "AT-GRPO"
    assert made.agent.n_steps == made.collector.frames_per_batch


def test_a_value_shared_by_all_models_is_set_once():
    rates = {
        f"models.model_{n}.ppo_trainer_config.actor_rollout_ref.actor.optim.lr": 1e-3
        for n in (0, 1)
    }
    made = job_with(rates)
    assert made.optimizer.learning_rate == 1e-3
    assert made.optimizer.groups == {}


def test_numbers_that_yaml_reads_as_text_are_numbers():
    assert (
        job_with({f"{ACTOR}.actor.optim.lr": "1e-05"}).optimizer.groups["tools"].learning_rate
        == 1e-5
    )


def test_only_tiny_models_are_warmed_up():
    steps = {"environment.text.warm_up_steps": 600}
    assert job_with(steps).model.warm_up.steps == 600
    real = {"base_models.policy_0.path": "a/b", "base_models.policy_1.path": "a/b"}
    made = job_with({**steps, **real})
    assert made.model.warm_up.steps == 0
    assert run_digest(made.run_config) == run_digest(job_with(real).run_config)


# --- the levels, and who shares a model ------------------------------------------------------


def test_agents_of_one_model_share_a_policy():
    shared = {f"agent_policy_configs.agent_configs.agent_{n}.policy_name": "tools" for n in (0, 1)}
    data = with_changes(shared)
    del data["base_models"]["policy_1"], data["models"]["model_1"]
    made = Job.model_validate(team_job_data(data)[0])
    assert made.policy_names == ("tools",)
    assert made.agent.llm.policies == "shared"


def test_the_same_name_twice_is_one_model():
    names = {"base_models.policy_1.name": "tools", f"{AGENT_1}.policy_name": "tools"}
    names["models.model_1.name"] = "tools"
    assert job_with(names).policy_names == ("tools",)


def test_one_agent_alone_is_trained_with_grpo():
    data = with_changes({"env.max_turns": 1})
    data["base_models"] = {"policy_0": {"path": "tiny", "name": "single"}}
    data["agent_policy_configs"] = {
        "num_agents": 1,
        "policy_list": ["single_agent"],
        "agent_configs": {"agent_0": {"name": "single_agent", "policy_name": "single"}},
    }
    data["multi_agent_interaction"] = {"turn_order": ["single_agent"], "num_interacting_agents": 1}
    data["models"] = {}
    made = Job.model_validate(team_job_data(data)[0])
    assert (made.agent.algorithm, made.loss_type) == ("GRPO", "grpo")
    assert made.turn_order == ("reasoner",)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_registered_names_are_roles_of_the_tasks_of_their_environment(environment):
    for task in ENVIRONMENTS[environment]:
        assert set(AGENTS[task].values()) == set(TASK_ROLES[task])
        assert AGENTS[task]["single_agent"] == TASK_ROLES[task][-1]
    assert {task for tasks in ENVIRONMENTS.values() for task in tasks} == set(TASK_ROLES)


def test_documented_names_of_agents_are_registered():
    assert {"reasoning_generator", "tool_generator"} <= set(AGENTS["math"])
    assert {"code_generator", "test_generator"} <= set(AGENTS["code"])


@pytest.mark.parametrize("puzzle", ENVIRONMENTS["stateful_env"])
def test_the_benchmark_of_stateful_env_is_the_puzzle(puzzle):
    agents = {
        f"agent_policy_configs.agent_configs.agent_{n}.role": r
        for n, r in enumerate(TASK_ROLES[puzzle])
    }
    made = job_with({"env.name": "stateful_env", "env.benchmark": puzzle, **agents})
    assert made.environment.text.task == puzzle


# --- scenarios -------------------------------------------------------------------------------


def test_scenario_another_base_model():
    changes = {"base_models.policy_0.path": "Qwen/Qwen3-0.6B", "base_models.policy_0.name": "qwen"}
    changes |= {"agent_policy_configs.agent_configs.agent_0.policy_name": "qwen"}
    made = job_with({**changes, "models.model_0.name": "qwen"})
    assert made.model.path == "Qwen/Qwen3-0.6B"
    assert made.model.by_policy["reasons"].path == "tiny"
    assert made.policy_of("tool") == "qwen"


THIRD = {
    "agent_policy_configs.num_agents": 3,
    "agent_policy_configs.policy_list": ["tool_generator", "reasoning_generator", "critic"],
    "agent_policy_configs.agent_configs.agent_2": {"name": "critic", "policy_name": "judges"},
    "multi_agent_interaction.turn_order": ["tool_generator", "reasoning_generator", "critic"],
    "multi_agent_interaction.num_interacting_agents": 3,
    "base_models.policy_2": {"path": "tiny", "name": "judges"},
}


def test_scenario_a_third_agent_has_its_own_role():
    made = job_with({**THIRD, "environment.text.math.max_operand": 9})
    assert made.turn_order == ("tool_generator", "reasoning_generator", "critic")
    assert made.policy_names == ("tools", "reasons", "judges")
    assert made.environment.text.cast["critic"] == "reasoner"
    assert made.environment.text.math.max_operand == 9


def test_scenario_a_third_agent_with_the_model_of_another():
    changes = {"agent_policy_configs.agent_configs.agent_2.policy_name": "reasons"}
    data = with_changes({**THIRD, **changes})
    del data["base_models"]["policy_2"]
    made = Job.model_validate(team_job_data(data)[0])
    assert made.turn_order == ("tool", "reasoner", "reasoner")
    assert made.policy_names == ("tools", "reasons")


def test_scenario_one_gpu_fewer():
    gpus = "resource.n_gpus_per_node"
    trainer = {
        f"{ACTOR}.trainer.{key}": 1 for key in ("n_gpus_per_node", "n_training_gpus_per_node")
    }
    one = {gpus: 1, f"{ACTOR}.rollout.tensor_model_parallel_size": 1, **trainer}
    assert job_with(one).device == "cuda"
    none = {key: 0 for key in one}
    assert job_with(none).device == "cpu"
    messages = faults({**one, gpus: 0})
    assert set(messages) == set(trainer)
    assert all("must be 0, like resource.n_gpus_per_node" in text for text in messages.values())


def test_scenario_lora_on():
    full, lora = job(specialization="full"), job_with({"lora_rank": 8, "lora_alpha": 16})
    assert (full.model.specialization, lora.model.specialization) == ("full", "lora")
    assert (lora.model.lora_rank, lora.model.lora_alpha) == (8, 16)


def test_scenario_iterative_refinement():
    data = with_changes({"env.name": "code_env"})
    agents = data["agent_policy_configs"]
    agents["policy_list"] = ["generator", "critic"]
    for key, name in zip(("agent_0", "agent_1"), ("generator", "critic"), strict=True):
        agents["agent_configs"][key]["name"] = name
    data["multi_agent_interaction"]["turn_order"] = ["generator", "critic", "generator", "critic"]
    made = Job.model_validate(team_job_data(data)[0])
    assert made.turn_order == ("coder", "tester", "coder", "tester")
    assert made.policy_names == ("tools", "reasons")


def test_scenario_tool_use_order():
    order = ["reasoning_generator", "tool_generator", "reasoning_generator"]
    made = job_with({"multi_agent_interaction.turn_order": order})
    assert made.turn_order == ("reasoner", "tool", "reasoner")


def test_a_custom_task_has_its_own_roles():
    data = with_changes({"env.name": "my_tasks:make", "environment.kwargs": {"size": 3}})
    made = Job.model_validate(team_job_data(data)[0])
    assert made.environment.text.task == "my_tasks:make"
    assert made.environment.kwargs == {"size": 3}
    assert made.turn_order == ("tool_generator", "reasoning_generator")


def test_agents_of_a_custom_task_have_one_role_each():
    roles = {f"agent_policy_configs.agent_configs.agent_{number}.role": "cook" for number in (0, 1)}
    messages = faults({"env.name": "my_tasks:make", **roles})
    assert "give my_tasks:make one role each" in messages[f"{AGENT_1}.role"]


def test_a_third_agent_works_on_the_problems_of_a_file_too(tmp_path: Path):
    file = tmp_path / "problems.jsonl"
    digests = set()
    for question in ("1+1", "1+2"):
        file.write_text(json.dumps({"question": question, "answer": "2"}))
        made = job_with({**THIRD, "env.dataset": str(file)})
        assert made.environment.text.math.file == str(file)
        digests.add(run_digest(made.run_config))
    assert len(digests) == 2


# --- what is refused, and why ----------------------------------------------------------------

GPUS = f"{ACTOR}.rollout.tensor_model_parallel_size"
REFUSED: dict[str, tuple[Any, str]] = {
    "resource.nnodes": (2, "must be 1: a run uses one machine"),
    "resource.n_gpus_per_node": (8, "must be 0, 1 or null: a run uses one device"),
    GPUS: (2, "cannot split a model across GPUs"),
    "env.name": (
        "my_env",
        "is not registered. Did you mean math_env? Available: code_env, math_env",
    ),
    "env.dataset": ("polaris", "must be synthetic, or a JSON Lines file"),
    "env.benchmark": ("AIME24", "must be null or synthetic"),
    "env.resolve": (True, "must be false: no task here solves"),
    "env.multi_modal": (True, "must be false: prompts are text"),
    "env.batched_init": (False, "must be true: all problems of a step are created together"),
    "base_models.policy_0.path": ("your base model path", "is not a path; set a folder"),
    "base_models.policy_1.name": ("nobodys", "is not used by any agent"),
    f"{AGENT_1}.name": ("reasonning_generator", "Did you mean reasoning_generator? Available: "),
    f"{AGENT_1}.policy_name": ("tool", "is not a name in base_models. Did you mean tools?"),
    f"{AGENT_1}.role": ("coder", "is not a role of math. Available: tool, reasoner"),
    "agent_policy_configs.num_agents": (3, "must be 2, the number of agent_configs"),
    "agent_policy_configs.policy_list": (["a"], "must list the agents: tool_generator, reasoning"),
    "multi_agent_interaction.num_interacting_agents": (
        3,
        "must be 2, the number of distinct agents",
    ),
    "training.device": ("tpu", "must be 'auto', 'cpu' or 'cuda'"),
    "training.logger": (["wandb"], "must contain console"),
    "training.model_checkpoints_dir": ("elsewhere", "must be checkpoints, a subfolder"),
    "training.ray_wait_register_center_timeout": (300, "Ray is not used here"),
    "training.train_sample_num": (1, ">= 2"),
    "training.sample_temperature": (0, "> 0"),
    "training.val_freq": (20, "must be below training.total_training_steps (20)"),
    "training.total_training_steps": (0, "> 0"),
    "training.lora_rank": (8, "must be 16, like lora_rank: write ${lora_rank}"),
    "training.lora_alpha": (8, "must be 32.0, like lora_alpha"),
    "models.model_0.path": ("elsewhere", "must be tiny, the path of tools in base_models"),
    "models.model_0.name": ("tool", "is not in base_models. Did you mean tools?"),
    f"{ACTOR}.model.path": ("elsewhere", "the path of tools in base_models"),
    f"{ACTOR}.rollout.temperature": (2.0, "must be 1.0, like training.sample_temperature"),
    f"{ACTOR}.rollout.prompt_length": (8, "must be 256, like training.max_prompt_length"),
    f"{ACTOR}.rollout.response_length": (8, "must be 32, like training.max_response_length"),
    f"{ACTOR}.trainer.n_gpus_per_node": (1, "must be null, like resource.n_gpus_per_node"),
    f"{ACTOR}.trainer.n_training_gpus_per_node": (1, "like resource.n_gpus_per_node"),
    "models.model_0.ppo_trainer_config.filter_method": ("max", "'none', 'mean' or 'median'"),
    "models.model_0.ppo_trainer_config.filter_ratio": (0, "> 0"),
    "models.model_0.ppo_trainer_config.data.max_prompt_length": (8, "training.max_prompt_length"),
    "models.model_0.ppo_trainer_config.data.max_response_length": (
        *(8,),
        "training.max_response_length",
    ),
    "specialization": ("adapter", "'full', 'lora', 'prompt' or 'none'"),
    "lora_rank": (0, "> 0"),
    "lora_alpha": (-1, "> 0"),
    "unknown": (1, "unknown key"),
    "training.train_batch_sise": (1, "unknown key. Did you mean training.train_batch_size?"),
    "grpo.num_generations": (4, "is set by training.train_sample_num in a team config"),
    "generation.temperature": (2, "is set by training.sample_temperature in a team config"),
    "model.roles": ({"tool": "x"}, "is set by agent_policy_configs.agent_configs in a team config"),
    "replay_buffer.minibatch_size": (7, "must divide the 64 responses of a step"),
}


@pytest.mark.parametrize("key", REFUSED)
def test_unsupported_values_are_refused_under_their_key_with_the_reason(key):
    value, reason = REFUSED[key]
    messages = faults({key: value})
    found = [text for each, text in messages.items() if each == key or each.startswith(f"{key}.")]
    assert found, messages
    assert reason in found[0]


def test_every_key_that_is_only_checked_is_refused_if_wrong():
    assert {key for key in CHECKED if key not in REFUSED} == {"base_models.policy_0.name"}


def test_the_filter_is_one_for_all_models():
    changes = {f"models.model_{n}.ppo_trainer_config.filter_ratio": 0.1 * (n + 1) for n in (0, 1)}
    assert "must be 0.1, as in models.model_0" in str(faults(changes).values())


def test_the_device_agrees_with_the_gpus():
    messages = faults({"training.device": "cuda", "resource.n_gpus_per_node": 0})
    assert "(0); set training.device to cpu or auto" in messages["training.device"]


def test_a_name_has_one_path():
    names = {"base_models.policy_1.name": "tools", f"{AGENT_1}.policy_name": "tools"}
    messages = faults(
        {**names, "models.model_1.name": "tools", "base_models.policy_1.path": "other"}
    )
    assert (
        "must be tiny, the path of the other model named tools"
        in messages["base_models.policy_1.path"]
    )


def test_the_turn_order_contains_all_agents_and_no_others():
    order = "multi_agent_interaction.turn_order"
    with pytest.raises(ConfigError) as caught:
        team_job_data(with_changes({order: ["tool_generator", "critic"]}))
    messages = str(caught.value)
    assert "critic is not an agent in agent_configs" in messages
    assert "must contain every agent in agent_configs; missing: reasoning_generator" in messages


def test_all_faults_are_reported_at_once():
    messages = faults({"resource.nnodes": 2, "env.dataset": "apps", "training.val_freq": 99})
    assert set(messages) == {"resource.nnodes", "env.dataset", "training.val_freq"}


def test_the_puzzle_must_be_named():
    messages = faults({"env.name": "stateful_env"})
    assert "must be one of plan_path, sokoban, sudoku" in messages["env.benchmark"]


def test_files_of_problems_are_for_math(tmp_path: Path):
    file = tmp_path / "problems.jsonl"
    file.write_text(json.dumps({"question": "1+1", "answer": "2"}))
    made = job_with({"env.dataset": str(file), "env.benchmark": str(file)})
    assert (made.environment.text.math.source, made.environment.text.math.file) == (
        "file",
        str(file),
    )
    roles = {
        "agent_policy_configs.agent_configs.agent_0.role": "tester",
        f"{AGENT_1}.role": "coder",
    }
    messages = faults({"env.name": "code_env", "env.dataset": str(file), **roles})
    assert messages["env.dataset"].startswith("must be synthetic. Synthetic problems")
