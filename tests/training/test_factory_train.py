"""`python -m heteromark.training.factory_train`: the documented commands work as written."""

from __future__ import annotations

import csv
import logging
import re
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from hydra.types import RunMode
from projects import ROOT, Project, copy_project, shorten_configs

from heteromark.commands.launch import train_run
from heteromark.commands.multirun import PlannedJob, plan_jobs
from heteromark.commands.request import TrainRequest, resolve_request
from heteromark.config.compose.hydra_loader import open_hydra
from heteromark.config.errors import ConfigError
from heteromark.runs.record import RunRecord, Status
from heteromark.runs.store import RunStore
from heteromark.training.factory_train import main

ENTRY = "python -m heteromark.training.factory_train"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose configs have few frames, so that documented commands run unchanged."""
    made = copy_project(tmp_path_factory.mktemp("project"))
    shorten_configs(made)
    return made


@pytest.fixture(autouse=True)
def _in_project(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Change to the project's folder, and restore the import path and the log afterwards."""
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    root = logging.getLogger()
    level, handlers = root.level, root.handlers.copy()
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


def run(command: str) -> int:
    """Run a documented command line in this process; return its exit status."""
    words = shlex.split(command.replace("\\\n", " "))
    assert " ".join(words[:3]) == ENTRY
    return main(words[3:])


def output_folder(text: str) -> Path:
    """Return the folder that a finished run prints."""
    return Path(re.search(r"^files: (.+)$", text, re.MULTILINE)[1])


def trained(capsys: pytest.CaptureFixture, command: str) -> tuple[RunRecord, dict]:
    """Run a command; return the record and the resolved config in its output folder."""
    assert run(command) == 0
    folder = output_folder(capsys.readouterr().out)
    return RunRecord.read(folder), yaml.safe_load((folder / "config.yaml").read_text())


# --- C1, C2: the named configs and overrides -------------------------------------------------


@pytest.mark.slow
def test_the_command_without_arguments_trains_and_writes_its_files(project: Project):
    entry = (sys.executable, "-m", "heteromark.training.factory_train")
    result = project.run(*entry, own_process=True)
    assert "completed" in result.stdout
    folder = project.folder / output_folder(result.stdout)
    assert re.fullmatch(
        r"outputs/heteromark/\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d(_\d+)?",
        str(folder.relative_to(project.folder)),
    )
    assert {path.name for path in folder.iterdir()} >= {
        *("run.json", "config.yaml", "metrics.csv", "evaluation.json", "checkpoint.pt"),
        *("train.log", ".hydra"),
    }


TRAINING = {
    f"{ENTRY} --config-name=happo_config": {"loss_type": "happo"},
    f"{ENTRY} --config-name=fast_debug_config": {"device": "cpu"},
    f"{ENTRY} loss_type=happo": {"agent.algorithm": "HAPPO"},
    f"{ENTRY} training.num_epochs=10": {"training.num_epochs": 10},
    f"""{ENTRY} \\
    loss_type=happo \\
    training.num_epochs=8 \\
    policy.hidden_sizes=[128,128,64] \\
    collector.frames_per_batch=256""": {
        "loss_type": "happo",
        "training.num_epochs": 8,
        "policy.hidden_sizes": [128, 128, 64],
        "collector.frames_per_batch": 256,
    },
    f"""{ENTRY} \\
    --config-name=happo_config \\
    training.num_epochs=12 \\
    optimizer.learning_rate=5e-4""": {
        "agent.algorithm": "HAPPO",
        "training.num_epochs": 12,
        "optimizer.learning_rate": 5e-4,
    },
    f"{ENTRY} --config-name=happo_config environment.num_parallel_envs=8": {
        "environment.num_parallel_envs": 8
    },
    f"{ENTRY} policy=large": {"policy.hidden_sizes": [256, 256, 128, 64]},
    f"{ENTRY} environment=speaker_listener": {"environment.name": "speaker_listener"},
    f"{ENTRY} policy_type=gru optimizer_type=rmsprop collector_type=sync buffer_type=memmap": {
        "agent.network.policy": "GruPolicy",
        "optimizer_type": "rmsprop",
        "buffer_type": "memmap",
    },
    f"{ENTRY} +experiment=quick_test": {"evaluation.episodes": 2},
}


@pytest.mark.mostly_slow(4)
@pytest.mark.parametrize("command", TRAINING)
def test_a_documented_command_trains_what_it_says(command, capsys):
    record, config = trained(capsys, command)
    assert record.status is Status.COMPLETED
    for key, value in TRAINING[command].items():
        found = config
        for part in key.split("."):
            found = found[part]
        assert found == value, key


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize(
    "arguments",
    [
        "optimizer.learning_rate=1e-3 device=cuda",
        "--config-name=happo_config device=cuda environment.num_parallel_envs=8",
    ],
)
def test_cuda_without_a_gpu_is_reported(arguments):
    with pytest.raises(ConfigError, match="device is cuda, but torch sees no CUDA GPU"):
        run(f"{ENTRY} {arguments}")


def test_an_override_of_an_unknown_group_is_a_fault_of_the_config():
    message = r"command line: policy\.groups\.medic = .* Its groups are marauder, marine, medivac"
    with pytest.raises(ConfigError, match=message):
        run(f"{ENTRY} {SMALL} policy.groups.medic.activation=relu project=medic")
    assert not Path("outputs/medic").exists()


@pytest.mark.slow
def test_the_high_performance_config_trains(capsys):
    record, _ = trained(capsys, f"{ENTRY} --config-name=high_performance_config")
    assert record.status is Status.COMPLETED
    assert record.summary.frames == 1024


# --- one code path with `heteromark train` ---------------------------------------------------


def test_a_finished_run_is_found_again_also_by_heteromark_train(capsys):
    command = f"{ENTRY} agent=ppo_agent_sweep_lr_high seed=2"
    record, _ = trained(capsys, command)
    assert run(command) == 0
    assert f"{record.digest} (found in the run store)" in capsys.readouterr().out
    request = TrainRequest(
        Path("config/agents/ppo_agent_sweep_lr_high.yaml"),
        seed=2,
        total_frames=256,
        assignments=("smoke.eval_episodes=2",),
    )
    again, from_store = train_run(resolve_request(request)[0])
    assert from_store
    assert again == record
    assert record.agent.short_name == "ppo_agent_lr_high"
    assert record.agent.config_path == "config/dummy_config.yaml"


def test_printing_configs_and_store_hits_import_no_torch(project: Project, capsys):
    command = f"{ENTRY} --config-name=fast_debug_config seed=3"
    assert run(command) == 0
    capsys.readouterr()
    code = (
        "import sys\n"
        "from heteromark.training.factory_train import main\n"
        "for words in (['--cfg', 'job', '--resolve'], ['--help'], ['--info', 'config-groups'],\n"
        f"              {shlex.split(command)[3:]!r}):\n"
        "    assert main(words) == 0\n"
        "heavy = {'torch', 'torchrl', 'tensordict', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    assert "found in the run store" in project.run(sys.executable, "-c", code).stdout


@pytest.mark.slow
def test_a_terminated_run_resumes_with_the_same_command(project: Project, own_store):
    words = (
        *(sys.executable, "-m", "heteromark.training.factory_train", "seed=4"),
        *("training.total_frames=5120", "training.checkpoint_interval=2"),
    )
    process = project.start(*words)
    deadline = time.monotonic() + 60
    while not list(own_store.glob("runs/*/checkpoints/*.pt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    (stored,) = RunStore(own_store).runs()
    assert stored.status is Status.INTERRUPTED
    result = project.run(*words)
    assert "resuming after iteration" in result.stderr
    assert RunStore(own_store).runs()[0].record.attempts == 2


# --- C7: inspecting before running -----------------------------------------------------------


def test_the_config_is_printed_with_and_without_references(capsys):
    assert run(f"{ENTRY} --cfg job") == 0
    assert "learning_rate: ${agent.learning_rate}" in capsys.readouterr().out
    assert run(f"{ENTRY} --cfg job --resolve optimizer.learning_rate=1e-5") == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["optimizer"]["learning_rate"] == 1e-5
    assert shown["loss"]["gamma"] == shown["agent"]["gamma"] == 0.99


def test_a_printed_config_is_checked_too():
    with pytest.raises(ConfigError, match="Did you mean policy"):
        run(f"{ENTRY} --cfg job polcy.hidden_sizes=[1]")


def test_info_prints_defaults_and_groups(capsys):
    assert run(f"{ENTRY} --info defaults-tree policy=gru") == 0
    assert "      policy: gru:\n        policy/default\n" in capsys.readouterr().out
    assert run(f"{ENTRY} --info config-groups") == 0
    groups = dict(re.findall(r"^(\w+): (.+)$", capsys.readouterr().out, re.MULTILINE))
    assert groups["policy"] == "cnn, default, gru, large, mlp"
    assert "happo_agent_v1" in groups["agent"]
    assert "agents" not in groups


def test_help_lists_configs_options_and_examples(capsys):
    assert run(f"{ENTRY} --help") == 0
    text = capsys.readouterr().out
    for word in (
        *(
            "happo_config",
            "policy: cnn, default, gru, large, mlp",
            "loss_type       happo, hatrpo, haa2c, mappo",
        ),
        *("--multirun", "--dry-run", "+experiment=quick_test", "${optimizer.learning_rate}"),
    ):
        assert word in text


def test_a_dry_run_prints_the_plan_and_trains_nothing(project: Project, own_store, capsys):
    before = set(project.folder.glob("outputs/**"))
    command = (
        f"{ENTRY} training.total_frames=1000000 training.num_epochs=10 "
        "collector.frames_per_batch=512 policy.hidden_sizes=[128,128,64] --dry-run"
    )
    assert run(command) == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text)["policy"]["hidden_sizes"] == [128, 128, 64]
    # 82 observations, 11 actions
    weights = (82 * 128 + 128) + (128 * 128 + 128) + (128 * 64 + 64) + (64 * 11 + 11)
    for line in (
        "not in the run store, would be trained",
        "# group medivac: agents medivac_0; observation size 82, 11 discrete actions",
        f"# actor marauder: {weights:,} parameters",
        "# frames: 1,000,448 in 1,954 iterations of 512",
        "# updates per network: 39,080 (1,954 iterations x 10 epochs x 2 minibatches)",
    ):
        assert line in text
    assert set(project.folder.glob("outputs/**")) == before
    assert not list(own_store.glob("runs/*"))


def test_a_dry_run_finds_runs_in_the_store(capsys):
    command = f"{ENTRY} --config-name=fast_debug_config seed=5"
    record, _ = trained(capsys, command)
    assert run(f"{command} --dry-run") == 0
    assert f"# run {record.digest}: completed, found in the run store" in capsys.readouterr().out


def test_faults_give_one_message_and_status_2_and_write_nothing(project: Project, own_store):
    before = set(project.folder.glob("outputs/**"))
    result = project.run(
        *(sys.executable, "-m", "heteromark.training.factory_train"),
        *("polcy=large", "training.num_epochs=0", "optimizer.learning_rate=2"),
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: 3 errors in the configuration; nothing was run:")
    assert "Traceback" not in result.stderr
    assert set(project.folder.glob("outputs/**")) == before
    assert not list(own_store.glob("runs/*"))


# --- C8: the output folder -------------------------------------------------------------------


def test_every_run_keeps_its_overrides_and_its_composed_config(project: Project, capsys):
    command = f"{ENTRY} --config-name=fast_debug_config project=mine seed=6 tags=[a]"
    assert run(command) == 0
    folder = output_folder(capsys.readouterr().out)
    assert folder.parts[:2] == ("outputs", "mine")
    kept = {path.stem: yaml.safe_load(path.read_text()) for path in (folder / ".hydra").iterdir()}
    assert set(kept) == {"config", "hydra", "overrides", "launcher"}
    assert kept["overrides"] == ["project=mine", "seed=6", "tags=[a]"]
    assert kept["config"]["seed"] == 6
    assert kept["config"]["tags"] == ["a"]
    assert kept["hydra"]["hydra"]["job"]["config_name"] == "fast_debug_config"
    assert kept["launcher"]["launcher"]["_target_"].endswith("BasicLauncher")
    assert kept["launcher"]["run"] == RunRecord.read(folder).digest
    assert Path.cwd() == project.folder  # Hydra does not change the working directory


@pytest.mark.slow
def test_runs_that_start_in_the_same_second_get_separate_folders(capsys):
    for seed in (0, 0, 1):
        assert run(f"{ENTRY} --config-name=fast_debug_config project=busy seed={seed}"
                   " hydra.run.dir='outputs/busy/${now:%Y}'") == 0  # fmt: skip
    names = sorted(path.name for path in Path("outputs/busy").iterdir())
    assert [name[4:] for name in names] == ["", "_2", "_3"]


def test_an_explicit_folder_name_is_used_unchanged(capsys):
    command = f"{ENTRY} --config-name=fast_debug_config hydra.run.dir=here"
    assert run(command) == run(command) == 0
    assert (Path("here") / "run.json").is_file()
    assert not Path("here_2").exists()
    with pytest.raises(ConfigError, match=r"params\.yaml is a file, not a folder"):
        run(f"{ENTRY} hydra.run.dir=params.yaml/x")


# --- C6: multirun ----------------------------------------------------------------------------

SMALL = "--config-name=fast_debug_config collector.frames_per_batch=64 training.total_frames=64"


def table(project: str) -> list[dict]:
    (path,) = Path(f"outputs/{project}/multirun").glob("*/*/results.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_value_of_a_list_is_a_job_and_a_row_of_the_table(capsys):
    command = f"{ENTRY} --multirun {SMALL} optimizer.learning_rate=1e-6,3e-6,1e-5 project=list"
    assert run(command) == 0
    rows = table("list")
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == (
        ["#", "overrides", "status", "final", "return", "evaluation", "return", "frames/s", "run"]
    )
    for number, (row, rate) in enumerate(zip(rows, ("1e-06", "3e-06", "1e-05"), strict=True)):
        assert row["number"] == str(number)
        assert f"optimizer.learning_rate={rate}" in row["overrides"]
        record = RunRecord.read(Path(row["folder"]))
        assert row["status"] == record.status == "completed"
        assert row["digest"] == record.digest
        assert float(row["evaluation_return"]) == record.summary.evaluation_return
        assert shown[number + 1].endswith(record.digest)
        assert (Path(row["folder"]) / ".hydra/overrides.yaml").is_file()
    assert len({row["digest"] for row in rows}) == 3
    assert (Path(rows[0]["folder"]).parent / "multirun.yaml").is_file()


def test_lists_are_combined_and_a_job_equals_the_same_single_run(capsys, monkeypatch, tmp_path):
    command = f"{ENTRY} -m {SMALL} loss_type=happo,mappo seed=0,1 project=product"
    assert run(command) == 0
    rows = table("product")
    chosen = [re.findall(r"(?:loss_type|seed)=(\w+)", row["overrides"]) for row in rows]
    assert chosen == [["happo", "0"], ["happo", "1"], ["mappo", "0"], ["mappo", "1"]]
    monkeypatch.setenv("HETEROMARK_STORE", str(tmp_path / "other"))
    capsys.readouterr()
    record, _ = trained(capsys, f"{ENTRY} {SMALL} loss_type=mappo seed=1")
    assert record.digest == rows[3]["digest"]
    assert record.summary.evaluation_return == float(rows[3]["evaluation_return"])


def planned(*overrides: str) -> list[PlannedJob]:
    """Return the jobs of a multirun of fast_debug_config."""
    loader = open_hydra(Path("config")).config_loader
    master = loader.load_configuration("fast_debug_config", list(overrides), RunMode.MULTIRUN)
    return plan_jobs(master, loader)


@pytest.mark.slow
def test_each_value_of_a_range_is_a_job():
    jobs = planned(
        "training.total_frames=range(100,1000,100)",
        "evaluation.episodes=${training.total_frames}",  # of its own job
    )
    frames = list(range(100, 1000, 100))
    assert [job.config.training.total_frames for job in jobs] == frames
    assert [job.config.evaluation.episodes for job in jobs] == frames


def test_a_sweep_can_be_defined_in_a_file_and_run_dry(project: Project, own_store, capsys):
    project.write(
        "config/my_sweep.yaml",
        "defaults: [fast_debug_config, _self_]\n"
        "hydra: {mode: MULTIRUN, sweeper: {params: {seed: '0,1'}}}\n",
    )
    assert run(f"{ENTRY} --config-name=my_sweep --dry-run") == 0
    text = capsys.readouterr().out
    assert "job #0: seed=0\n" in text
    assert "job #1: seed=1\n" in text
    assert text.count("not in the run store, would be trained") == 2
    assert not list(own_store.glob("runs/*"))


def test_all_jobs_are_checked_before_the_first_one_starts(own_store):
    with pytest.raises(ConfigError) as caught:
        run(f"{ENTRY} -m {SMALL} project=never optimizer.learning_rate=1e-3,-1,-2 seed=0,1 polcy=1")
    message = str(caught.value)
    assert message.startswith("3 errors")
    assert "polcy = 1: unknown key. Did you mean policy?\n" in message  # in all jobs: reported once
    assert "optimizer.learning_rate = -1: must be greater than 0" in message
    assert "[job #2, #3 of 6]" in message
    assert "[job #4, #5 of 6]" in message
    assert not list(own_store.glob("runs/*"))
    assert not Path("outputs/never").exists()


def test_a_missing_module_is_a_fault_of_its_job():
    with pytest.raises(ConfigError) as caught:
        planned(
            "environment=simple_spread",
            "environment.task=mpe2.simple_spread_v3:parallel_env,mpe3.spread:parallel_env",
        )
    message = str(caught.value)
    assert "command line: environment.task = 'mpe3.spread:parallel_env': module mpe3" in message
    assert "[job #1 of 2]" in message


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_misfit_with_machine_or_environment_is_a_fault_of_its_job(own_store):
    with pytest.raises(ConfigError) as caught:
        planned(
            "device=cpu,cuda",
            "loss.groups={medivac:{entropy_coef:0.02}},{medivc:{entropy_coef:0.02}}",
            "evaluation.opponent=null,heuristic",
        )
    message = str(caught.value)
    assert message.startswith("3 errors")
    assert "command line: device: device is cuda, but torch sees no CUDA GPU" in message
    assert "[job #4, #5, #6, #7 of 8]" in message
    assert "command line: loss.groups.medivc = {'entropy_coef': 0.02}: environment" in message
    assert "Did you mean medivac?" in message
    assert "[job #2, #3, #6, #7 of 8]" in message
    assert "evaluation.opponent is heuristic, but in environment 'skirmish' a scr" in message
    assert not list(own_store.glob("runs/*"))


def test_an_override_may_have_no_effect_on_some_of_the_jobs():
    jobs = planned("agent.happo.agent_order=fixed", "loss_type=ppo,happo")
    assert [job.config.loss.agent_order for job in jobs] == ["fixed", "fixed"]
    with pytest.raises(ConfigError, match="has no effect"):
        planned("agent.happo.agent_order=fixed", "loss_type=ppo,mappo")


def test_a_failing_job_does_not_stop_the_others(capsys):
    battle = "environment=speaker_listener environment.task=toy_environments:battle"
    kwargs = "+environment.kwargs.nan_at=12,null"
    assert run(f"{ENTRY} -m {SMALL} project=broken {battle} {kwargs}") == 1
    failed, completed = table("broken")
    assert (failed["status"], completed["status"]) == ("failed", "completed")
    assert "NaN" in failed["reason"]
    assert f"#0: run {failed['digest']} failed" in capsys.readouterr().out


# --- C9: make --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("train", f"{ENTRY} seed=1"),
        ("train-quick", f"{ENTRY} +experiment=quick_test seed=1"),
        ("train-show-config", f"{ENTRY} --cfg job --resolve seed=1"),
        ("train-sweep", f"{ENTRY} --multirun seed=1"),
    ],
)
def test_make_forwards_arguments(target, expected):
    result = Project(ROOT).run("make", "--no-print-directory", "--dry-run", target, "ARGS=seed=1")
    assert result.stdout.splitlines()[-1] == expected
