"""Command-line options: faults name the option, and rounded lengths are reported."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from engine_config import make_config
from projects import Project
from typer.testing import CliRunner

from heteromark.cli import app
from heteromark.commands.launch import train_run
from heteromark.config.errors import ConfigError
from heteromark.runs.record import METRICS_FILE, Status
from heteromark.runs.store import RunStore

AGENT = "config/agents/ppo_agent_v1.yaml"
VARIANT = "config/agents/ppo_agent_sweep_lr_low.yaml"


@pytest.fixture(autouse=True)
def in_project(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.folder)


def output_of(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def faults_of(*arguments: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--total-timesteps 0", "--total-timesteps: 0: must be greater than 0"),
        ("--total-timesteps 9999999999999", "must be at most 1,000,000,000,000"),
        ("--environment nosuch", "--environment: 'nosuch': unknown environment"),
        ("--num-envs 0", "--num-envs: 0: must be greater than 0"),
        ("--num-envs 7", "--num-envs: 7: must divide collector.frames_per_batch"),
        ("--device tpu", "--device: 'tpu': must be"),
        ("--seed -1", "--seed: -1: must be greater than or equal to 0"),
        ("--episodes -3", "--episodes: -3: must be at least 1"),
        ("--episodes 3 --total-timesteps 64", "give only one of the two"),
        ("--learning-rate abc", "--learning-rate: 'abc': must be a valid number"),
        ("--n-steps 0", "--n-steps: '0': must be greater than 0"),
        ("--n-steps 30", f"{AGENT}: batch_size = 64: must be at most n_steps"),
        ("--n-steps 30", "[from params.yaml] [n_steps is from --n-steps]"),
        ("--gamma 2", "--gamma: '2': must be less than or equal to 1"),
        ("--batch-size 7", "--batch-size: 7: must divide n_steps"),
        (
            "--base-config nosuch.yaml",
            f"--base-config: 'nosuch.yaml': has no effect, because {AGENT}",
        ),
        ("--set smoke.total_frames=0", "--set: smoke.total_frames = 0: must be greater than 0"),
        ("--set ppo.clip=1", "--set: ppo.clip = 1: unknown key. Did you mean ppo.clip_range?"),
        ("--set happo.agent_order=fixed", "--set: happo.agent_order: has no effect"),
        ("--set environment.num_parallel_envs=7", "--set: environment.num_parallel_envs = 7"),
        ("--param learning_rate=abc", "--param: learning_rate = 'abc'"),
        ("--param n_steps=30", "[n_steps is from --param]"),
        # detected when the run starts
        ("--set policy.groups.medic.activation=relu", "--set: policy.groups.medic = "),
    ],
)
def test_train_faults_name_the_option(options, expected):
    (fault,) = faults_of("train", "--agent-config", AGENT, *options.split())
    assert expected in fault


def test_a_missing_base_config_is_reported_with_its_source(project: Project):
    (fault,) = faults_of("train", "--agent-config", VARIANT, "--base-config", "nosuch.yaml")
    assert "FileNotFoundError: --base-config: 'nosuch.yaml': Agent config file not found" in fault
    project.set_params(sweep={"base_config": "nosuch.yaml", "agents": VARIANT})
    (fault,) = faults_of("validate")
    assert "params.yaml: sweep.base_config = 'nosuch.yaml'" in fault


def test_a_fault_in_params_yaml_names_that_file(project: Project):
    project.set_params(num_parallel_envs=7)
    (fault, *_) = faults_of("validate")
    assert "params.yaml: num_parallel_envs = 7: must divide" in fault


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("sweep none*.yaml", "CONFIGS: 'none*.yaml': matches no agent config"),
        (f"sweep {AGENT} --environment nosuch", "--environment: 'nosuch': unknown environment"),
        (f"sweep {AGENT} --total-timesteps 0", "--total-timesteps: 0: must be greater than 0"),
        (f"sweep {AGENT} --episodes 0", "--episodes: 0: must be at least 1"),
        (f"sweep {AGENT} --set gamma=3", "--set: gamma = 3: must be less than or equal to 1"),
        (f"sweep {VARIANT} --base-config no.yaml", "--base-config: 'no.yaml': Agent config file"),
        ("validate none*.yaml", "CONFIGS: 'none*.yaml': matches no agent config"),
        ("validate --set smoke.total_frames=0", "--set: smoke.total_frames = 0"),
        (f"show-config {AGENT} --environment nosuch", "--environment: 'nosuch'"),
        (f"show-config {AGENT} --seed -1", "--seed: -1"),
    ],
)
def test_faults_of_other_commands_name_the_option(arguments, expected):
    (fault,) = faults_of(*arguments.split())
    assert expected in fault


@pytest.mark.slow
def test_configs_on_the_command_line_may_vary_what_params_yaml_sets(project: Project):
    """A value that `dvc exp run -S` leaves in params.yaml may not fit other configs."""
    project.set_params(learning_rate=1e-3, happo={"agent_order": "fixed"})
    pattern = "config/agents/ppo_agent_sweep_lr_*.yaml"
    assert "valid: 2 configs" in output_of("validate", pattern)
    text = project.run("heteromark", "sweep", pattern, "--dry-run").stdout
    assert "2 configs, 4 smoke runs of 256 frames" in text
    (fault,) = faults_of("validate", pattern, "--set", "learning_rate=2e-3")  # for these
    assert "--set: learning_rate = 0.002: applies to no config of the sweep" in fault
    project.set_params(sweep={"agents": pattern})  # as are both in params.yaml
    faults = faults_of("validate")
    assert len(faults) == 2
    assert "params.yaml: learning_rate = 0.001: applies to no config of the sweep" in faults[0]


def test_a_length_between_two_iterations_is_reported(project: Project):
    arguments = ("--agent-config", AGENT, "--total-timesteps", "100", "--set", "n_steps=64")
    text = output_of("train", *arguments, "--output", "out")
    assert "100 frames requested, rounded up to 128: 2 iterations of n_steps 64" in text
    project.set_params(smoke={"total_frames": 100}, full={"total_frames": 512})
    text = output_of("validate")
    assert "runs of 128 frames (100 requested, rounded up to whole iterations of n_steps)" in text
    assert "runs of 512 frames of the winner" in text
    text = output_of("show-config", AGENT)
    assert "# 100 frames requested, rounded up to 128: 2 iterations of n_steps 64" in text
    assert yaml.safe_load(text)["training"]["total_frames"] == 100


def test_without_clipping_gradients_are_still_measured(tmp_path: Path):
    def metrics(limit: float | None) -> list[str]:
        config = make_config(training__max_grad_norm=limit, training__total_frames=128)
        train_run(config, target=tmp_path / str(limit), store=RunStore())
        text = (tmp_path / str(limit) / METRICS_FILE).read_text().splitlines()
        shown = [i for i, name in enumerate(text[0].split(",")) if name.startswith("grad_norm")]
        assert shown
        return [[line.split(",")[i] for i in shown] for line in text]

    assert metrics(None) == metrics(1e9) != metrics(1e-3)


def test_without_clipping_a_non_finite_gradient_ends_the_run():
    config = make_config(
        training__max_grad_norm=None,
        optimizer_type="sgd",
        optimizer__learning_rate=1.0,
        optimizer__weight_decay=1000.0,
        training__total_frames=40 * 64,
    )
    assert train_run(config, store=RunStore())[0].status is Status.DIVERGED
