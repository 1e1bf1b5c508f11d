"""A run's digest: which settings change it and which do not."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from heteromark.config.compose.composition import compose_run, parse_overrides
from heteromark.config.models.agent import AgentConfig
from heteromark.config.models.params import ProjectParams
from heteromark.config.rules.effect import ineffective_key_faults
from heteromark.runs import digest
from heteromark.runs.digest import config_digest, run_digest

ROOT = Path(__file__).parents[2]


SPEAKER_LISTENER = {"sweep": {"environment": "speaker_listener"}}


def config(agent=None, params=None, mode="smoke", seed=0, **overrides):
    return compose_run(
        AgentConfig.model_validate({"agent_id": "demo", **(agent or {})}),
        ProjectParams.model_validate({**SPEAKER_LISTENER, **(params or {})}),
        mode,
        seed,
        ROOT,
        overrides,
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"agent": {"learning_rate": 1e-4}},
        {"agent": {"ppo": {"clip_range": 0.1}}},
        {"agent": {"algorithm": "MAPPO"}},
        {"seed": 1},
        {"mode": "full"},
        {"training": {"total_frames": 4096}},
        {"environment": {"kwargs": {"max_cycles": 10}}},
        {"evaluation": {"episodes": 7}},
        {"params": {"device": "cpu"}},
    ],
)
def test_settings_that_change_the_result_change_the_digest(changed):
    assert run_digest(config(**changed)) != run_digest(config())


@pytest.mark.parametrize(
    "agent",
    [
        {"agent_id": "other"},
        {"name": "Another name"},
        {"description": "Another text"},
        {"sweep_variant": "x"},
        {"version": 2},
        {"learning_rate": "3e-4"},
    ],
)
def test_names_and_spelling_do_not_change_the_digest(agent):
    assert run_digest(config(agent)) == run_digest(config())


def test_the_digest_does_not_depend_on_where_a_value_is_set():
    by_agent, by_component = (
        config({"learning_rate": 1e-4}),
        config(optimizer={"learning_rate": 1e-4}),
    )
    assert run_digest(by_agent) == run_digest(by_component)


TEAM = "policy.critic=team"
OWN = "extensions.mine:make"

# A value, settings with which it has no effect, and settings with which it has one.
IDLE = [
    ("environment.group_by=agent", "environment.groups={a: [speaker_0, listener_0]}", ""),
    ("environment.opponent.heuristic=places:play", "", "environment.opponent.kind=heuristic"),
    ("environment.opponent.heuristic=places:play", "", "evaluation.opponent=heuristic"),
    ("environment.opponent.pool_size=3", "", "environment.opponent.kind=past_self"),
    ("environment.opponent.seat=first", "", "environment.opponent.kind=random"),
    ("environment.opponent.seat=first", "", "evaluation.opponent=random"),
    (
        "environment.opponent.seat=first",
        "evaluation.opponent=random evaluation.seat=second",
        "evaluation.opponent=random evaluation.seat=null",
    ),
    ("environment.smac.episode_limit=9", "", "env_type=smac"),
    ("environment.smac.episode_limit=9", "", "env_type=custom"),
    ("environment.state=true", "policy.critic=own", "policy.critic=team"),
    ("environment.state=true", "policy.critic=own", f"policy.critic=own policy_type={OWN}"),
    ("environment.state=true", f"{TEAM} policy.critic_input=observations", TEAM),
    ("policy.critic_input=observations", "policy.critic=own", "policy.critic=team env_type=custom"),
    ("policy.gru.hidden_size=8", "", f"policy_type={OWN}"),
    ("policy.gru.hidden_size=8", "", "policy.groups={listener: {policy_type: gru}}"),
    ("loss.agent_order=fixed", "", "algorithm=HAPPO"),
    ("loss.agent_order=fixed", "", f"algorithm={OWN}"),
    ("loss.action_aggregation=mean", "", "algorithm=HAPPO"),
    ("loss.huber_delta=1.0", "loss.critic_loss=l2", "loss.critic_loss=huber"),
    ("loss.huber_delta=1.0", "loss.critic_loss=l2", f"loss.critic_loss=l2 loss_type={OWN}"),
    ("optimizer.momentum=0.5", "optimizer_type=adam", "optimizer_type=sgd"),
    ("optimizer.momentum=0.5", "optimizer_type=adamw", "optimizer_type=rmsprop"),
    ("optimizer.momentum=0.5", "optimizer_type=adam", f"optimizer_type={OWN}"),
    (
        "optimizer.nesterov=true",
        "optimizer.momentum=0.9 optimizer_type=rmsprop",
        "optimizer.momentum=0.9 optimizer_type=sgd",
    ),
    ("optimizer.alpha=0.5", "optimizer_type=sgd", "optimizer_type=rmsprop"),
    ("optimizer.eps=0.1", "optimizer_type=sgd", "optimizer_type=adam"),
    ("collector.num_collectors=4", "", "collector_type=multi_sync"),
    ("evaluation.seat=first", "", "environment.opponent.kind=random"),
]


def independent(text: str, *more: str):
    """Return the config of a run of independent learners with `key=value` settings."""
    words = re.findall(r"\S+=(?:{.*}|\S+)", " ".join((text, *more)))
    nested = parse_overrides(words)
    agent = {"algorithm": nested.pop("algorithm", "MaskablePPO")}
    return config(agent, **nested)


@pytest.mark.parametrize(("given", "idle", "acting"), IDLE)
def test_keys_without_effect_are_not_in_the_digest(given, idle, acting):
    assert run_digest(independent(idle, given)) == run_digest(independent(idle))
    assert run_digest(independent(acting, given)) != run_digest(independent(acting))


@pytest.mark.parametrize(("given", "idle", "acting"), IDLE)
def test_setting_a_key_without_effect_is_a_fault(given, idle, acting):
    key, _, _ = given.partition("=")
    (fault,) = ineffective_key_faults(independent(idle, given), {key: 1}, "--set")
    assert re.match(r"has no effect: .*; set \S+", fault.message)
    assert not ineffective_key_faults(independent(acting, given), {key: 1}, "--set")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("policy.critic=auto", "policy.critic=own"),
        ("policy.critic=auto algorithm=MAPPO", "policy.critic=team algorithm=MAPPO"),
        ("algorithm=MAPPO", "algorithm=MAPPO policy.critic_input=observations"),
        (
            "algorithm=MAPPO environment.state=true",
            "algorithm=MAPPO environment.state=true policy.critic_input=state",
        ),
        ("optimizer.critic_learning_rate=null", "optimizer.critic_learning_rate=3e-4"),
        ("training.checkpoint_interval=1", "training.checkpoint_interval=2"),
        ("evaluation.interval=1000", "evaluation.interval=2000"),
        ("environment.episode_length=7", "environment.episode_length=8"),
    ],
)
def test_equivalent_values_give_the_same_digest(one, other):
    assert run_digest(independent(one)) == run_digest(independent(other))


def test_seeds_of_one_config_share_the_config_digest():
    assert config_digest(config(seed=0)) == config_digest(config(seed=1))
    assert config_digest(config()) != config_digest(config({"gamma": 0.5}))


def test_the_build_of_a_version_is_ignored(monkeypatch):
    def digest_with(torch):
        monkeypatch.setattr(digest, "versions", lambda: {"torch": torch})
        return run_digest(config())

    assert digest_with("2.13.0+cpu") == digest_with("2.13.0+cu130") == digest_with("2.13.0")
    assert digest_with("2.13.1") != digest_with("2.13.0")


def test_digests_are_the_same_in_another_process():
    code = (
        "from tests.runs.test_digest import config, run_digest; print(run_digest(config(seed=4)))"
    )
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert output.strip() == run_digest(config(seed=4))


def test_the_size_of_the_hidden_state_counts_only_for_recurrent_networks():
    def digest(network, size):
        agent = {"network": {"policy": network}}
        return run_digest(config(agent, policy={"gru": {"hidden_size": size}}))

    assert digest("MlpPolicy", 8) == digest("MlpPolicy", 16)
    assert digest("GruPolicy", 8) != digest("GruPolicy", 16)
    assert digest("own.network:make", 8) != digest("own.network:make", 16)


def test_the_budget_is_counted_in_whole_iterations():
    digests = [run_digest(config(training={"total_frames": f})) for f in (1, 2048, 2049)]
    assert digests[0] == digests[1] != digests[2]


def test_an_opponent_is_identified_by_the_content_of_its_checkpoint(tmp_path):
    def digest(content: bytes | None, name: str) -> str:
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        skirmish = {"opponent": "policy", "checkpoint": str(path)}
        params = {"sweep": {"environment": "skirmish"}}
        return run_digest(config(params=params, environment={"skirmish": skirmish}))

    first = digest(b"weights", "a.pt")
    assert digest(b"weights", "b.pt") == first
    assert len({first, digest(b"others", "c.pt"), digest(None, "d.pt")}) == 3


def test_a_package_that_only_the_arguments_name_is_part_of_the_identity(monkeypatch):
    """Otherwise a new version of Level-Based Foraging would find the runs of the old one."""
    from engine_config import make_config  # not at the top: another process imports this module

    config = make_config(
        environment__task="heteromark.environment.pettingzoo.gymnasium_team:make",
        environment__kwargs={"id": "mpe2:Anything-v0"},
    )
    before = run_digest(config)
    monkeypatch.setattr("heteromark.runs.digest.version_of", lambda module: f"{module} 99")
    assert run_digest(config) != before
