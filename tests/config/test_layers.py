"""The five layers: schema default < base config < params.yaml < variant < command line."""

from pathlib import Path

import pytest

from heteromark.config.compose.composition import load_params
from heteromark.config.compose.layers import resolve_agent, resolve_sweep
from heteromark.config.errors import ConfigError, ConfigFileNotFoundError
from heteromark.config.files import retyped
from heteromark.config.models.params import ProjectParams

BASE = """\
agent_id: demo
name: Demo v1
algorithm: HAPPO
version: 1
learning_rate: 1e-3
n_steps: 512
ppo: {clip_range: 0.1}
"""


@pytest.fixture
def agents(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "agents"
    folder.mkdir()
    (folder / "demo_v1.yaml").write_text(BASE)
    monkeypatch.chdir(tmp_path)
    return folder


def params(**overrides) -> ProjectParams:
    return ProjectParams.model_validate(overrides)


def sweep(pattern: str, **overrides):
    return resolve_sweep(pattern, params(**overrides))


def test_base_wins_over_schema_default(agents):
    agent = resolve_agent(agents / "demo_v1.yaml").agent
    assert agent.learning_rate == 1e-3  # unquoted 1e-3 is a number
    assert agent.ppo.clip_range == 0.1
    assert agent.gamma == 0.99
    assert agent.ppo.ent_coef == 0.01


def test_params_win_over_base_and_leave_the_rest(agents):
    agent = resolve_agent(
        agents / "demo_v1.yaml", params(learning_rate=2e-3, ppo={"ent_coef": 0.5})
    ).agent
    assert agent.learning_rate == 2e-3
    assert agent.ppo.ent_coef == 0.5
    assert agent.ppo.clip_range == 0.1


def test_variant_wins_over_params_only_where_it_varies(agents):
    path = agents / "demo_sweep_lr_high.yaml"
    path.write_text("defaults: [demo_v1]\nsweep_variant: lr_high\nlearning_rate: 5e-3\n")
    resolved = resolve_agent(path, params(learning_rate=2e-3, gamma=0.9))
    assert resolved.varied == {"learning_rate"}
    assert resolved.agent.learning_rate == 5e-3
    assert resolved.agent.gamma == 0.9
    assert resolved.agent.n_steps == 512
    assert resolved.agent.short_name == "demo_lr_high"


def test_a_full_copy_with_one_edited_line_is_a_one_line_variant(agents):
    copy = BASE.replace("1e-3", "5e-3") + "sweep_variant: lr_high\n"
    (agents / "demo_sweep_lr_high.yaml").write_text(copy)
    resolved = resolve_agent(agents / "demo_sweep_lr_high.yaml", params(n_steps=256))
    assert resolved.varied == {"learning_rate"}
    assert resolved.agent.n_steps == 256


def test_a_renamed_copy_takes_its_variant_from_the_file_name(agents):
    (agents / "demo_sweep_lr_high.yaml").write_text(BASE.replace("1e-3", "5e-3"))
    assert resolve_agent(agents / "demo_sweep_lr_high.yaml").agent.short_name == "demo_lr_high"


def test_command_line_wins_over_everything(agents):
    path = agents / "demo_sweep_lr_high.yaml"
    path.write_text("defaults: [demo_v1]\nlearning_rate: 5e-3\n")
    agent = resolve_agent(path, params(learning_rate=2e-3), {"learning_rate": "7e-3"}).agent
    assert agent.learning_rate == 7e-3


def test_json_configs_are_read_like_yaml(agents):
    path = agents / "other_v1.json"
    path.write_text('{"agent_id": "other", "algorithm": "MAPPO", "learning_rate": 0.002}')
    assert resolve_agent(path).agent.algorithm == "MAPPO"


def test_only_the_command_line_applies_to_a_resolved_config(agents):
    path = agents / "agent.yaml"
    path.write_text(BASE + "resolved: true\nsweep_variant: lr_high\n")
    assert resolve_agent(path, params(learning_rate=2e-3)).agent.learning_rate == 1e-3
    assert resolve_agent(path, params(), {"gamma": 0.5}).agent.gamma == 0.5


def test_a_named_base_replaces_the_one_beside(agents, tmp_path):
    (agents / "demo_sweep_x.yaml").write_text("agent_id: demo\nsweep_variant: x\ngamma: 0.5\n")
    other = tmp_path / "elsewhere.yaml"
    other.write_text("agent_id: demo\nn_steps: 128\n")
    assert resolve_agent(agents / "demo_sweep_x.yaml", base=other).agent.n_steps == 128


def test_conflicts_are_checked_after_the_last_layer(agents):
    (agents / "demo_v1.yaml").write_text(BASE + "batch_size: 512\n")
    (agents / "demo_sweep_short.yaml").write_text("defaults: [demo_v1]\nn_steps: 128\n")
    resolved = resolve_agent(agents / "demo_sweep_short.yaml", params(batch_size=64))
    assert (resolved.agent.n_steps, resolved.agent.batch_size) == (128, 64)


def test_a_resolved_config_can_be_a_base(agents):
    (agents / "winner.yaml").write_text(BASE + "resolved: true\nsweep_variant: lr_high\n")
    (agents / "demo_sweep_a.yaml").write_text("defaults: [winner]\nsweep_variant: a\ngamma: 0.5\n")
    resolved = resolve_agent(agents / "demo_sweep_a.yaml")
    assert (resolved.agent.learning_rate, resolved.agent.gamma) == (1e-3, 0.5)


def test_params_do_not_apply_to_a_resolved_config(agents):
    (agents / "winner.yaml").write_text(BASE + "resolved: true\n")
    assert "is resolved" in faults_of(lambda: sweep("agents/winner.yaml", learning_rate=0.5))


def test_yaml_merge_keys_work(agents):
    (agents / "m_v1.yaml").write_text(
        "agent_id: m\nppo: &ppo {clip_range: 0.1}\nhappo: {agent_order: fixed}\n"
    )
    assert resolve_agent(agents / "m_v1.yaml").agent.happo.agent_order == "fixed"
    (agents / "n_v1.yaml").write_text(
        "agent_id: n\nnetwork:\n  <<: {activation_fn: relu}\n  net_arch: [8]\n"
    )
    assert resolve_agent(agents / "n_v1.yaml").agent.network.activation_fn == "relu"


def test_a_path_with_brackets_is_a_path_and_a_link_keeps_its_name(agents, tmp_path):
    (tmp_path / "[lab]").mkdir()
    (tmp_path / "[lab]" / "demo_v1.yaml").write_text(BASE)
    assert len(sweep("[lab]/demo_v1.yaml")) == 1
    assert len(sweep(["agents/demo_v1.yaml", str(agents / "demo_v1.yaml")])) == 1
    (tmp_path / "elsewhere.yaml").write_text("gamma: 0.5\n")
    (agents / "demo_sweep_link.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    assert {a.agent.short_name for a in sweep("agents/*.yaml")} == {"demo_v1", "demo_link"}


def test_strings_from_snakemakes_config_option_are_parsed():
    data = {"a": {"b": "null", "c": ["1", "1e-3"], "d": "speaker_listener", "e": "x: [1"}}
    assert retyped(data) == {
        "a": {"b": None, "c": [1, 1e-3], "d": "speaker_listener", "e": "x: [1"}
    }


def faults_of(call) -> str:
    with pytest.raises(ConfigError) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("learning_rate: -1", "learning_rate = -1: must be greater than 0"),
        ("learning_rate: fast", "learning_rate = 'fast': must be a valid number"),
        ("learning_rate: true", "not true or false"),
        ("gamma: 1.5", "gamma = 1.5: must be less than or equal to 1"),
        ("gamma: .nan", "gamma = nan"),
        ("batch_size: 4096", "batch_size = 4096: must be at most n_steps"),
        ("algorithm: HAPO", "must be one of HAPPO, HATRPO, HAA2C, MAPPO, IPPO, MaskablePPO"),
        ("learnig_rate: 1e-3", "learnig_rate = 0.001: unknown key. Did you mean learning_rate?"),
        ("ppo.clip_range: 0.3", "must be written nested: ppo: {clip_range: …}"),
        ("clip_range: 0.3", "unknown key. Did you mean ppo.clip_range?"),
        ("network: {net_arch: [64, 0]}", "network.net_arch.1 = 0"),
        ("network: {activation_fn: swish}", "'leaky_relu', 'selu' or 'sigmoid'"),
        ("n_steps: 0", "n_steps = 0: must be greater than 0"),
        ("gamma: 0.9\ngamma: 0.8", "duplicate key 'gamma'"),
    ],
)
def test_a_fault_names_file_key_value_and_allowed_values(agents, line, expected):
    path = agents / "bad_v1.yaml"
    path.write_text(f"agent_id: bad\n{line}\n")
    message = faults_of(lambda: resolve_agent(path))
    assert expected in message
    assert "bad_v1.yaml" in message


def test_all_faults_of_all_files_are_reported_at_once(agents):
    (agents / "bad_v1.yaml").write_text("agent_id: bad\ngamma: 2\nlearning_rate: -1\n")
    (agents / "worse_v1.yaml").write_text("[1, 2]")
    (agents / "worst_v1.yaml").write_text("a: [1")
    message = faults_of(lambda: sweep("agents/*.yaml"))
    assert message.startswith("4 errors")
    assert "Config file must contain a dictionary/object: agents/worse_v1.yaml" in message
    assert "does not parse: agents/worst_v1.yaml" in message


def test_a_file_name_that_is_too_long(agents):
    name = "x" * 5000
    assert "File name too long" in faults_of(lambda: sweep(name))
    (agents / "demo_sweep_a.yaml").write_text(f"defaults: [{name}]\n")
    assert "Agent config file not found" in faults_of(lambda: sweep("agents/demo_sweep_a.yaml"))
    with pytest.raises(ConfigFileNotFoundError, match="the base of the variant"):
        resolve_agent(agents / "demo_sweep_a.yaml", base=Path(name))


def test_a_missing_config_is_a_file_not_found_error(agents):
    with pytest.raises(ConfigFileNotFoundError, match="Agent config file not found: agents/no"):
        sweep("agents/no.yaml")
    with pytest.raises(FileNotFoundError):
        sweep("agents/no.yaml")


def test_a_variant_without_base_names_the_file_that_is_missing(agents):
    (agents / "demo_sweep_a.yaml").write_text("agent_id: demmo\nsweep_variant: a\n")
    message = faults_of(lambda: sweep("agents/demo_sweep_*.yaml"))
    assert "demmo_v1.yaml, the base of the variant" in message
    assert "Did you mean demo_v1?" in message


def test_a_pattern_without_match_is_reported_with_the_files_in_its_folder(agents):
    message = faults_of(lambda: sweep("agents/ppo_*.yaml"))
    assert "matches no agent config" in message
    assert "demo_v1.yaml" in message


def test_two_configs_with_one_name_are_refused(agents):
    (agents / "copy_v1.yaml").write_text(BASE)
    message = faults_of(lambda: sweep("agents/*.yaml"))
    assert "agents/copy_v1.yaml, agents/demo_v1.yaml" in message


def test_file_name_and_variant_must_agree(agents):
    (agents / "demo_sweep_a.yaml").write_text("defaults: [demo_v1]\nsweep_variant: b\n")
    assert "must be a, as in the file name" in faults_of(lambda: sweep("agents/demo_sweep_a.yaml"))


def test_a_variant_of_a_variant_is_refused(agents):
    (agents / "demo_sweep_a.yaml").write_text("defaults: [demo_v1]\ngamma: 0.5\n")
    (agents / "demo_sweep_b.yaml").write_text("defaults: [demo_sweep_a]\ngamma: 0.6\n")
    assert "is itself a variant" in faults_of(lambda: sweep("agents/demo_sweep_b.yaml"))


def test_an_override_that_applies_to_no_config_is_refused(agents):
    (agents / "demo_sweep_a.yaml").write_text("defaults: [demo_v1]\ngamma: 0.5\n")
    message = faults_of(lambda: sweep("agents/demo_sweep_*.yaml", gamma=0.7))
    assert "gamma = 0.7: applies to no config of the sweep: demo_a sets it itself" in message
    # The base does not vary it, so with the base in the sweep it applies to one.
    assert len(sweep("agents/*.yaml", gamma=0.7)) == 2


def test_a_happo_override_does_not_apply_to_other_algorithms(agents):
    (agents / "ppo_v1.yaml").write_text("agent_id: ppo\nalgorithm: MaskablePPO\n")
    message = faults_of(lambda: sweep("agents/ppo_v1.yaml", happo={"agent_order": "fixed"}))
    assert "ppo_v1 is MaskablePPO, not HAPPO" in message


def test_params_file_faults_name_the_file(tmp_path):
    (tmp_path / "params.yaml").write_text("lerning_rate: 1\nsmoke: {seeds: [0, 0]}\n")
    message = faults_of(lambda: load_params(tmp_path))
    assert "params.yaml: lerning_rate = 1: unknown key. Did you mean learning_rate?" in message
    assert "smoke.total_frames" in message


def test_dvc_float_notation_is_a_number(tmp_path):
    (tmp_path / "params.yaml").write_text("learning_rate: 1e-05\n")
    assert load_params(tmp_path).learning_rate == 1e-5
