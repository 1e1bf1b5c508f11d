"""The named team configs, as Hydra composes them, and what they train."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.types import RunMode

from heteromark.commands.launch import RunFailed
from heteromark.config.compose.hydra_loader import open_hydra
from heteromark.config.compose.job import Job, ineffective_overrides, job_of
from heteromark.config.errors import ConfigError
from heteromark.runs.digest import run_digest
from heteromark.runs.record import RunRecord
from heteromark.training.factory_train import main

pytestmark = pytest.mark.usefixtures("in_project")

CONFIGS = Path("config")
MATH = "--config-name=math_L2_model"
# named config: algorithm, roles, policies, specialization
NAMED = {
    "math_L0_model": ("AT-GRPO", ("tool", "reasoner"), 1, "none"),
    "math_L1_model": ("AT-GRPO", ("tool", "reasoner"), 1, "full"),
    "math_L2_model": ("AT-GRPO", ("tool", "reasoner"), 2, "lora"),
    "math_L3_model": ("AT-GRPO", ("tool", "reasoner"), 2, "full"),
    "math_single_agent": ("GRPO", ("reasoner",), 1, "full"),
    "code_L2_model": ("AT-GRPO", ("coder", "tester"), 2, "lora"),
    "search_L1_model": ("AT-GRPO", ("searcher", "reasoner"), 1, "full"),
    "stateful_L2_model": ("AT-GRPO", ("tool", "planner"), 2, "lora"),
}
# Everything small: one step on two problems, a model of a few hundred weights.
SHRUNK = (
    *("training.total_training_steps=1", "training.val_freq=0", "training.train_batch_size=2"),
    *("training.train_sample_num=2", "evaluation.episodes=2", "environment.text.warm_up_steps=0"),
    *("model.tiny.hidden_size=16", "model.tiny.num_layers=1", "model.tiny.num_heads=2"),
)


def job(name: str, *overrides: str) -> Job:
    loader = open_hydra(CONFIGS).config_loader
    tree = loader.load_configuration(name, list(overrides), RunMode.RUN)
    found = job_of(tree, loader)
    if ineffective := list(ineffective_overrides(tree, loader, found)):
        raise ConfigError(ineffective)
    return found


def faults_of(name: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        job(name, *overrides)
    return str(caught.value)


# --- composition -----------------------------------------------------------------------------


def test_every_file_in_the_task_folders_is_tested_here():
    found = {name.rpartition("/")[2] for name in open_hydra(CONFIGS).config_loader.team_configs()}
    assert found == set(NAMED)


@pytest.mark.parametrize("name", NAMED)
def test_a_named_config_matches_its_name(name):
    algorithm, roles, num_policies, specialization = NAMED[name]
    made = job(name)
    assert made.agent.algorithm == algorithm
    assert made.turn_order == roles
    assert len(made.policy_names) == num_policies
    assert made.model.specialization == specialization
    assert {made.model.path, *(each.path for each in made.model.by_policy.values())} == {"tiny"}
    assert (made.project, made.agent.agent_id) == ("heteromark", name)


def test_the_folder_may_be_named_or_left_out():
    assert run_digest(job("math/math_L1_model").run_config) == run_digest(
        job("math_L1_model").run_config
    )


def test_levels_differ_in_what_is_trained_and_nothing_else():
    first, second, third = (job(f"math_L{level}_model") for level in (1, 2, 3))
    for made in (second, third):
        assert made.environment == first.environment
        assert made.grpo == first.grpo
        assert made.generation == first.generation
        assert made.optimizer == first.optimizer
        assert made.training == first.training


def test_composing_and_validating_imports_no_torch():
    code = (
        "import sys; from pathlib import Path; from hydra.types import RunMode;"
        "from heteromark.config.compose.hydra_loader import open_hydra;"
        "from heteromark.config.compose.job import job_of;"
        "loader = open_hydra(Path('config')).config_loader;"
        "job_of(loader.load_configuration('math_L2_model', [], RunMode.RUN), loader);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nested_keys_and_lists_are_overridden_on_the_command_line():
    made = job(
        "math_L3_model",
        "base_models.policy_0.path=/path/to/new/model",
        "multi_agent_interaction.turn_order=[reasoning_generator,tool_generator]",
        "training.total_training_steps=500",
        "training.train_batch_size=8",
    )
    assert made.model.path == "/path/to/new/model"
    assert made.turn_order == ("reasoner", "tool")
    assert (made.num_iterations, made.problems_per_batch) == (500, 8)


def test_references_follow_what_they_refer_to():
    made = job("math_L2_model", "training.sample_temperature=0.7", "lora_rank=4")
    assert (made.generation.temperature, made.model.lora_rank) == (0.7, 4)


def test_values_of_the_process_environment(monkeypatch: pytest.MonkeyPatch):
    reference = "base_models.policy_0.path=${oc.env:MODEL_PATH}"
    assert "Environment variable 'MODEL_PATH' not found" in faults_of("math_L1_model", reference)
    monkeypatch.setenv("MODEL_PATH", "/secure/model")
    assert job("math_L1_model", reference).model.path == "/secure/model"


def test_an_unresolvable_reference_names_key_and_target():
    message = faults_of("math_L1_model", "base_models.policy_0.path=${base_models.policy_9.path}")
    assert "models.model_0.path: cannot be resolved" in message
    assert "'base_models.policy_9.path' not found" in message


def test_ppo_trainer_configs_go_to_the_model_that_they_are_packaged_into(project: Path):
    text = (project / "config/ppo_trainer/eval.yaml").read_text(encoding="utf-8")
    (project / "config/ppo_trainer/fast.yaml").write_text(
        text.replace("lr: 3.0e-4", "lr: 1.0e-2"), encoding="utf-8"
    )
    config = (project / "config/math/math_L2_model.yaml").read_text(encoding="utf-8")
    own = config.replace("model_1.ppo_trainer_config: eval", "model_1.ppo_trainer_config: fast")
    target = project / "config/custom/my_math_config.yaml"
    target.parent.mkdir()
    target.write_text(own, encoding="utf-8")
    made = job("my_math_config")
    assert made.optimizer.groups["tool_generator_model"].learning_rate == 3e-4
    assert made.optimizer.groups["reasoning_generator_model"].learning_rate == 1e-2
    shutil.rmtree(target.parent)


def test_sections_may_lie_in_files_of_their_own(project: Path):
    base = project / "config/base"
    base.mkdir()
    (base / "short.yaml").write_text(
        "training:\n  total_training_steps: 3\n  val_freq: 0\n", encoding="utf-8"
    )
    (base / "resource_cpu.yaml").write_text("resource:\n  n_gpus_per_node: 0\n", encoding="utf-8")
    (project / "config/math/short_experiment.yaml").write_text(
        "defaults:\n  - math_L1_model\n  - ../base/short\n  - ../base/resource_cpu\n  - _self_\n"
        "training:\n  train_batch_size: 3\n",
        encoding="utf-8",
    )
    made = job("short_experiment")
    assert (made.num_iterations, made.problems_per_batch, made.device) == (3, 3, "cpu")
    shutil.rmtree(base)
    (project / "config/math/short_experiment.yaml").unlink()


def test_sections_may_be_groups_to_choose_from(project: Path):
    folder = project / "config/env"
    folder.mkdir()
    for turns in (1, 3):
        (folder / f"turns_{turns}.yaml").write_text(
            f"env:\n  name: math_env\n  max_turns: {turns}\n", encoding="utf-8"
        )
    (project / "config/experiment_of_mine.yaml").write_text(
        "defaults:\n  - math/math_L1_model\n  - env: turns_1\n  - _self_\n", encoding="utf-8"
    )
    assert job("experiment_of_mine").environment.text.max_turns == 1
    assert job("experiment_of_mine", "env=turns_3").environment.text.max_turns == 3
    shutil.rmtree(folder)
    (project / "config/experiment_of_mine.yaml").unlink()


def test_a_name_in_two_folders_is_ambiguous(project: Path):
    copy = project / "config/code/math_L1_model.yaml"
    shutil.copy(project / "config/math/math_L1_model.yaml", copy)
    assert "code/math_L1_model, math/math_L1_model" in faults_of("math_L1_model")
    copy.unlink()


def test_task_folders_are_not_groups():
    groups = open_hydra(CONFIGS).config_loader.groups()
    assert not {"math", "code", "search", "stateful", "ppo_trainer"} & set(groups)
    assert "write --config-name=math/NAME" in faults_of("dummy_config", "math=math_L1_model")
    assert "math/math_L1_model" in faults_of("math_L9_model")


def test_output_folders_are_named_by_the_project():
    loader = open_hydra(CONFIGS).config_loader
    tree = loader.load_configuration("math_L1_model", ["training.project_name=mine"], RunMode.RUN)
    assert tree.hydra.run.dir.startswith("outputs/mine/")
    assert tree.hydra.sweep.dir.startswith("outputs/mine/multirun/")
    tree = loader.load_configuration("dummy_config", ["project=other"], RunMode.RUN)
    assert tree.hydra.run.dir.startswith("outputs/other/")


# --- faults, and keys without effect ---------------------------------------------------------


def test_faults_name_the_file_or_the_command_line_and_the_documented_key(project: Path):
    message = faults_of("math_L1_model", "training.max_prompt_length=600", "resource.nnodes=2")
    assert "command line: resource.nnodes = 2: must be 1" in message
    message = faults_of("math_L1_model", "training.max_prompt_length=600")
    assert "model.tiny.max_length = 512: must be at least 616" in message
    assert "training.max_prompt_length (600) plus training.max_response_length (16)" in message
    path = project / "config/math/broken.yaml"
    text = (project / "config/math/math_L1_model.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace("val_freq: 10", "val_freq: 100"), encoding="utf-8")
    assert "config/math/broken.yaml: training.val_freq = 100: must be below" in faults_of("broken")
    path.unlink()


def test_a_fault_that_others_refer_to_is_reported_once():
    message = faults_of("math_L1_model", "training.sample_temperature=-1")
    assert message.startswith("1 error in")
    assert "training.sample_temperature = -1" in message


def test_what_a_key_refers_to_need_not_be_changed_as_well():
    message = faults_of("math_L1_model", "resource.n_gpus_per_node=2")
    assert message.startswith("1 error in")


@pytest.mark.parametrize(
    ("overrides", "key", "reason"),
    [
        (["lora_rank=8"], "lora_rank = 8", "specialization is full; set specialization=lora"),
        (
            ["models.model_0.ppo_trainer_config.filter_ratio=0.3"],
            "filter_ratio = 0.3",
            "ppo_trainer_config.filter_method is none",
        ),
        (["resource.trust_remote_code=true"], "trust_remote_code", "is tiny, which is built"),
        (["environment.text.sudoku.holes=3"], "environment.text.sudoku", "env.name is math"),
    ],
)
def test_overrides_without_effect_are_refused(overrides, key, reason):
    message = faults_of("math_L1_model", *overrides)
    assert key in message
    assert "has no effect" in message
    assert reason in message


# --- training --------------------------------------------------------------------------------


def test_a_team_trains_and_its_files_contain_the_composed_config(capsys: pytest.CaptureFixture):
    arguments = [MATH, *SHRUNK, "hydra.run.dir=outputs/team", "training.device=cpu"]
    assert main(arguments) == 0
    folder = Path("outputs/team")
    record = RunRecord.read(folder)
    assert record.status == "completed"
    composed = (folder / ".hydra/config.yaml").read_text(encoding="utf-8")
    assert "agent_policy_configs:" in composed
    assert "roles:" in (folder / "config.yaml").read_text(encoding="utf-8")
    assert "training.train_batch_size=2" in (folder / ".hydra/overrides.yaml").read_text()
    assert main(arguments) == 0
    assert "found in the run store" in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMED)
def test_every_named_config_prints_its_plan(name, capsys: pytest.CaptureFixture):
    assert main([f"--config-name={name}", "--dry-run"]) == 0
    plan = [line for line in capsys.readouterr().out.splitlines() if line.startswith("#")]
    assert sum(line.startswith("# role ") for line in plan) == len(NAMED[name][1])


THIRD_AGENT = (
    "agent_policy_configs.num_agents=3",
    "agent_policy_configs.policy_list=[tool_generator,reasoning_generator,critic]",
    "agent_policy_configs.agent_configs.agent_2={name: critic, policy_name: critic_model}",
    "base_models.policy_2={path: tiny, name: critic_model}",
    "multi_agent_interaction.turn_order=[tool_generator,reasoning_generator,critic]",
    "multi_agent_interaction.num_interacting_agents=3",
    "environment.text.math.max_operand=9",
)


def test_running_out_of_memory_names_the_documented_keys(monkeypatch: pytest.MonkeyPatch):
    def fail(*_, **__):
        raise RunFailed("lower grpo.micro_batch_size, generation.max_response_length (16)")

    monkeypatch.setattr("heteromark.commands.hydra_job.train_run", fail)
    with pytest.raises(RunFailed) as caught:
        main([MATH, *SHRUNK])
    assert str(caught.value) == "lower grpo.micro_batch_size, training.max_response_length (16)"


def test_a_third_agent_trains_its_own_policy():
    arguments = [MATH, *SHRUNK, *THIRD_AGENT, "hydra.run.dir=outputs/third", "training.device=cpu"]
    assert main(arguments) == 0
    header = (Path("outputs/third") / "metrics.csv").read_text(encoding="utf-8").splitlines()[0]
    assert {f"reward/{name}" for name in ("tool_generator", "critic")} <= set(header.split(","))
    assert "grad_norm/critic_model" in header.split(",")


def test_a_multirun_of_teams(capsys: pytest.CaptureFixture):
    arguments = ["--multirun", MATH, *SHRUNK, "training.sample_temperature=0.8,1.0"]
    assert main([*arguments, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("role tool: policy") == 2
