"""The stages of dvc.yaml depend on every key of params.yaml that affects them, known or unknown."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from projects import ROOT, TINY, Project, copy_project

from heteromark.config.models.params import ProjectParams
from heteromark.config.nested import flatten, unflatten
from heteromark.workflow.plan import make_plan

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
PART = {stage: f"results/plan/{stage}.json" for stage in STAGES if stage != "plan"}


def keys(schema: dict[str, Any], node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of a JSON schema, without sections."""
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    if "properties" not in node:
        yield prefix
    for name, child in node.get("properties", {}).items():
        yield from keys(schema, child, f"{prefix}.{name}" if prefix else name)


SCHEMA = ProjectParams.model_json_schema()
KEYS = sorted(keys(SCHEMA, SCHEMA))

# A value for each key that differs from params.yaml and from the base config.
OTHER: dict[str, Any] = {
    "algorithm": "MAPPO",
    "network.policy": "GruPolicy",
    "network.net_arch": [16],
    "network.activation_fn": "elu",
    "network.initialization": "xavier",
    "network.layer_norm": True,
    "network.feature_norm": True,
    "network.observation_norm": True,
    "network.gaussian.bounds": "clip",
    "network.gaussian.std": "by_observation",
    "network.gaussian.max_std": 0.5,
    "ppo.critic_epochs": 3,
    "ppo.critic_batch_size": 32,
    "ppo.use_policy_active_masks": False,
    "scheduler.decay": "linear",
    "happo.agent_order": "fixed",
    "happo.action_aggregation": "mean",
    "n_steps": 128,
    "batch_size": 32,
    "n_epochs": 3,
    "device": "cpu",
    "num_parallel_envs": 8,
    "checkpoint_interval": 1,
    "sweep.agents": ["config/agents/happo_agent_v1.yaml"],
    "sweep.base_config": "config/agents/happo_agent_v1.yaml",
    "sweep.environment": "simple_spread",
    "sweep.strategy": "halving",
    "sweep.halving.min_frames": 128,
    "smoke.total_frames": 512,
    "smoke.seeds": [3, 4],
    "smoke.cohort": 3,
    "full.seeds": [7],
    "selection.metric": "final_return",
    "selection.statistic": "mean",
    "selection.tie_break": ["name"],
    "selection.min_seeds": 1,
}


def other(key: str) -> Any:
    """Return a new value for a key; most numbers share one."""
    if key in OTHER:
        return OTHER[key]
    if key.startswith(("grpo.", "llm.")):
        return {
            "grpo.sampling": "chain",
            "grpo.normalization": "grpo",
            "grpo.drop_flat": True,
            "grpo.filter_method": "mean",
            "llm.specialization": "lora",
            "llm.policies": "role",
            "llm.lora_modules": ".*",
        }.get(key, 4 if key.endswith(("generations", "rank")) else 0.25)
    whole = ("threads", "frames", "episodes", "eta", "steps")
    return 3 if key.endswith(whole) else 0.125


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a project's configs."""
    root = tmp_path_factory.mktemp("stages")
    for name in ("config", "environments", "extensions"):
        shutil.copytree(ROOT / name, root / name)
    return root


def parts(folder: Path, monkeypatch, **changes: Any) -> dict[str, Any]:
    """Return the inputs of all stages, with changed values in params.yaml."""
    monkeypatch.chdir(folder)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    flat = flatten(params) | flatten(TINY) | {"sweep.agents": "config/agents/happo_agent_*.yaml"}
    flat |= {"sweep.halving.min_frames": 64, "sweep.halving.max_frames": None, **changes}
    (folder / "params.yaml").write_text(yaml.safe_dump(unflatten(flat)), encoding="utf-8")
    return make_plan(folder).stage_inputs


def digests(inputs: dict[str, Any]) -> set[str]:
    """Return the digests of all configs in a plan."""
    rungs = [*inputs["sweep"]["smoke"], {"configs": inputs["train"]["full"]}]
    return {config["digest"] for rung in rungs for config in rung["configs"].values()}


def test_the_plan_stage_depends_on_all_params_and_each_stage_on_its_part():
    assert STAGES["plan"]["params"] == [{"params.yaml": None}]
    for stage, part in PART.items():
        assert part in STAGES[stage]["deps"]
    assert not [stage for stage in PART if "params" in STAGES[stage]]


# A sweep for keys that have no effect on HAPPO.
LANGUAGE_MODEL_SWEEP = {
    "sweep.agents": "config/agents/grpo_agent_v1.yaml",
    "sweep.environment": "math",
    "network.net_arch": None,
}


# By section of an agent config.
SWEEP_OF = {
    "grpo.": LANGUAGE_MODEL_SWEEP,
    "llm.": LANGUAGE_MODEL_SWEEP,
    "hatrpo.": {"sweep.agents": "config/agents/hatrpo_agent_v1.yaml"},
}


@pytest.mark.mostly_slow(8)
@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_changes_a_digest_changes_the_inputs_of_its_stage(key, folder, monkeypatch):
    sweep = next((sweep for section, sweep in SWEEP_OF.items() if key.startswith(section)), {})
    before = parts(folder, monkeypatch, **sweep)
    after = parts(folder, monkeypatch, **{**sweep, key: other(key)})
    if digests(before) != digests(after):
        assert before["sweep"] != after["sweep"] or before["train"] != after["train"]
    smoke = {config["digest"] for config in before["sweep"]["smoke"][-1]["configs"].values()}
    if smoke != {config["digest"] for config in after["sweep"]["smoke"][-1]["configs"].values()}:
        assert before["sweep"] != after["sweep"]
    if key == "smoke.cohort":
        assert before == after
    if key.startswith("full."):
        assert before["sweep"] == after["sweep"]
        assert before["train"] != after["train"]
    if key.startswith("selection."):
        assert (before["sweep"], before["train"]) == (after["sweep"], after["train"])
        assert before["select"] != after["select"]


@pytest.mark.slow
def test_dvc_repro_runs_affected_stages_and_rejects_unknown_keys(tmp_path):
    project = copy_project(tmp_path / "project", tmp_path / "store", trainer="stub")
    smoke = {**TINY["smoke"], "total_frames": 128}
    full = {**TINY["full"], "total_frames": 256}
    project.set_params(**(TINY | {"smoke": smoke, "full": full, "checkpoint_interval": 3}))
    for path in (project.folder / "config" / "agents").glob("*.yaml"):
        if path.stem != "happo_agent_v1":
            path.unlink()
    project.run("git", "init", "--quiet", "--initial-branch=main")
    project.run("git", "config", "user.email", "tester@example.com")
    project.run("git", "config", "user.name", "Tester")
    project.run("dvc", "repro")
    project.commit("results")

    def ran(*command: str, check: bool = True) -> tuple[list[str], str]:
        result = project.run(*command, check=check)
        output = result.stdout + result.stderr
        return [stage for stage in STAGES if f"Running stage '{stage}'" in output], output

    project.set_params(checkpoint_interval=2)  # affects no result
    assert ran("dvc", "repro")[0] == ["plan"]
    project.set_params(full={"eval_episodes": 5})  # affects the long run
    assert ran("dvc", "repro")[0] == ["plan", "train", "publish"]
    assert "Nothing to be done" in project.run("snakemake", "--cores", "2").stderr
    project.commit("another evaluation")

    stages, _ = ran("dvc", "exp", "run", "-S", "scheduler.decay=linear")
    assert stages == list(STAGES)
    unknown = ran("dvc", "exp", "run", "-S", "+learning_rat=1e-3", check=False)
    assert unknown[0] == ["plan"]
    assert "learning_rat" in unknown[1]
    assert "Did you mean learning_rate?" in unknown[1]


def test_files_that_affect_runs_must_be_dependencies_of_dvc(tmp_path):
    """Otherwise `dvc repro` would not notice their changes, which Snakemake does."""
    project = copy_project(tmp_path / "project", tmp_path / "store")
    project.set_params(**TINY, sweep={"environment": "arena"})
    project.write(
        "arena.py",
        "from mpe2 import simple_spread_v3\nimport environments.helper\n"
        "def make():\n    return simple_spread_v3.parallel_env(max_cycles=5)\n",
    )
    project.write("environments/helper.py", "size = 1\n")
    project.write("data/levels.txt", "7\n")
    project.write(
        "config/environment/arena.yaml",
        "# @package _global_\nenv_type: pettingzoo\nenvironment:\n  name: arena\n"
        "  task: arena:make\n  files: [data]\n",
    )
    plan = ("heteromark", "workflow", "plan", "results/plan")
    refused = project.run(*plan, check=False)
    assert refused.returncode == 2
    assert "dvc.yaml: stages.plan.deps: lacks" in refused.stderr
    for name, is_named in (("arena.py", 1), ("data/levels.txt", 1), ("helper.py", 0)):
        assert refused.stderr.count(f"{name}, which affects runs") == is_named
    before = project.read("dvc.yaml")
    project.write(
        "dvc.yaml", before.replace("      - config\n", "      - config\n      - data\n", 1)
    )
    (project.folder / "arena.py").rename(project.folder / "environments" / "arena.py")
    path = project.folder / "config" / "environment" / "arena.yaml"
    path.write_text(path.read_text().replace("arena:make", "environments.arena:make"))
    project.run(*plan)


PLAN = ("python", "-m", "heteromark", "workflow", "plan", "results/plan")
JOBS = {
    "sweep": {"smoke", "rung", "aggregate"},
    "select": {"select"},
    "train": {"train"},
    "publish": {"publish", "report"},
}
# Edits of files: path, old text, new text.
EDITS = {
    "a variant": ("config/agents/happo_agent_v1.yaml", "gamma: 0.99", "gamma: 0.98"),
    "a comment": ("config/agents/happo_agent_v1.yaml", "gamma: 0.99", "gamma: 0.99  # as usual"),
    "an environment": ("config/environment/arena.yaml", "max_cycles: 5", "max_cycles: 6"),
    "an environment's code": ("environments/arena.py", "= 1", "= 2"),
    "a data file": ("environments/levels.txt", "7", "8"),
    "another data file": ("environments/notes.txt", "7", "8"),
    "the trainer": ("heteromark/training/loop.py", "import math\n", "import math\n\n_x = 1\n"),
    "the tables": ("heteromark/workflow/words.py", "def counted", "_x = 1\n\n\ndef counted"),
    "the page": ("heteromark/ui/__init__.py", '"""\n', '"""\n\n_x = 1\n'),
}


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory) -> Project:
    """A project after `dvc repro`, with invented figures."""
    root = tmp_path_factory.mktemp("reproduced")
    project = copy_project(root / "project", root / "store", trainer="stub")
    project.write("environments/levels.txt", "7\n")
    project.write("environments/notes.txt", "7\n")
    project.write(
        "environments/arena.py",
        "from mpe2 import simple_spread_v3\nsize = 1\n"
        "def make(max_cycles):\n    return simple_spread_v3.parallel_env(max_cycles=max_cycles)\n",
    )
    project.write(
        "config/environment/arena.yaml",
        "# @package _global_\nenv_type: pettingzoo\nenvironment:\n  name: arena\n  task: "
        "environments.arena:make\n  kwargs:\n    max_cycles: 5\n"
        "  files: [environments/levels.txt]\n",
    )
    agents = ["happo_agent_v1", "happo_agent_sweep_lr_high"]
    sweep = {
        "agents": [f"config/agents/{name}.yaml" for name in agents],
        "environment": "arena",
        "halving": {"min_frames": 64, "max_frames": None},
    }
    project.set_params(**TINY, sweep=sweep)
    project.run("git", "init", "--quiet", "--initial-branch=main")
    project.run("dvc", "repro")
    return project


@pytest.mark.slow
@pytest.mark.parametrize("change", [*EDITS, *KEYS])
def test_dvc_and_snakemake_run_the_same_again(change, reproduced):
    path, *_ = edit = EDITS.get(change, ("params.yaml",))
    before = reproduced.read(path)
    if change in EDITS:
        after = before.replace(*edit[1:], 1)
    else:
        params = flatten(yaml.safe_load(before)) | {change: other(change)}
        after = yaml.safe_dump(unflatten(params))
    assert after != before
    try:
        reproduced.write(path, after)
        planned = reproduced.run(*PLAN, check=False)
        dry = reproduced.run("snakemake", "--dry-run", check=False)
        if planned.returncode:
            assert dry.returncode
            return
        status = json.loads(reproduced.run("dvc", "status", "--json").stdout)
    finally:
        reproduced.write(path, before)
    jobs = set(re.findall(r"^(\w+) +\d+$", dry.stdout + dry.stderr, re.MULTILINE))
    by_snakemake = {stage for stage, rules in JOBS.items() if rules & jobs}
    by_dvc = status.keys() - {"plan"}
    if "select" in by_snakemake:  # then Snakemake does not know the winner yet
        by_snakemake |= by_dvc & {"train"}
    assert by_dvc == by_snakemake
    if change in ("a comment", "another data file", "the page"):
        assert not by_dvc
    elif change in EDITS:
        assert by_dvc
