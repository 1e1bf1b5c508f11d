"""What Hydra composes from config/: agent configs as a group, selectors, variants, faults."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hydra.types import RunMode

from heteromark.commands.request import TrainRequest, resolve_request
from heteromark.config.compose.hydra_loader import open_hydra
from heteromark.config.compose.job import Job, ineffective_overrides, job_of
from heteromark.config.errors import ConfigError
from heteromark.config.models.tasks import TASK_ROLES
from heteromark.runs.digest import run_digest

pytestmark = pytest.mark.usefixtures("in_project")

CONFIGS = Path("config")
LANGUAGE_ENVIRONMENTS = tuple(TASK_ROLES)
GRPO = ("agent=grpo_agent_v1",)


def job(*arguments: str) -> Job:
    """The job of a command line; `--config-name=…` may come first."""
    name = "dummy_config"
    if arguments and arguments[0].startswith("--config-name="):
        name = arguments[0].partition("=")[2]
        arguments = arguments[1:]
    loader = open_hydra(CONFIGS).config_loader
    tree = loader.load_configuration(name, list(arguments), RunMode.RUN)
    found = job_of(tree, loader)
    if ineffective := list(ineffective_overrides(tree, loader, found)):
        raise ConfigError(ineffective)
    return found


def faults_of(*arguments: str) -> str:
    with pytest.raises(ConfigError) as caught:
        job(*arguments)
    return str(caught.value)


# --- the named configs and the groups' variants ----------------------------------------------


def test_named_configs_match_their_names():
    dummy = job()
    assert (dummy.agent.algorithm, dummy.loss_type) == ("MaskablePPO", "ppo")
    happo = job("--config-name=happo_config")
    assert (happo.agent.algorithm, happo.loss_type, happo.critic) == ("HAPPO", "happo", "team")
    large = job("--config-name=high_performance_config")
    assert large.environment.num_parallel_envs > dummy.environment.num_parallel_envs
    assert large.training.num_threads > 1
    assert large.collector.frames_per_batch > dummy.collector.frames_per_batch
    assert large.replay_buffer.minibatch_size > dummy.replay_buffer.minibatch_size
    assert sum(large.policy.hidden_sizes) > sum(dummy.policy.hidden_sizes)
    assert large.device == "auto"
    debug = job("--config-name=fast_debug_config")
    assert debug.training.total_frames < dummy.training.total_frames
    assert sum(debug.policy.hidden_sizes) < sum(dummy.policy.hidden_sizes)


@pytest.mark.parametrize("name", ["dummy", "happo", "high_performance", "fast_debug"])
def test_small_batches_and_few_copies_fit_every_named_config(name):
    """The minibatch size and the number of copies divide the sizes in the documented commands."""
    made = job(
        f"--config-name={name}_config",
        "collector.frames_per_batch=256",
        "environment.num_parallel_envs=8",
    )
    assert made.collector.frames_per_batch == 256


@pytest.mark.slow
def test_every_option_of_every_group_makes_a_valid_config():
    """The first options of several groups together, then the second ones, and so on."""
    groups = open_hydra(CONFIGS).config_loader.groups()
    assert "happo_agent_sweep_lr_low" in groups.pop("agent")  # tests/test_cli.py looks at all
    groups["logger"] = ["default", "tensorboard"]  # the others are not installed
    # Not every loss and policy fits every environment: these in a round of their own.
    apart = {name: groups.pop(name) for name in ("loss", "policy")}
    assert {"optimizer", "collector", "replay_buffer", "training", "evaluation"} < set(groups)
    language = {name: groups.pop(name) for name in ("model", "generation", "grpo")}
    kinds = {name: job(f"environment={name}", *GRPO).env_type for name in LANGUAGE_ENVIRONMENTS}
    assert set(kinds.values()) == {"text"}
    language["environment"] = list(kinds)
    groups["environment"] = [name for name in groups["environment"] if name not in kinds]
    for together in (groups, apart, language):
        for number in range(max(map(len, together.values()))):
            choices = [
                f"{'+' if group == 'experiment' else ''}{group}={options[number % len(options)]}"
                for group, options in together.items()
            ]
            if together is language:
                assert job(*choices, *GRPO)
                continue
            games = any(choice.endswith(("tic_tac_toe", "connect_four")) for choice in choices)
            fitting = ["loss=ppo"] if games else []
            shape = ("environment.num_parallel_envs=16", "environment.num_workers=0")
            assert job(*choices, *shape, *fitting)


@pytest.mark.parametrize(
    ("choices", "selected"),
    [
        (
            "policy=gru loss=happo optimizer=adamw collector=multi_sync replay_buffer=memmap",
            "policy_type=gru loss_type=happo optimizer_type=adamw collector_type=multi_sync "
            "buffer_type=memmap",
        ),
        (
            "policy=mlp loss=mappo optimizer=sgd collector=sync replay_buffer=tensor",
            "policy_type=mlp loss_type=mappo optimizer_type=sgd collector_type=sync "
            "buffer_type=tensor",
        ),
        ("loss=ippo optimizer=rmsprop", "loss_type=ippo optimizer_type=rmsprop"),
        ("loss=ppo optimizer=adam", "loss_type=ppo optimizer_type=adam"),
    ],
)
def test_a_variant_sets_the_selector_that_it_implies(choices, selected):
    by_variant, by_selector = job(*choices.split()), job(*selected.split())
    for pair in selected.split():
        key, _, value = pair.partition("=")
        assert getattr(by_variant, key) == getattr(by_selector, key) == value


def test_variants_change_only_their_own_keys():
    plain, large = job().model_dump(), job("policy=large").model_dump()
    assert large["policy"].pop("hidden_sizes") == [256, 256, 128, 64]
    del plain["policy"]["hidden_sizes"]
    assert plain == large


# --- selectors, algorithm and network agree --------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "algorithm"),
    [("happo", "HAPPO"), ("mappo", "MAPPO"), ("ippo", "IPPO"), ("ppo", "MaskablePPO")],
)
def test_loss_and_algorithm_select_each_other(loss, algorithm):
    assert job("agent=happo_agent_v1", f"loss_type={loss}").agent.algorithm == algorithm
    assert job(f"agent.algorithm={algorithm}").loss_type == loss


def test_policy_type_and_network_select_each_other():
    assert job("policy_type=gru").agent.network.policy == "GruPolicy"
    assert job("policy_type=gru", "agent.network.policy=GruPolicy").policy_type == "gru"
    assert job("agent.network.policy=GruPolicy").policy_type == "gru"


def test_selectors_that_contradict_the_agent_are_refused():
    message = faults_of(
        *("loss_type=happo", "agent.algorithm=MAPPO"),
        *("policy_type=gru", "agent.network.policy=MlpPolicy"),
    )
    assert message.startswith("2 errors")
    assert "loss_type = 'happo': selects HAPPO, but agent.algorithm is MAPPO" in message
    assert "policy_type = 'gru': selects GruPolicy, but agent.network.policy is Mlp" in message


def test_a_custom_algorithm_works_with_any_loss(project: Path):
    agent = "agent_id: own\nalgorithm: extensions.mine:Mine\n"
    (project / "config/agents/own_v1.yaml").write_text(agent)
    assert job("agent=own_v1").loss_type == "ppo"
    mixed = job("agent=own_v1", "loss_type=mappo")
    assert (mixed.agent.algorithm, mixed.loss_type) == ("extensions.mine:Mine", "mappo")


def test_heteromark_train_refuses_the_contradiction_too():
    with pytest.raises(ConfigError, match=r"selects MAPPO, but agent\.algorithm is HAPPO"):
        resolve_request(
            TrainRequest(CONFIGS / "agents/happo_agent_v1.yaml", assignments=("loss_type=mappo",))
        )


# --- agent configs ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("happo_agent_v1.yaml", None),
        ("ppo_agent_sweep_lr_high.yaml", None),
        ("ppo_agent_sweep_without_defaults.yaml", "agent_id: ppo_agent\ngamma: 0.9\n"),
        ("ppo_agent_sweep_json.json", '{"defaults": ["ppo_agent_v1"], "n_epochs": 3}'),
        ("ppo_agent_sweep_text.yaml", "defaults: [ppo_agent_v1]\ndescription: costs ${nothing}\n"),
    ],
)
def test_an_agent_config_means_the_same_as_in_heteromark_train(project: Path, file, text):
    path = project / "config/agents" / file
    if text is not None:
        path.write_text(text)
    trained, _ = resolve_request(
        TrainRequest(path, seed=3, total_frames=4096, assignments=("smoke.eval_episodes=7",))
    )
    composed = job(
        *(f"agent={path.stem}", "seed=3", "training.total_frames=4096", "evaluation.episodes=7")
    ).run_config
    assert composed == trained
    assert run_digest(composed) == run_digest(trained)


def test_a_hyperparameter_can_be_set_in_the_agent_or_the_component():
    agent = job("agent.learning_rate=1e-3")
    assert (agent.agent.learning_rate, agent.optimizer.learning_rate) == (1e-3, 1e-3)
    component = job("optimizer.learning_rate=1e-3")
    assert component.optimizer.learning_rate == 1e-3
    assert run_digest(agent.run_config) == run_digest(component.run_config)


def test_labels_do_not_change_the_run():
    labelled = job("project=mine", "experiment_name=first", "tags=[a,b]")
    assert (labelled.project, labelled.experiment_name, labelled.tags) == (
        "mine",
        "first",
        ["a", "b"],
    )
    assert labelled.logger.project == "mine"
    assert run_digest(labelled.run_config) == run_digest(job().run_config)


# --- custom configs --------------------------------------------------------------------------


MY_EXPERIMENT = """\
defaults:
  - dummy_config

# Override specific settings
loss_type: happo
device: cuda

training:
  total_frames: 500000
  num_epochs: 8

policy:
  hidden_sizes: [256, 256, 128]
  activation: ReLU
"""


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("own_position", ["", "  - _self_\n"])
def test_a_custom_config_builds_on_a_named_one(project: Path, own_position):
    text = MY_EXPERIMENT.replace("- dummy_config\n", f"- dummy_config\n{own_position}")
    (project / "config/my_experiment.yaml").write_text(text)
    made = job("--config-name=my_experiment")
    assert (made.loss_type, made.agent.algorithm, made.device) == ("happo", "HAPPO", "cuda")
    assert (made.training.total_frames, made.training.num_epochs) == (500_000, 8)
    assert (made.policy.hidden_sizes, made.policy.activation) == ([256, 256, 128], "relu")


def test_an_experiment_overrides_groups_and_values(project: Path):
    (project / "config/experiment/mine.yaml").write_text(
        "# @package _global_\n"
        "defaults:\n  - override /policy: gru\n  - override /optimizer: adamw\n  - _self_\n"
        "optimizer:\n  learning_rate: 1e-5\n"
        "experiment_name: mine\ntags: [custom, testing]\n"
    )
    made = job("--config-name=happo_config", "+experiment=mine", "training.num_epochs=2")
    assert (made.policy_type, made.optimizer_type) == ("gru", "adamw")
    assert (made.optimizer.learning_rate, made.optimizer.weight_decay) == (1e-5, 0.01)
    assert (made.loss_type, made.training.num_epochs) == ("happo", 2)
    assert made.tags == ["custom", "testing"]


def test_a_custom_variant(project: Path):
    (project / "config/policy/tiny.yaml").write_text("defaults: [default]\nhidden_sizes: [4]\n")
    made = job("policy=tiny")
    assert (made.policy.hidden_sizes, made.policy.activation) == ([4], "tanh")


# --- the override grammar --------------------------------------------------------------------


def test_override_grammar():
    made = job(
        "environment=speaker_listener",
        "policy.hidden_sizes=[128,128,64]",
        "policy.groups.listener.hidden_sizes=[8]",
        "loss.groups={listener:{entropy_coef:0.02}}",
        "+environment.kwargs.local_ratio=0.5",
        "++environment.kwargs.max_cycles=10",
        "~environment.episode_length",
        "optimizer.critic_learning_rate=${optimizer.learning_rate}",
        "optimizer.learning_rate=1e-3",
    )
    assert made.policy.hidden_sizes == [128, 128, 64]
    assert made.policy.groups["listener"].hidden_sizes == [8]
    assert made.loss.groups["listener"].entropy_coef == 0.02
    assert made.environment.kwargs == {"local_ratio": 0.5, "max_cycles": 10}
    assert made.environment.episode_length is None
    assert made.optimizer.critic_learning_rate == 1e-3


def test_an_environment_variable_can_be_a_value(monkeypatch):
    monkeypatch.setenv("MY_SEED", "5")
    assert job("seed=${oc.env:MY_SEED}").seed == 5


# --- faults ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # values
        (
            [
                *("polcy.hidden_sizes=[1]", "+optimizer.schedule_type=linear", "loss_type=hapo"),
                *("optimizer.learning_rate=fast", "agent.algorithm=HAPO", "project=../elsewhere"),
            ],
            [
                "command line: polcy = {'hidden_sizes': [1]}: unknown key. Did you mean policy?",
                "command line: optimizer.schedule_type = 'linear': unknown key",
                "loss_type = 'hapo': must be one of happo, hatrpo, haa2c, mappo, ippo, ppo",
                "optimizer.learning_rate = 'fast': must be a valid number",
                "agent.algorithm = 'HAPO': must be one of HAPPO, HATRPO, HAA2C, MAPPO, IPPO, MaskablePPO",
                "command line: project = '../elsewhere'",
            ],
        ),
        (
            ["collector.frames_per_batch=128", "seed=3"],
            ["ppo_agent_v1.yaml: replay_buffer.minibatch_size = 256: must be at most"],
        ),
        # choices
        (
            ["policy=lage", "agent=ppo_agent", "agents=ppo_agent_v1", "+experiment=quick"],
            [
                "policy = 'lage': unknown option. Did you mean large? Available: cnn, default,",
                "agent = 'ppo_agent': unknown option. Did you mean ppo_agent_v1?",
                "agents = 'ppo_agent_v1': is not a group; write agent=NAME",
                "experiment = 'quick': unknown option. Did you mean quick_test?",
            ],
        ),
        (
            ["--config-name=hapo_config"],
            ["--config-name: 'hapo_config': unknown config. Did you mean happo_config?"],
        ),
        (
            ["--config-name=config"],
            ["config/config.yaml: agent: is not set; add +agent=NAME. Available: at_grpo_agent"],
        ),
        # syntax
        (["seed", "a[=1"], ["command line: 'seed': does not parse", "'a[=1': does not parse"]),
        (["seed=0,1"], ["seed = '0,1': has several values; add --multirun"]),
        (["+seed=1"], ["An item is already at 'seed'"]),
        (["experiment=quick_test"], ["use +experiment=quick_test"]),
        (["policy.gru=${nowhere}"], ["Interpolation key 'nowhere' not found"]),
        # overrides without effect
        (
            ["policy=large", "agent.network.net_arch=[8]", "agent.happo.agent_order=fixed"],
            [
                "agent.network.net_arch = [8]: has no effect",
                "agent.happo.agent_order = 'fixed': has no effect: ppo_agent_v1 is MaskablePPO",
            ],
        ),
        (
            [
                *("optimizer.momentum=0.9", "policy.gru={hidden_size:8}", "logger.project=mine"),
                *("loss.huber_delta=1", "loss.critic_loss=l2", "environment.episode_length=10"),
            ],
            [
                "command line: optimizer.momentum = 0.9: has no effect: optimizer_type is adam, "
                "which ignores this key; set optimizer_type=sgd (or rmsprop)",
                "policy.gru.hidden_size = 8: has no effect: policy_type is mlp, which has no "
                "memory; set policy_type=gru",
                "logger.project = 'mine': has no effect: logger.backends is empty",
                "loss.huber_delta = 1: has no effect: loss.critic_loss is l2",
                "environment.episode_length = 10: has no effect: it only converts a budget",
            ],
        ),
    ],
)
def test_all_faults_are_reported_with_source_key_value_and_remedy(arguments, expected):
    message = faults_of(*arguments)
    for text in expected:
        assert text in message
    count = len(expected)
    assert message.startswith(f"{count} error{'s' if count > 1 else ''} in the configuration")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "policy.groups.listener.hidden_sizes=[64,0]",
            "policy.groups.listener.hidden_sizes.1 = 0: must be greater than 0 (allowed: list of "
            "integer > 0",
        ),
        (
            "policy.groups.listener.activation=swish",
            "policy.groups.listener.activation = 'swish': must be 'tanh', 'relu', 'elu', 'gelu', "
            "'leaky_relu', 'selu' or 'sigmoid'",
        ),
        (
            "policy.groups={listener:{hiden_sizes:[8]}}",
            "policy.groups.listener.hiden_sizes = [8]: unknown key. Did you mean "
            "policy.groups.listener.hidden_sizes?",
        ),
        ("policy.groups={listener:3}", "policy.groups.listener = 3: must be a valid dictionary"),
        ("loss.groups.speaker.clip_epsilon=2", "loss.groups.speaker.clip_epsilon = 2: must be les"),
        (
            "optimizer.groups.speaker.learning_rate=true",
            "optimizer.groups.speaker.learning_rate = True: must be a number, not true or false",
        ),
        (
            "environment.groups={all:speaker_0}",
            "environment.groups.all = 'speaker_0': must be a valid list (allowed: list of string",
        ),
    ],
)
def test_a_fault_within_a_group_names_group_and_key(override, expected):
    assert expected in faults_of(override)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("environment.reward=individual", "environment.reward = 'individual': must be team"),
        ("environment.num_workers=2", "environment.num_workers = 2: must be 0 with env_type"),
        ("environment.opponent.kind=random", "set the opponent in environment.skirmish.opponent"),
        ("environment.skirmish.scenario=5m", "environment.skirmish.scenario = '5m'"),
        (
            "environment.skirmish.n_units=3",
            "environment.skirmish.n_units = 3: requires random teams",
        ),
    ],
)
def test_settings_that_skirmish_does_not_support_are_refused(override, expected):
    assert expected in faults_of("environment=skirmish", override)


def test_a_file_may_contain_keys_without_effect():
    assert job("optimizer=sgd", "optimizer_type=adam").optimizer.momentum == 0.9


def test_a_reference_to_a_faulty_value_is_not_another_fault():
    message = faults_of("agent.learning_rate=-1")
    assert message.startswith("1 error")
    assert "command line: agent.learning_rate = -1: must be greater than 0" in message


@pytest.mark.parametrize(
    ("path", "text", "arguments", "expected"),
    [
        (
            "policy/broken.yaml",
            "hidden_sizes: [64\n",
            ["policy=broken"],
            r"does not parse.*config/policy/broken\.yaml",
        ),
        (
            "policy/twice.yaml",
            "gru: {}\ngru: {}\n",
            ["policy=twice"],
            r"policy/twice\.yaml, line 2, column 1: duplicate key .gru.",
        ),
        (
            "policy/list.yaml",
            "- 1\n",
            ["policy=list"],
            r"dictionary/object: config/policy/list\.yaml",
        ),
        (
            "policy/typo.yaml",
            "hiden_sizes: [4]\n",
            ["policy=typo"],
            r"(?s)config/policy/typo\.yaml: does not set policy_type.*"
            r"config/policy/typo\.yaml: policy\.hiden_sizes = \[4\]: unknown key",
        ),
        (
            "policy/wrong.yaml",
            "defaults: [default]\nactivation: swish\n",
            ["policy=wrong"],
            r"config/policy/wrong\.yaml: policy\.activation = 'swish'",
        ),
        (
            "policy/lost.yaml",
            "defaults: [nothing]\n",
            ["policy=lost"],
            r"Could not load 'policy/nothing'",
        ),
        (
            "root_typo.yaml",
            "defaults: [dummy_config]\ntrainin: {num_epochs: 1}\n",
            ["--config-name=root_typo"],
            r"config/root_typo\.yaml: trainin = .*Did you mean training\?",
        ),
        (
            "root_value.yaml",
            "defaults: [dummy_config]\ntraining: {num_epochs: 0}\n",
            ["--config-name=root_value"],
            r"config/root_value\.yaml: training\.num_epochs = 0",
        ),
        (
            "agents/bad_v1.yaml",
            "agent_id: bad\ngamma: 2\n",
            ["agent=bad_v1"],
            r"config/agents/bad_v1\.yaml: gamma = 2",
        ),
    ],
)
def test_a_faulty_file_is_reported_by_name(project: Path, path, text, arguments, expected):
    file = project / "config" / path
    file.write_text(text)
    try:
        assert re.search(expected, faults_of(*arguments))
    finally:
        file.unlink()


def test_a_folder_without_configs_says_where_to_run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert "Config folder not found: config; run this in the project folder" in faults_of()


# --- malicious input ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("activation: 2024-13-45", "line 1, column 13: YAML reads 2024-13-45 as a date"),
        (f"hidden_sizes: {'[' * 3000}", "line 1, column 64: is nested more than 50 levels deep"),
        (f"hidden_sizes: [{'9' * 5000}]", "line 1, column 16: a number with 5,000 digits"),
        ("activation: tanh\0", "line 1: contains the unprintable character '\\x00'"),
    ],
)
def test_an_unreadable_file_is_reported_with_its_line(project: Path, text, expected):
    file = project / "config/policy/unreadable.yaml"
    file.write_text(text)
    try:
        assert f"config/policy/unreadable.yaml, {expected}" in faults_of("policy=unreadable")
    finally:
        file.unlink()


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (f"seed={'9' * 500}", "has more than 100 digits in a number"),
        (f"seed={'[' * 3000}{']' * 3000}", "more than 4,000 characters"),
        (f"seed={'[' * 60}{']' * 60}", "has more than 50 levels of nested brackets"),
        (f"+{'.'.join('a' * 300)}=1", "has more than 200 characters before the ="),
        ("seed=range(1,1000000000)", "makes 999,999,999 jobs; a multirun has at most 10,000"),
        ("agent=range(1,1000000000)", "makes 999,999,999 jobs"),
        ("seed=range(1,10,0)", "has a step of 0"),
        ("seed=interval(0,1)", "is a continuous interval"),
    ],
)
def test_an_override_that_would_hang_hydra_is_refused(override, expected):
    assert expected in faults_of(override)


@pytest.mark.parametrize("number", [1_000_000_007, 999_999_999_989])
def test_the_divisors_of_a_large_number_are_found_quickly(number):
    message = faults_of(f"collector.frames_per_batch={number}", "environment.num_parallel_envs=7")
    assert f"Nearest valid: 1 or {number}" in message


# --- deleted keys ---------------------------------------------------------------------------


def test_null_switches_clipping_off():
    assert job("training.max_grad_norm=null").training.max_grad_norm is None
    assert job("agent.ppo.max_grad_norm=null").training.max_grad_norm is None
    team = job("--config-name=math_L2_model", "training.max_grad_norm=null")
    assert team.training.max_grad_norm is None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["~training.max_grad_norm"],
            "cannot be deleted: its default, 0.5, would apply. Set it instead (Maximum gradient",
        ),
        (["~scheduler"], "scheduler: cannot be deleted: its defaults would apply"),
        (["--config-name=math_L2_model", "~training.val_freq"], "its default, 0, would apply"),
    ],
)
def test_a_key_with_a_default_cannot_be_deleted(arguments, expected):
    assert expected in faults_of(*arguments)
