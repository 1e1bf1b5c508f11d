"""Checkpoints and interruptions leave no trace: the results are those of a run without them."""

from __future__ import annotations

import io
import itertools

import pytest
import torch
from attempts import Crash, crash_at, results, rows
from engine_config import TIC_TAC_TOE, make_config
from tensordict import assert_close
from text_config import make_text_config
from toy_environments import ToyBattle

from heteromark.environment.opponents.pool import OpponentPool
from heteromark.environment.pettingzoo import episodes
from heteromark.environment.pettingzoo.parallel import PettingZooParallelEnv
from heteromark.training.components import ComponentFactory
from heteromark.training.loop import train

ITERATIONS = 6
LONG = {"environment__kwargs": {"max_cycles": 150}}  # steps; an iteration has 32 per copy
TOY = "toy_environments:"
PAST = {"kind": "past_self", "pool_size": 2, "snapshot_interval": 1}
RUNS = {
    "short episodes": {},
    "an episode of all iterations": {"environment__kwargs": {"max_cycles": 500}},
    "gru": {"policy_type": "gru", **LONG},
    "gru, own critics": {"policy_type": "gru", "algorithm": "IPPO", **LONG},
    "collectors in processes": {"collector_type": "multi_sync", **LONG},
    "turns": TIC_TAC_TOE,
    "random opponent": {**TIC_TAC_TOE, "environment__opponent": {"kind": "random"}},
    "heuristic opponent": {**TIC_TAC_TOE, "environment__opponent": {"kind": "heuristic"}},
    "past policies": {**TIC_TAC_TOE, "environment__opponent": PAST},
    "recurrent past policies": {
        **TIC_TAC_TOE,
        "environment__opponent": PAST,
        "policy_type": "gru",
    },
    "action spaces": {"environment__task": f"{TOY}Sampler"},
    "global generators": {
        "environment__task": f"{TOY}GlobalDice",
        "environment__kwargs": {"length": 40},
    },
    "skirmish": {
        "env_type": "skirmish",
        "environment__task": None,
        "environment__skirmish": {"scenario": "10gen_terran"},
    },
}


def make(name: str, **changes):
    settings = {**RUNS[name], "training__num_epochs": 1, **changes}
    return make_config(**settings, training__total_frames=ITERATIONS * 64)


IN_SHORT_TIER = ("short episodes", "past policies")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in IN_SHORT_TIER else pytest.mark.slow) for n in RUNS],
)
def test_checkpoints_and_interruptions_change_nothing(name, tmp_path):
    train(make(name, training__checkpoint_interval=100), tmp_path / "whole")
    expected = results(tmp_path / "whole")[0]
    train(make(name), tmp_path / "checkpoints")
    assert results(tmp_path / "checkpoints")[0] == expected
    folder = tmp_path / "parts"
    for iteration in (3, 5):
        with pytest.raises(Crash):
            train(make(name), folder, on_progress=crash_at(iteration))
    assert not train(make(name), folder).notes
    assert results(folder) == results(tmp_path / "checkpoints")


@pytest.mark.mostly_slow(1)
@pytest.mark.parametrize("name", ["past policies", "an episode of all iterations"])
def test_a_run_may_resume_with_another_number_of_workers(name, tmp_path):
    train(make(name), tmp_path / "whole")
    for workers, iteration in ((2, 3), (0, 5), (1, None)):
        config = make(name, environment__num_workers=workers)
        if iteration is None:
            assert not train(config, tmp_path / "parts").notes
        else:
            with pytest.raises(Crash):
                train(config, tmp_path / "parts", on_progress=crash_at(iteration))
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


def test_long_episodes_end_whatever_the_checkpoint_interval(tmp_path):
    """Two copies of 96-step episodes, 32 steps per iteration."""
    config = make_config(
        environment__kwargs={"max_cycles": 96},
        training__total_frames=6 * 64,
        training__checkpoint_interval=1,
    )
    train(config, tmp_path)
    assert [row["episodes"] for row in rows(tmp_path)] == ["0", "0", "2", "0", "0", "2"]


@pytest.mark.parametrize("algorithm", ["GRPO", "AT-GRPO"])
def test_language_models_resume_exactly(algorithm, tmp_path):
    def config(interval):
        return make_text_config(
            algorithm, training__total_frames=64, training__checkpoint_interval=interval
        )

    train(config(100), tmp_path / "whole")
    with pytest.raises(Crash):
        train(config(1), tmp_path / "parts", on_progress=crash_at(3))
    train(config(1), tmp_path / "parts")
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


def test_an_episode_that_does_not_repeat_is_replaced(tmp_path, caplog):
    config = make_config(
        environment__task=f"{TOY}Sampler",
        environment__kwargs={"is_seeded": False, "length": 50},
        training__total_frames=4 * 64,
    )
    with pytest.raises(Crash):
        train(config, tmp_path, on_progress=crash_at(3))
    (note,) = train(config, tmp_path).notes
    assert note == (
        "resumed after iteration 2 with new episodes in 2 of 2 copies; copy 0: the same seed and "
        "actions led to other outputs"
    )
    assert note in caplog.text


def play(env, outputs, steps):
    """Step with the third action, which is legal for all but the healer, which takes the first."""
    taken = []
    for _ in range(steps):
        outputs["archer", "action"] = torch.full((2, 2), 2)
        outputs["healer", "action"] = torch.zeros(2, 1, dtype=torch.int64)
        stepped, outputs = env.step_and_maybe_reset(outputs)
        taken.append(stepped["next"])
    return torch.stack(taken, 1), outputs


def test_every_episode_has_a_seed_of_its_own():
    """So an episode does not depend on those before it."""
    env = PettingZooParallelEnv(ToyBattle, 2)
    env.reseed(0)
    whole, _ = play(env, env.reset(), 20)
    noise = whole["archer", "observation"][0, :, 0, 2]
    assert len(set(noise.tolist())) == 20
    env.reseed(0)
    outputs = env.reset()  # the first copy skips the rest of its first episode
    outputs["_reset"] = torch.tensor([[True], [False]])
    again, _ = play(env, env.reset(outputs), 4)
    assert torch.equal(
        again["archer", "observation"][0, :4, 0, 2], whole["archer", "observation"][0, 5:9, 0, 2]
    )


def test_an_episode_too_long_to_play_again_is_replaced(monkeypatch):
    monkeypatch.setattr(episodes, "_MAX_BYTES", 20 * (2 + 2 * 3 * 8))
    for length, lost in ((18, {}), (40, {0: "the episode is too long to play again"})):
        env = PettingZooParallelEnv(lambda length=length: ToyBattle(length=length), 2)
        env.reseed(0)
        _, outputs = play(env, env.reset(), 30)
        saved = env.running_episodes()
        expected, _ = play(env, outputs, 5)
        env.reseed(0)
        env.reset()
        outputs, found = env.continue_episodes(saved)
        assert found == dict.fromkeys((0, 1) if lost else (), *lost.values())
        if not lost:
            assert_close(play(env, outputs, 5)[0], expected, rtol=0, atol=0)
        else:
            assert (outputs["step_count"] == 0).all()


def test_a_checkpoint_holds_the_actions_once():
    env = PettingZooParallelEnv(lambda: ToyBattle(length=100), 2)
    play(env, env.reset(), 90)
    buffer = io.BytesIO()
    torch.save(env.running_episodes(), buffer)
    actions = 2 * 90 * 3 * 8  # bytes
    assert buffer.tell() < 3 * actions + 10_000


def test_a_log_keeps_only_what_running_episodes_need():
    env = PettingZooParallelEnv(ToyBattle, 2)
    play(env, env.reset(), 5 * 4 + 2)
    assert [len(each[1]) for each in env.running_episodes()["copies"]] == [2, 2]
    assert len(env._copies._log._entries) == 2


def test_an_opponent_stays_to_the_end_of_its_episode(monkeypatch):
    """Even if the pool drops it meanwhile."""
    components = ComponentFactory(make("past policies", environment__num_parallel_envs=8)).create()
    pool, draw = components.learner.opponent_pool, OpponentPool._draw
    drawn = []

    def watched(*arguments):
        drawn.append((arguments[1], draw(*arguments).copy()))
        return drawn[-1][1]

    monkeypatch.setattr(OpponentPool, "_draw", watched)
    components.collector.restart(0, "training")
    for _ in range(4):
        pool.add(components.learner.actors)
        components.collector.collect()
    for (_, before), (begins, after) in itertools.pairwise(drawn):
        assert (before[~begins] == after[~begins]).all()
    assert {number for _, playing in drawn for number in playing.tolist()} >= {0, 1, 2, 3}
    assert len(pool) == 2
