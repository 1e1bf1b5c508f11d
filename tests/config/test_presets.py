"""Later settings win: experiments on every named config, and the types set by group files."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf
from projects import ROOT

from heteromark.commands.multirun import plan_jobs
from heteromark.config.compose.composition import compose_run
from heteromark.config.compose.hydra_loader import SELECTORS, open_hydra
from heteromark.config.compose.job import Job, ineffective_overrides, job_of
from heteromark.config.errors import ConfigError
from heteromark.config.models.agent import AgentConfig
from heteromark.config.models.params import ProjectParams
from heteromark.training.factory_train import main

pytestmark = pytest.mark.usefixtures("in_project")

NAMED = ("dummy", "happo", "high_performance", "fast_debug", "grpo")
TEAMS = (
    *("math_L0_model", "math_L1_model", "math_L2_model", "math_L3_model", "math_single_agent"),
    *("code_L2_model", "search_L1_model", "stateful_L2_model"),
)
QUICK, FULL = "+experiment=quick_test", "+experiment=full_training"


def job(name: str, *overrides: str, config_dir: Path | None = None) -> Job:
    loader = open_hydra(Path("config"), config_dir).config_loader
    tree = loader.load_configuration(name, list(overrides), RunMode.RUN)
    found = job_of(tree, loader)
    if ineffective := list(ineffective_overrides(tree, loader, found)):
        raise ConfigError(ineffective)
    return found


def faults_of(name: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        job(name, *overrides)
    return str(caught.value)


@pytest.fixture
def write(project: Path) -> Iterator:
    """Write files below config/, which are restored after the test."""
    kept: dict[Path, str | None] = {}

    def write_file(path: str, text: str) -> None:
        file = project / "config" / path
        kept.setdefault(file, file.read_text() if file.exists() else None)
        file.write_text(text)

    yield write_file
    for file, before in kept.items():
        file.unlink() if before is None else file.write_text(before)


def experiment(*overrides: str, values: str = "") -> str:
    lines = "".join(f"  - override /{override}\n" for override in overrides)
    return f"# @package _global_\ndefaults:\n{lines}  - _self_\n{values}".replace(
        "  - _self_\n", "" if overrides else "  - _self_\n"
    )


# --- how long a preset is --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", [*(f"{name}_config" for name in NAMED), *TEAMS])
def test_quick_test_is_ten_iterations_for_every_config(name):
    made = job(name, QUICK)
    assert made.num_iterations == 10
    assert made.evaluation.episodes == 5
    assert made.evaluation.interval == 0
    assert made.logger.backends == []
    assert (made.experiment_name, made.tags) == ("quick_test", ["testing"])


@pytest.mark.slow
@pytest.mark.parametrize("name", [*(f"{name}_config" for name in NAMED), *TEAMS])
def test_full_training_is_long_for_every_config(name):
    made = job(name, FULL)
    assert made.num_iterations >= 100
    assert made.training.total_frames >= 1_000_000 or name in TEAMS
    assert made.num_iterations >= 1000 or name not in TEAMS
    assert made.evaluation.interval == 10
    assert made.mode == "full"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("training: {total_frames: 500000}\n", 10),
        ("training: {num_batches: 70, total_frames: 500000}\nevaluation: {interval: 5}\n", 10),
        ("agent: {n_steps: 65536}\n", 10),
        ("logger: {backends: [tensorboard]}\n", 10),
    ],
)
def test_a_preset_wins_over_the_values_of_a_named_config(write, values, expected):
    write("own_config.yaml", f"defaults: [dummy_config, _self_]\n{values}")
    quick = job("own_config", QUICK)
    assert quick.num_iterations == expected
    assert (quick.logger.backends, quick.evaluation.interval) == ([], 0)
    full = job("own_config", FULL)
    assert full.num_iterations >= 100
    assert full.training.total_frames >= 1_000_000


def test_a_preset_works_on_custom_configs_that_build_on_team_configs(write):
    write("own_config.yaml", "defaults: [math/math_L1_model, _self_]\nseed: 3\n")
    assert job("own_config", QUICK).num_iterations == 10


@pytest.mark.parametrize(
    ("overrides", "iterations"),
    [
        (["training.num_batches=3"], 3),
        (["training=long"], 977),
        (["training=default"], 10),
        (["training.num_batches=3", "training.epochs=2"], 6),
    ],
)
def test_the_command_line_wins_over_a_preset(overrides, iterations):
    assert job("grpo_config", QUICK, *overrides).num_iterations == iterations


def test_a_fault_is_reported_under_its_own_key_with_a_preset():
    message = faults_of("dummy_config", FULL, "agent.n_steps=many")
    assert "command line: agent.n_steps = 'many': must be a valid integer" in message


# --- the groups that an experiment overrides -------------------------------------------------


OVERRIDES = {
    "environment: simple_spread": ("environment.name", "simple_spread"),
    "policy: gru": ("policy_type", "gru"),
    "policy: large": ("policy.hidden_sizes", [256, 256, 128, 64]),
    "loss: mappo": ("loss_type", "mappo"),
    "optimizer: sgd": ("optimizer_type", "sgd"),
    "optimizer: adam": ("optimizer_type", "adam"),
    "collector: multi_sync": ("collector_type", "multi_sync"),
    "replay_buffer: memmap": ("buffer_type", "memmap"),
    "training: quick": ("num_iterations", 10),
    "evaluation: periodic": ("evaluation.interval", 10),
    "logger: tensorboard": ("logger.backends", ["tensorboard"]),
    "scheduler: linear": ("scheduler.decay", "linear"),
    "agent: happo_agent_sweep_lr_high": ("agent.learning_rate", 5e-3),
    "model: qwen3_0.6b": ("model.path", "Qwen/Qwen3-0.6B"),
    "generation: hot": ("generation.temperature", 1.5),
    "grpo: halves": ("grpo.filter_ratio", 0.25),
}
# A named config that chooses a file of every group and sets a value in each.
STUBBORN = """\
defaults:
  - dummy_config
  - override agent: ppo_agent_v1
  - override environment: skirmish
  - override policy: mlp
  - override loss: ppo
  - override optimizer: adamw
  - override collector: sync
  - override replay_buffer: tensor
  - override training: long
  - override evaluation: quick
  - override logger: default
  - override scheduler: warmup_cosine
  - override generation: default
  - override grpo: default
  - override model: tiny
  - _self_
policy: {hidden_sizes: [7]}
optimizer_type: rmsprop
loss_type: ppo
training: {total_frames: 77777}
evaluation: {interval: 3}
logger: {backends: []}
collector_type: sync
buffer_type: tensor
"""


def value_of(made: Job, key: str):
    for part in key.split("."):
        made = getattr(made, part)
    return made


@pytest.mark.mostly_slow(6)
@pytest.mark.parametrize("choice", OVERRIDES)
def test_an_override_works_on_a_config_that_chooses_every_group(write, choice):
    write("stubborn.yaml", STUBBORN)
    write("generation/hot.yaml", "defaults: [default]\ntemperature: 1.5\n")
    write("grpo/halves.yaml", "defaults: [default]\nfilter_ratio: 0.25\n")
    write("experiment/mine.yaml", experiment(choice))
    key, value = OVERRIDES[choice]
    assert value_of(job("stubborn", "+experiment=mine"), key) == value


def test_other_settings_of_the_named_config_stay(write):
    write("experiment/mine.yaml", experiment("optimizer: sgd"))
    made = job("grpo_config", "+experiment=mine")
    assert (made.optimizer_type, made.optimizer.momentum) == ("sgd", 0.9)
    assert made.optimizer.weight_decay == 0.1  # from grpo_config; sgd.yaml only inherits its own
    write("experiment/mine.yaml", experiment("policy: gru"))
    assert job("high_performance_config", "+experiment=mine").policy_type == "gru"


def test_the_values_of_an_experiment_win_over_the_file_that_it_chooses(write):
    text = experiment("optimizer: sgd") + "optimizer: {momentum: 0.5}\noptimizer_type: rmsprop\n"
    write("experiment/mine.yaml", text)
    made = job("grpo_config", "+experiment=mine")
    assert (made.optimizer_type, made.optimizer.momentum) == ("rmsprop", 0.5)


@pytest.mark.mostly_slow(6)
@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["optimizer=adam"], "adam"),
        (["optimizer=rmsprop"], "rmsprop"),
        (["optimizer_type=adam"], "adam"),
        (["optimizer=rmsprop", "optimizer_type=sgd"], "sgd"),
    ],
)
@pytest.mark.parametrize("name", ["dummy_config", "grpo_config", "stubborn"])
def test_an_explicit_choice_wins_over_the_experiment(write, name, overrides, expected):
    write("stubborn.yaml", STUBBORN)
    write("experiment/mine.yaml", experiment("optimizer: sgd"))
    assert job(name, "+experiment=mine", *overrides).optimizer_type == expected


@pytest.mark.parametrize("choice", ["loss=mappo", "optimizer=sgd", "collector=multi_sync"])
def test_a_command_line_choice_wins_over_a_selector_of_the_named_config(write, choice):
    write("stubborn.yaml", STUBBORN)
    group, _, option = choice.partition("=")
    assert getattr(job("stubborn", choice), SELECTORS[group]) == option


def test_a_choice_without_a_type_keeps_the_selector(write):
    write("own_config.yaml", "defaults: [dummy_config]\npolicy_type: gru\n")
    assert job("own_config", "policy=large").policy_type == "gru"


def test_of_several_experiments_the_last_one_wins(write):
    write("experiment/first.yaml", experiment("optimizer: sgd", "policy: large"))
    write("experiment/second.yaml", experiment("optimizer: rmsprop"))
    made = job("grpo_config", "+experiment=[first,second]")
    assert made.optimizer_type == "rmsprop"
    assert job("grpo_config", "+experiment=[second,first]").optimizer_type == "sgd"
    assert job("dummy_config", "+experiment=[first,second]").policy.hidden_sizes[0] == 256


def test_an_experiment_may_build_on_another(write):
    text = "# @package _global_\ndefaults: [quick_test, override /optimizer: sgd]\nseed: 5\n"
    write("experiment/mine.yaml", text)
    made = job("high_performance_config", "+experiment=mine")
    assert (made.num_iterations, made.optimizer_type, made.seed) == (10, "sgd", 5)


def test_a_file_of_any_group_may_override_others(write):
    text = "defaults: [default@policy, override /optimizer: sgd]\npolicy_type: gru\n"
    write("policy/mine.yaml", f"# @package _global_\n{text}")
    for name in ("dummy_config", "grpo_config", "high_performance_config"):
        loader = open_hydra(Path("config")).config_loader
        tree = loader.load_configuration(name, ["policy=mine"], RunMode.RUN)
        assert (tree.optimizer_type, tree.optimizer.momentum) == ("sgd", 0.9)


def test_an_experiment_from_another_folder_works(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text(experiment("optimizer: sgd"))
    assert job("grpo_config", "+experiment=mine", config_dir=tmp_path).optimizer_type == "sgd"


def test_every_job_of_a_multirun_is_composed_like_a_single_run(write):
    write("experiment/mine.yaml", experiment("optimizer: sgd"))

    def types(*overrides: str) -> list[tuple[str, int]]:
        loader = open_hydra(Path("config")).config_loader
        master = loader.load_configuration("grpo_config", list(overrides), RunMode.MULTIRUN)
        jobs = plan_jobs(master, loader)
        return [(job.config.optimizer_type, job.config.num_iterations) for job in jobs]

    assert types("+experiment=mine,quick_test") == [("sgd", 100), ("adamw", 10)]
    assert types("+experiment=mine", "optimizer=adam,rmsprop") == [("adam", 100), ("rmsprop", 100)]
    assert types("+experiment=mine", "seed=0,1") == [("sgd", 100), ("sgd", 100)]


def test_the_printed_and_recorded_config_is_the_one_in_effect(write, capsys):
    write("experiment/mine.yaml", experiment("optimizer: sgd", "hydra/launcher: basic"))
    assert main(["--config-name=grpo_config", "+experiment=mine", "--cfg", "job"]) == 0
    assert "optimizer_type: sgd\n" in capsys.readouterr().out
    loader = open_hydra(Path("config")).config_loader
    shown = loader.compute_defaults_list("grpo_config", ["+experiment=mine"], RunMode.RUN)
    order = [default.config_path for default in shown.defaults]
    assert order[-3:] == ["grpo_config", "optimizer/sgd", "experiment/mine"]
    assert "optimizer/adamw" not in order
    tree = loader.load_configuration("grpo_config", ["+experiment=mine"], RunMode.RUN)
    assert OmegaConf.to_container(tree.hydra.overrides.task) == ["+experiment=mine"]
    assert OmegaConf.to_container(tree.hydra.overrides.hydra) == []
    assert tree.hydra.runtime.choices["optimizer"] == "sgd"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "grpo_config",
            experiment("optimizer: sdg"),
            "mine.yaml: override /optimizer = 'sdg': unknown option. Did you mean sgd?",
        ),
        (
            "math_L1_model",
            experiment("optimizer: sgd"),
            "mine.yaml: override /optimizer = 'sgd': has no effect: math/math_L1_model does not",
        ),
        (
            "dummy_config",
            experiment("optimiser: sgd"),
            "mine.yaml: override /optimiser = 'sgd': unknown group. Did you mean optim",
        ),
        (
            "dummy_config",
            "defaults: [override /optimizer: sgd]\nseed: 1\n",
            "mine.yaml: override /optimizer, seed would not be at the root of the config; add the "
            "line `# @package _global_`",
        ),
        (
            "dummy_config",
            experiment(values="optimizer: {type: sgd}\noptimizer_type: adam\n"),
            "mine.yaml: optimizer.type = 'sgd': contradicts optimizer_type; remove one",
        ),
    ],
)
def test_an_override_without_effect_says_why(write, name, text, expected):
    write("experiment/mine.yaml", text)
    message = faults_of(name, "+experiment=mine")
    assert expected in message
    assert message.startswith("1 error")
    assert "config/experiment/mine.yaml" in message


def test_two_experiments_are_given_as_a_list():
    message = faults_of("dummy_config", QUICK, FULL)
    assert "write +experiment=[quick_test,full_training]" in message


# --- types of group files --------------------------------------------------------------------

UNTYPED = {
    "environment": ("environment: {name: own, task: 'a:b'}\n", "skirmish, pettingzoo"),
    "policy": ("hidden_sizes: [8]\n", "mlp, gru, cnn, text"),
    "loss": ("gamma: 0.9\n", "happo, hatrpo, haa2c, mappo"),
    "optimizer": ("learning_rate: 0.01\nmomentum: 0.9\n", "adam, adamw, sgd, rmsprop"),
    "collector": ("frames_per_batch: 512\n", "sync, multi_sync"),
    "replay_buffer": ("minibatch_size: 256\n", "tensor, memmap"),
}


@pytest.mark.parametrize("group", SELECTORS)
def test_a_file_without_a_type_is_a_fault(write, group):
    text, names = UNTYPED[group]
    header = "# @package _global_\n" if group == "environment" else ""
    write(f"{group}/own.yaml", header + text)
    message = faults_of("dummy_config", f"{group}=own")
    assert f"config/{group}/own.yaml: does not set {SELECTORS[group]}; add" in message
    assert "`type: NAME`" in message
    assert names in message


def test_a_file_can_set_its_type_in_three_ways(write):
    own = "learning_rate: 0.01\nmomentum: 0.9\nnesterov: true\n"
    for text in (
        f"type: sgd\n{own}",
        f"defaults: [sgd, _self_]\n{own}",
        "# @package _global_\noptimizer_type: sgd\n"
        "optimizer: {learning_rate: 0.01, momentum: 0.9, nesterov: true}\n",
    ):
        write("optimizer/own.yaml", text)
        for name in ("dummy_config", "grpo_config"):
            made = job(name, "optimizer=own")
            assert made.optimizer_type == "sgd"
            assert (made.optimizer.learning_rate, made.optimizer.momentum) == (0.01, 0.9)
            assert made.optimizer.nesterov is True
    write("optimizer/own.yaml", own)
    assert job("dummy_config", "optimizer=own", "optimizer_type=sgd").optimizer.momentum == 0.9


def test_heteromark_train_refuses_an_untyped_file_too(project: Path, write):
    root = (project / "config/config.yaml").read_text()
    write("config.yaml", root.replace("optimizer: adam", "optimizer: own"))
    write("optimizer/own.yaml", "learning_rate: 0.01\n# one of its own\n")
    agent = AgentConfig.model_validate({"agent_id": "demo"})
    with pytest.raises(ConfigError, match=r"optimizer/own\.yaml: does not set optimizer"):
        compose_run(agent, ProjectParams(), "smoke", 0, root=project)


def test_a_type_in_a_section_of_any_file_is_the_selector(write):
    write("own_config.yaml", "defaults: [dummy_config]\noptimizer: {type: sgd, momentum: 0.8}\n")
    made = job("own_config")
    assert (made.optimizer_type, made.optimizer.momentum) == ("sgd", 0.8)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["optimizer.nesterov=true"],
            "optimizer.nesterov = True: has no effect: optimizer_type is",
        ),
        (["optimizer_type=rmsprop", "optimizer.nesterov=true", "optimizer.momentum=0.9"], "has no"),
        (
            ["optimizer=sgd", "optimizer.nesterov=true", "optimizer.momentum=0"],
            "optimizer.nesterov = True: needs momentum; set optimizer.momentum",
        ),
    ],
)
def test_nesterov_belongs_to_sgd_with_momentum(overrides, expected):
    if expected.endswith("optimizer_type is"):
        overrides = [*overrides, "optimizer.momentum=0.9"]
    assert expected in faults_of("dummy_config", *overrides)
    assert job("dummy_config", "optimizer=sgd", "optimizer.nesterov=true").optimizer.nesterov


@pytest.mark.parametrize("group", [group for group in SELECTORS if group != "environment"])
def test_an_unknown_key_of_a_file_is_a_fault(write, group):
    base = {"policy": "default", "loss": "clipped", "optimizer": "adam"}.get(group)
    base = base or {"collector": "sync", "replay_buffer": "tensor"}[group]
    write(f"{group}/own.yaml", f"defaults: [{base}, _self_]\nsurprise: 1\n")
    message = faults_of("dummy_config", f"{group}=own")
    assert f"config/{group}/own.yaml: {group}.surprise = 1: unknown key" in message


def test_a_wrong_type_is_reported_with_the_file_that_sets_it(write):
    write("optimizer/own.yaml", "defaults: [adam, _self_]\ntype: sdg\n")
    message = faults_of("dummy_config", "optimizer=own")
    assert "config/optimizer/own.yaml: optimizer_type = 'sdg': must be one of adam" in message


# --- YAML in the documents -------------------------------------------------------------------


def documented_yaml() -> list[tuple[str, str]]:
    """Return path and text of the YAML blocks in the documents that start with a file name."""
    documents = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
    texts = [document.read_text(encoding="utf-8") for document in documents]
    blocks = (re.findall(r"^```yaml\n(# file: (\S+)\n.*?)^```$", t, re.M | re.S) for t in texts)
    return [(path, block) for block, path in itertools.chain.from_iterable(blocks)]


@pytest.mark.slow
def test_the_documented_yaml_can_be_pasted(project: Path, write):
    blocks = documented_yaml()
    assert len(blocks) >= 11
    for path, block in blocks:
        write(path.removeprefix("config/"), block)
    for path, block in blocks:
        folder, name = Path(path).parent.name, Path(path).stem
        if folder == "config":
            assert job(name)
        elif folder == "experiment":
            assert job("happo_config", f"+experiment={name}").experiment_name == name
        elif folder == "agents":
            named = "grpo_config" if "TextPolicy" in block else "dummy_config"
            made = job(named, f"agent={name}")
            assert made.agent.agent_id == name.partition("_sweep")[0].removesuffix("_v1")
        elif folder == "environment":
            named = "grpo_config" if "env_type: text" in block else "happo_config"
            assert job(named, f"environment={name}").environment.name == name
        else:
            assert job("dummy_config", f"{folder}={name}")


HEADERS = (
    "# file: config/environment/own.yaml\n# @package _global_\n",
    "\n# a comment\n#\n\n  # @package _global_\n",
    f"# {'long ' * 300}\n# @package _global_\n",
)


@pytest.mark.parametrize("header", HEADERS)
def test_the_package_may_be_in_any_line_of_the_leading_comment(write, header):
    text = "env_type: pettingzoo\nenvironment: {name: own, task: 'mpe2.simple_spread_v3:env'}\n"
    write("environment/own.yaml", header + text)
    assert job("dummy_config", "environment=own").environment.name == "own"
    write("environment/own.yaml", text + header)
    message = faults_of("dummy_config", "environment=own")
    assert message.startswith("1 error")
    assert "config/environment/own.yaml: environment, env_type would not be at the root" in message
    assert "add the line `# @package _global_` at the top of the file" in message
