"""Teams and start positions have SMACv2's distributions."""

from __future__ import annotations

from dataclasses import replace
from math import comb
from types import SimpleNamespace

import pytest
import torch

from heteromark.config.models.skirmish import SkirmishConfig
from heteromark.environment.skirmish.battles import Battles
from heteromark.environment.skirmish.randomness import hashed, uniform
from heteromark.environment.skirmish.starts import draw_places

BATTLES = 20_000


def opened(**settings):
    """Return many battles, and the types and start positions of their units."""
    battles = Battles(SkirmishConfig(**settings), BATTLES)
    battles.reseed(range(BATTLES))
    battles.reset()
    units = battles.moment.units
    return battles, SimpleNamespace(kind=battles.episode.roster.kind, x=units.x, y=units.y)


def test_random_numbers_are_uniform_and_independent():
    draws = uniform(torch.arange(100_000), 7, torch.arange(4)[:, None])
    assert ((draws >= 0) & (draws < 1)).all()
    counts = torch.histc(draws, 100, 0, 1)
    expected = draws.numel() / 100
    assert ((counts - expected) ** 2 / expected).sum() < 160, "chi square, 99 degrees of freedom"
    of_neighbours = torch.cat([draws, draws.roll(1, 1)])
    correlation = torch.corrcoef(of_neighbours) - torch.eye(8)
    assert correlation.abs().max() < 0.015


def test_the_hash_is_lowbias32():
    # the published generator: hash32(x) with x = (start ^ word) + start
    def lowbias32(x):
        x = (x ^ (x >> 16)) * 0x7FEB352D % 2**32
        x = (x ^ (x >> 15)) * 0x846CA68B % 2**32
        return x ^ (x >> 16)

    words = torch.tensor([0, 1, 12345, 2**32 - 1])
    expected = [lowbias32(((0x9E3779B9 ^ int(word)) + 0x9E3779B9) % 2**32) for word in words]
    assert hashed(words).tolist() == expected


@pytest.mark.parametrize(
    ("scenario", "weights"),
    [
        ("10gen_terran", {"marine": 0.45, "marauder": 0.45, "medivac": 0.1}),
        ("10gen_protoss", {"stalker": 0.45, "zealot": 0.45, "colossus": 0.1}),
        ("10gen_zerg", {"zergling": 0.45, "hydralisk": 0.45, "baneling": 0.1}),
    ],
)
def test_teams_follow_their_weights_and_both_sides_are_equal(scenario, weights):
    battles, opening = opened(scenario=scenario)
    ours, theirs = opening.kind[:5], opening.kind[5:]
    for number, name in enumerate(battles.scenario.types):
        share = float((theirs == number).float().mean())
        assert share == pytest.approx(weights[name], abs=0.006)
    assert torch.equal(ours.sort(0).values, theirs.sort(0).values)


def test_a_team_never_consists_of_medivacs_only():
    # with two units, 1 of 100 teams would; of the other 99, 18 have one medivac
    _, opening = opened(scenario="10gen_terran", n_units=2)
    medivacs = (opening.kind[:2] == 2).sum(0)
    assert medivacs.max() == 1
    assert float((medivacs == 1).float().mean()) == pytest.approx(18 / 99, abs=0.01)
    first = (opening.kind[2] == 2).float().mean()
    second = (opening.kind[3] == 2).float().mean()
    assert float(first - second) == pytest.approx(0, abs=0.01), "neither slot is preferred"


def test_more_or_fewer_enemies_than_agents():
    _, more = opened(scenario="10gen_terran", n_units=5, n_enemies=7)
    assert more.kind.shape == (12, BATTLES)
    assert float((more.kind[10:] == 0).float().mean()) == pytest.approx(0.45, abs=0.01)
    assert not (more.kind[10:] == 2).all(0).any()
    _, fewer = opened(scenario="10gen_zerg", n_units=5, n_enemies=3)
    assert fewer.kind.shape == (8, BATTLES)


def test_agents_are_sorted_by_type_name_then_by_position():
    _, opening = opened(scenario="10gen_terran")
    rank = torch.tensor([1, 0, 2])[opening.kind[:5]]  # marauder, marine, medivac
    assert (rank.diff(dim=0) >= 0).all()
    same = rank.diff(dim=0) == 0
    assert (opening.x[:5].diff(dim=0)[same] >= 0).all()


def test_reflected_starts_are_mirrored():
    _, opening = opened(scenario="10gen_protoss", start="reflect")
    ours = torch.stack([opening.x[:5], opening.y[:5]])
    theirs = torch.stack([32 - opening.x[5:], opening.y[5:]])
    for axis in (0, 1):
        assert torch.equal(ours[axis].sort(0).values, theirs[axis].sort(0).values)
    assert ours[0].max() <= 15
    assert float(ours[0].mean()) == pytest.approx(7.5, abs=0.05)
    assert float(ours[1].mean()) == pytest.approx(16, abs=0.1)
    assert ours[1].min() < 0.1
    assert ours[1].max() > 31.9


def test_surrounded_agents_are_in_the_centre_and_enemies_on_diagonals():
    battles, _ = opened(scenario="10gen_zerg", start="surrounded")
    key = hashed(torch.arange(BATTLES), 0)
    # units without width start at points instead of on spirals
    types = tuple(replace(unit, radius=0.0) for unit in battles._types)
    x, y = draw_places(key, battles.scenario, types, torch.float64)
    assert (x[:5] == 16).all()
    assert (y[:5] == 16).all()
    dx, dy = (x[5:] - 16).abs(), (y[5:] - 16).abs()
    assert ((dx - dy).abs() < 1e-3).all(), "on a diagonal"
    assert dx.min() > 1.99
    assert dx.max() <= 16
    assert float(dx.mean()) == pytest.approx((2 + 16) / 2, abs=0.1)
    corner = (x[5:] > 16) * 2 + (y[5:] > 16) * 1
    groups = torch.stack([(corner == number).any(0) for number in range(4)]).sum(0)
    # with 1 to 4 groups, equally likely: the distribution of the number of non-empty groups
    seen = torch.bincount(groups, minlength=5)[1:] / BATTLES
    expected = torch.zeros(4)
    for available in range(1, 5):
        for number in range(1, available + 1):
            expected[number - 1] += 0.25 * surjections(5, available, number)
    assert (seen - expected).abs().max() < 0.012
    quarter = torch.bincount(corner.flatten(), minlength=4) / corner.numel()
    assert (quarter - 0.25).abs().max() < 0.01


def surjections(members, groups, occupied):
    """Return the probability that members choosing among `groups` occupy exactly `occupied`."""
    onto = sum(
        (-1) ** k * comb(occupied, k) * (occupied - k) ** members for k in range(occupied + 1)
    )
    return comb(groups, occupied) * onto / groups**members


def test_both_kinds_of_start_are_equally_likely():
    _, opening = opened(scenario="10gen_terran")
    surrounded = (opening.x[:5].max(0).values > 15).float().mean()
    assert float(surrounded) == pytest.approx(0.5, abs=0.012)


def test_units_start_apart():
    battles, opening = opened(scenario="1c3s5z")
    room = battles.episode.pairs.room[..., 0]
    x, y = opening.x[:, :500], opening.y[:, :500]
    gap = ((x[:, None] - x) ** 2 + (y[:, None] - y) ** 2).sqrt()
    # the edge of the map compresses clusters
    inside = ((x > 0.1) & (x < 31.9) & (y > 0.1) & (y < 31.9)).all(0)
    assert inside.float().mean() > 0.5
    overlap = (room.unsqueeze(-1) - gap)[..., inside]
    assert overlap.max() < 0.01


def test_each_battle_plays_the_episodes_of_its_seed_in_order():
    """Regardless of which battles are reset together, and of steps in between."""
    battles = Battles(SkirmishConfig(scenario="10gen_zerg"), 4)
    battles.reseed(range(4))
    in_order = []
    for _ in range(7):
        view = battles.reset()
        in_order.append((battles.moment.units.x, view.observation, view.state))
    battles.reseed(range(4))
    battles.reset()
    number = torch.zeros(4, dtype=torch.int64)
    for where in ("1000", "1000", "0110", "1111", "1000", "0000", "0110", "1001"):
        chosen = torch.tensor([c == "1" for c in where])
        before = battles.moment.units.x
        view = battles.reset(chosen)
        number += chosen
        assert torch.equal(battles.moment.units.x[:, ~chosen], before[:, ~chosen])
        for i in chosen.nonzero()[:, 0].tolist():
            x, observation, state = in_order[number[i]]
            assert torch.equal(battles.moment.units.x[:, i], x[:, i])
            assert torch.equal(view.observation[i], observation[i])
            assert torch.equal(view.state[i], state[i])
            assert int(battles.moment.steps[i]) == 0
        battles.step(torch.ones(4, 5, dtype=torch.int64))
