"""The commands as a user types them: help, errors, plans."""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from projects import ROOT, Project

from heteromark.runs.store import RunStore

AGENTS = "config/agents"


def test_help_lists_commands(project: Project):
    text = project.run("heteromark", "--help").stdout
    for command in ("train", "sweep", "evaluate", "validate", "store", "show-config", "doctor"):
        assert command in text
    assert "run the same command again" in project.run("heteromark", "train", "-h").stdout


def test_the_version_is_that_of_the_package(project: Project):
    assert project.run("heteromark", "--version").stdout == f"heteromark {version('heteromark')}\n"


def test_verbose_and_quiet_exclude_each_other(project: Project):
    result = project.run("heteromark", "-v", "-q", "validate", check=False)
    assert result.returncode == 2
    assert "--verbose and --quiet cannot be combined" in result.stderr


def test_validate_prints_the_planned_runs(project: Project):
    text = project.run("heteromark", "validate").stdout
    assert "valid: 4 configs on skirmish" in text
    assert "smoke: 8 runs of 256 frames" in text
    assert "happo_agent_lr_high" in text


def test_validate_takes_configs_and_overrides(project: Project):
    arguments = ("config/agents/ppo_agent_*.yaml", "--set", "smoke.seeds=[0, 1, 2]")
    text = project.run("heteromark", "validate", *arguments).stdout
    assert "smoke: 12 runs" in text
    assert "MaskablePPO" in text


def test_show_config_prints_the_resolved_config_and_the_run_folder(project: Project):
    text = project.run(
        "heteromark", "show-config", f"{AGENTS}/happo_agent_sweep_lr_high.yaml"
    ).stdout
    assert "learning_rate: 0.005" in text
    assert "results/smoke/happo_agent_lr_high-" in text
    assert "${" not in text


def test_options_of_train_override_the_file(project: Project, own_store):
    """Each option is in the run's config and record."""
    project.write(f"{AGENTS}/other_v1.yaml", "agent_id: other\nppo: {clip_range: 0.4}\n")
    project.run(
        *("heteromark", "train", "--agent-config", f"{AGENTS}/happo_agent_sweep_lr_high.yaml"),
        *("--mode", "full", "--seed", "7", "--total-timesteps", "60", "--learning-rate", "3e-3"),
        *("--gamma", "0.9", "--n-steps", "30", "--batch-size", "15", "--n-epochs", "2"),
        *("--num-envs", "3", "--device", "cpu", "--base-config", f"{AGENTS}/other_v1.yaml"),
        *(
            "--set",
            "policy.share_policy_params=false",
            "--set",
            "ppo.ent_coef=0.5",
            "--output",
            "out",
        ),
    )
    config = yaml.safe_load(project.read("out/config.yaml"))
    assert (config["mode"], config["seed"], config["device"]) == ("full", 7, "cpu")
    assert config["training"]["total_frames"] == 60
    assert config["training"]["num_epochs"] == 2
    assert config["optimizer"]["learning_rate"] == 3e-3
    assert config["loss"]["gamma"] == 0.9
    assert config["loss"]["clip_epsilon"] == 0.4
    assert config["loss"]["entropy_coef"] == 0.5
    assert config["collector"]["frames_per_batch"] == 30
    assert config["replay_buffer"]["minibatch_size"] == 15
    assert config["environment"]["num_parallel_envs"] == 3
    assert config["policy"]["share_policy_params"] is False
    assert RunStore(own_store).runs()[0].record.summary.frames == 60


def snapshot(folder: Path) -> dict[str, str]:
    return {str(p): p.read_text() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.mostly_slow(1)
@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("config/policy/default.yaml", "hidden_sizes: [64"),
        ("config/optimizer/adam.yaml", "- a\n"),
        ("config/environment/skirmish.yaml", "environment: {task: [}"),
    ],
)
def test_the_error_names_a_broken_component_file(project: Project, path, text):
    project.write(path, text)
    for command in (("heteromark", "validate"), ("snakemake", "-n")):
        result = project.run(*command, check=False)
        output = result.stdout + result.stderr
        assert result.returncode != 0
        assert Path(path).name in output
        assert "Traceback" not in output


def fault(name: str):
    """Return a change that breaks the project and the expected parts of the message."""
    base, variant = f"{AGENTS}/happo_agent_v1.yaml", f"{AGENTS}/happo_agent_sweep_lr_high.yaml"

    def edit(path: str, old: str, new: str):
        return lambda project: project.write(path, project.read(path).replace(old, new))

    def params(**changes):
        return lambda project: project.set_params(**changes)

    def listener(old: str, new: str):
        def change(project: Project) -> None:
            edit("config/environment/speaker_listener.yaml", old, new)(project)
            project.set_params(sweep={"environment": "speaker_listener"})

        return change

    return {
        "missing config": (
            params(sweep={"agents": [f"{AGENTS}/absent.yaml"]}),
            ["FileNotFoundError", f"Agent config file not found: {AGENTS}/absent.yaml"],
        ),
        "does not parse": (
            edit(base, "net_arch: [64, 64]", "net_arch: [64, 64"),
            ["does not parse", base, "line"],
        ),
        "list at the root": (
            lambda project: project.write(base, "- a\n- b\n"),
            ["ValueError", f"Config file must contain a dictionary/object: {base}"],
        ),
        "unknown key": (
            edit(base, "learning_rate:", "learning_rte:"),
            [base, "learning_rte", "unknown key", "Did you mean learning_rate?"],
        ),
        "negative": (
            edit(base, "2.0e-3", "-1"),
            [base, "learning_rate = -1", "greater than 0"],
        ),
        "not a number": (
            edit(base, "2.0e-3", '"fast"'),
            [base, "learning_rate = 'fast'", "number"],
        ),
        "gamma": (edit(base, "0.99", "1.5"), [base, "gamma = 1.5", "<= 1"]),
        "batch above n_steps": (
            lambda project: project.set_params(batch_size=128),
            ["batch_size = 128", "n_steps", "which is 64"],
        ),
        "unknown algorithm": (
            edit(base, "algorithm: HAPPO", "algorithm: HAPOO"),
            [
                base,
                "algorithm = 'HAPOO'",
                "must be one of HAPPO, HATRPO, HAA2C, MAPPO, IPPO, MaskablePPO",
            ],
        ),
        "unknown environment": (
            params(sweep={"environment": "speaker_listner"}),
            [
                "sweep.environment = 'speaker_listner'",
                "Did you mean speaker_listener?",
                "Available:",
            ],
        ),
        "empty pattern": (
            params(sweep={"agents": f"{AGENTS}/sac_*.yaml"}),
            ["sac_*.yaml", "matches no agent config", "happo_agent_v1.yaml"],
        ),
        "one name twice": (
            lambda project: shutil.copy(
                project.folder / base, project.folder / f"{AGENTS}/happo_agent_copy.yaml"
            ),
            ["is the name of several configs", "happo_agent_copy.yaml", "happo_agent_v1.yaml"],
        ),
        "base missing": (
            lambda project: (project.folder / base).unlink(),
            ["Agent config file not found", base, f"the base of the variant {variant}"],
        ),
        "override reaches nothing": (
            params(learning_rate=1e-3, sweep={"agents": [variant]}),
            ["learning_rate = 0.001", "applies to no config", "happo_agent_lr_high sets it itself"],
        ),
        "task without a module": (
            listener("task: mpe2", 'task: ":mpe2'),
            ["speaker_listener.yaml"],
        ),
        "module not installed": (
            listener("task: mpe2", "task: mpe3"),
            ["environment.task = 'mpe3", "module mpe3.simple_speaker_listener_v4 not found"],
        ),
    }[name]


FAULTS = (
    "missing config",
    "does not parse",
    "list at the root",
    "unknown key",
    "negative",
    "not a number",
    "gamma",
    "batch above n_steps",
    "unknown algorithm",
    "unknown environment",
    "empty pattern",
    "one name twice",
    "base missing",
    "override reaches nothing",
    "task without a module",
    "module not installed",
)


# All commands use the same planner, so one fault of each kind shows that they report its errors.
ALSO_BY_SNAKEMAKE = ("does not parse", "unknown environment", "module not installed")


@pytest.mark.parametrize("name", FAULTS)
def test_invalid_input_is_reported_before_any_run(project: Project, own_store, name):
    breaks, expected = fault(name)
    project.write("results/tables/summary.csv", "the tables of an earlier run\n")
    breaks(project)
    before = snapshot(project.folder / "results")
    commands = [("heteromark", "validate")]
    if name in ALSO_BY_SNAKEMAKE:
        commands.append(("snakemake", "--cores", "2"))
    for command in commands:
        result = project.run(*command, check=False)
        output = result.stdout + result.stderr
        assert result.returncode != 0, command
        for text in expected:
            assert text in output, (command, text, output)
        assert "Traceback" not in output, (command, output)
    assert snapshot(project.folder / "results") == before
    assert not list(own_store.glob("runs/*"))


@pytest.mark.slow
def test_invalid_input_stops_dvc_repro_and_keeps_earlier_results(project: Project, own_store):
    project.run("git", "init", "--quiet")
    project.set_params(learning_rate=-1)
    project.write("results/tables/summary.csv", "the tables of an earlier run\n")
    result = project.run("dvc", "repro", check=False)
    assert result.returncode != 0
    assert "learning_rate = -1: must be greater than 0" in result.stdout + result.stderr
    assert not list(own_store.glob("runs/*"))
    assert project.read("results/tables/summary.csv") == "the tables of an earlier run\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--agent-config", "no.yaml"), "Agent config file not found: no.yaml"),
        (("--agent-config", AGENTS), "this is a folder"),
        (
            ("--agent-config", f"{AGENTS}/happo_agent_v1.yaml", "--learning-rate", "fast"),
            "--learning-rate: 'fast': must be a valid number",
        ),
        (("--agent-config", f"{AGENTS}/happo_agent_v1.yaml", "--mode", "long"), "smoke, full"),
        (
            ("--agent-config", f"{AGENTS}/happo_agent_v1.yaml", "--num-envs", "7"),
            "must divide collector.frames_per_batch",
        ),
        (
            ("--agent-config", f"{AGENTS}/ppo_agent_v1.yaml", "--set", "happo.agent_order=fixed"),
            "happo.agent_order: has no effect: ppo_agent_v1 is MaskablePPO, not HAPPO",
        ),
        (
            ("--agent-config", f"{AGENTS}/ppo_agent_v1.yaml", "--set", "optimizer.alpha=0.5"),
            "--set: optimizer.alpha = 0.5: has no effect: optimizer_type is adam, which ignores "
            "this key; set optimizer_type=rmsprop",
        ),
        (
            (
                *("--agent-config", f"{AGENTS}/ppo_agent_v1.yaml"),
                *("--set", "policy.groups.medic.activation=relu"),
            ),
            "policy.groups.medic = {'activation': 'relu'}: environment 'skirmish' has no "
            "such group. Did you mean medivac? Its groups are marauder, marine, medivac; use one",
        ),
        (
            ("--agent-config", f"{AGENTS}/happo_agent_v1.yaml", "--set", "learning_rate=[1"),
            "does not parse",
        ),
        (
            ("--agent-config", f"{AGENTS}/happo_agent_v1.yaml", "--output", "params.yaml/x"),
            "params.yaml is a file, not a folder",
        ),
        (
            ("--agent-config", f"{AGENTS}/happo_agent_v1.yaml", "--set", "polcy.share_params=1"),
            "Did you mean policy?",
        ),
    ],
)
def test_invalid_options_of_train_exit_with_status_2(project, arguments, expected):
    result = project.run("heteromark", "train", *arguments, check=False)
    assert result.returncode == 2
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


def test_evaluate_suggests_how_to_find_runs(project: Project):
    options = ("--no-deterministic", "--checkpoint", "best", "--opponent", "random", "--fps", "5")
    result = project.run("heteromark", "evaluate", "nothing", *options, check=False)
    assert result.returncode == 2
    assert "heteromark store ls" in result.stderr


def test_evaluate_of_an_invalid_file_prints_one_message(project: Project):
    project.write("bad.pt", "not a checkpoint")
    result = project.run("heteromark", "evaluate", "bad.pt", check=False)
    assert result.returncode == 1
    assert "bad.pt is damaged or not a heteromark checkpoint" in result.stderr
    assert "Traceback" not in result.stderr


def test_store_commands_on_an_empty_store(project: Project, own_store):
    assert f"0 runs, 0.0 MiB in {own_store}" in project.run("heteromark", "store", "ls").stdout
    assert "0 runs" in project.run("heteromark", "store", "prune").stdout
    assert "all intact" in project.run("heteromark", "store", "verify").stdout


@pytest.mark.slow
def test_sweep_accepts_quoted_unquoted_and_absolute_patterns(project: Project):
    dry = ("--dry-run", "--cores", "1")
    quoted = project.run("heteromark", "sweep", f"{AGENTS}/ppo_agent_sweep_*.yaml", *dry)
    assert "3 configs, 6 smoke runs" in quoted.stdout
    unquoted = project.run(
        *("bash", "-c", f"heteromark sweep {AGENTS}/ppo_agent_sweep_lr_*.yaml --dry-run")
    )
    assert "2 configs, 4 smoke runs" in unquoted.stdout
    absolute = project.run("heteromark", "sweep", f"{project.folder}/{AGENTS}/ppo_*.yaml", *dry)
    assert "4 configs, 8 smoke runs" in absolute.stdout


@pytest.mark.slow
def test_a_budget_in_episodes_becomes_frames(project: Project):
    result = project.run(
        *("heteromark", "sweep", f"{AGENTS}/ppo_agent_v1.yaml", "--episodes", "100", "--dry-run")
    )
    assert "1 configs, 2 smoke runs of 10,048 frames (10,000 requested" in result.stdout


@pytest.mark.slow
def test_snakemake_lint_hints_at_nothing_but_environments(project: Project):
    result = project.run("snakemake", "--lint", check=False)
    output = result.stdout + result.stderr
    hints = {line.strip() for line in output.splitlines() if line.startswith("    * ")}
    assert hints == {"* Specify a conda environment or container for each rule.:"}


def test_planning_imports_no_torch(project: Project):
    code = (
        "import sys\n"
        "from heteromark.workflow.plan import make_plan\n"
        "make_plan()\n"
        "assert not {'torch', 'pandas', 'matplotlib'} & set(sys.modules)\n"
    )
    project.run(sys.executable, "-c", code)


def test_every_agent_config_of_the_repository_is_valid():
    made_for = {
        "benchmarl_vmas": ("--environment", "vmas_balance", "--set", "num_parallel_envs=600"),
        "mujoco_agent_v1": ("--environment", "halfcheetah_2x3"),
    }
    for path in sorted((ROOT / AGENTS).glob("*.yaml")):
        options = made_for.get(path.stem, ())
        if "TextPolicy" in path.read_text() or "grpo_agent" in path.stem:
            options = ("--environment", "math")
        if path.stem.startswith("harl_"):
            options = ("--environment", path.stem.removeprefix("harl_"))
        result = Project(ROOT).run("heteromark", "show-config", f"{AGENTS}/{path.name}", *options)
        assert "run " in result.stdout
