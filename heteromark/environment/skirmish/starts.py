"""Teams and positions at the start of an episode."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from heteromark.environment.skirmish.mechanics import on_grid, on_map
from heteromark.environment.skirmish.randomness import uniform
from heteromark.environment.skirmish.scenarios import MAP_SIZE, RandomTeams, Scenario
from heteromark.environment.skirmish.units import UnitType

_CENTRE = MAP_SIZE / 2
_GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))
# the outer ends of the four diagonals, and the inner ends' distance from the centre along x and y
_CORNERS = ((0.0, 0.0), (0.0, MAP_SIZE), (MAP_SIZE, MAP_SIZE), (MAP_SIZE, 0.0))
_NEAR_CENTRE = 2.0
# purposes of random numbers
_ALLIES, _EXTRA, _COIN, _PLACE_X, _PLACE_Y, _GROUPS, _MEMBERS, _ALONG, _DIAGONAL = range(9)


def draw_teams(key: Tensor, scenario: Scenario) -> Tensor:
    """Return the types of all units, int64 [U, B], or [U, 1] with fixed teams; agents unsorted.

    The enemies are a copy of the agents' team; additional enemies are drawn from the same
    distribution.

    Args:
        key: int64 [B], keys of the episodes.
        scenario: the teams.
    """
    number_of = {name: number for number, name in enumerate(scenario.types)}
    if not isinstance(scenario.teams, RandomTeams):
        kinds = [number_of[name] for side in scenario.teams for name in side]
        return torch.tensor(kinds, device=key.device).unsqueeze(1)
    allies = _draw_team(key, _ALLIES, scenario.n_agents, scenario.teams, number_of)
    extra = scenario.n_enemies - scenario.n_agents
    enemies = allies[: scenario.n_enemies]
    if extra > 0:
        others = _draw_team(key, _EXTRA, extra, scenario.teams, number_of)
        enemies = torch.cat([enemies, others])
    return torch.cat([allies, enemies])


def _draw_team(
    key: Tensor, purpose: int, size: int, teams: RandomTeams, number_of: dict[str, int]
) -> Tensor:
    """Return the types of one team, int64 [size, B].

    The distribution is that of redrawing teams that consist only of `not_alone` types. No redraw is
    needed: while all units so far have such types, the next one is drawn with its probability
    conditional on the whole team being allowed.
    """
    refused = sum(teams.weights[name] for name in teams.not_alone)
    # probability of such a type in slot k, given that all slots before it have such types
    given = [
        refused * (1 - refused ** (size - 1 - k)) / (1 - refused ** (size - k)) for k in range(size)
    ]
    device = key.device
    slot = torch.arange(size, device=device)[:, None]
    drawn = uniform(key, purpose, slot, dtype=torch.float64)
    among = uniform(key, purpose, slot + size, dtype=torch.float64)
    still = drawn < torch.tensor(given, dtype=torch.float64, device=device)[:, None]
    only_refused = torch.cat([still[:1] | True, still[:-1]]).to(torch.int8).cumprod(0) > 0
    is_refused = torch.where(only_refused, still, drawn < refused)
    allowed = [name for name in teams.weights if name not in teams.not_alone]
    return torch.where(
        is_refused,
        _choice(among, teams.not_alone, teams, number_of),
        _choice(among, allowed, teams, number_of),
    )


def _choice(
    share: Tensor, names: tuple[str, ...] | list[str], teams: RandomTeams, number_of: dict[str, int]
) -> Tensor:
    """Return the index of a name drawn by weight; `share` is uniform from 0 to 1."""
    total = sum(teams.weights[name] for name in names)
    chosen = torch.zeros_like(share, dtype=torch.int64)
    below = 0.0
    for name in names:
        chosen = torch.where(share >= below, number_of[name], chosen)
        below += teams.weights[name] / total
    return chosen


def sorted_agents(kind: Tensor, x: Tensor, y: Tensor, scenario: Scenario) -> tuple[Tensor, ...]:
    """Sort the agents as SMACv2 does: by type name, then x, then y."""
    n, device = scenario.n_agents, x.device
    alphabet = sorted(scenario.types)
    ranks = torch.tensor([alphabet.index(name) for name in scenario.types], device=device)
    kind = kind.expand_as(x)
    number = torch.arange(n, device=device)[:, None]
    keys = (ranks[kind[:n]], x[:n], y[:n], number.expand(n, x.shape[1]))
    before = torch.zeros(n, n, x.shape[1], dtype=torch.bool, device=device)
    for key in reversed(keys):
        mine, other = key.unsqueeze(1), key.unsqueeze(0)
        before = (other < mine) | ((other == mine) & before)
    place = before.sum(1)
    takes = place.unsqueeze(0) == number.unsqueeze(1)  # [new slot, old slot, B]

    def moved(values: Tensor) -> Tensor:
        return torch.cat([(takes * values[:n]).sum(1, dtype=values.dtype), values[n:]])

    return moved(kind), moved(x), moved(y)


def draw_places(
    key: Tensor, scenario: Scenario, types: tuple[UnitType, ...], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the start positions of all units, x and y, each [U, B] on the grid of positions.

    Units of one cluster stand on a sunflower spiral around its centre, so that none overlap.

    Args:
        key: int64 [B], keys of the episodes.
        scenario: the teams and their start.
        types: the scenario's unit types, for their size.
        dtype: of the positions.
    """
    widest = max(unit.room for unit in types)
    spiral = _spiral(scenario.n_units, widest).to(key.device, dtype)
    makers = {"facing": _facing, "reflect": _reflected, "surrounded": _surrounded}
    if scenario.start in makers:
        x, y = makers[scenario.start](key, scenario, spiral)
    else:
        heads = uniform(key, _COIN) > 0.5
        pairs = zip(
            _surrounded(key, scenario, spiral), _reflected(key, scenario, spiral), strict=True
        )
        x, y = (torch.where(heads, one, other) for one, other in pairs)
    return on_map(on_grid(x)), on_map(on_grid(y))


def _spiral(number: int, widest: float) -> Tensor:
    """Return points [2, number] around (0, 0), spaced by the width of the widest unit."""
    k = torch.arange(number, dtype=torch.float64)
    radius, angle = 2 * widest * k.sqrt(), _GOLDEN_ANGLE * k
    return on_grid(torch.stack([radius * angle.cos(), radius * angle.sin()]))


def _draw(key: Tensor, purpose: int, rows: int, dtype: torch.dtype) -> Tensor:
    return uniform(key, purpose, torch.arange(rows, device=key.device)[:, None], dtype=dtype)


def _facing(key: Tensor, scenario: Scenario, spiral: Tensor) -> tuple[Tensor, Tensor]:
    """Place the agents in a cluster on the left, the enemies mirrored, 4 to 16 units apart."""
    n, m = scenario.n_agents, scenario.n_enemies
    widest = spiral[:, : max(n, m)].norm(dim=0).max()
    x = on_grid(_CENTRE - 2 - widest - 6 * _draw(key, _PLACE_X, 1, spiral.dtype))
    y = 8 + 16 * _draw(key, _PLACE_Y, 1, spiral.dtype)
    offset_x, offset_y = spiral.unsqueeze(-1)
    mirrored = MAP_SIZE - (x + offset_x[:m])
    return torch.cat([x + offset_x[:n], mirrored]), torch.cat([y + offset_y[:n], y + offset_y[:m]])


def _reflected(key: Tensor, scenario: Scenario, spiral: Tensor) -> tuple[Tensor, Tensor]:
    """Place agents anywhere left and enemies mirrored; additional enemies anywhere right."""
    n, m = scenario.n_agents, scenario.n_enemies
    rows = max(n, m)
    share = _draw(key, _PLACE_X, rows, spiral.dtype)
    y = _draw(key, _PLACE_Y, rows, spiral.dtype) * MAP_SIZE
    x = on_grid(share[:n] * (_CENTRE - 1))
    further = MAP_SIZE - share[n:] * _CENTRE
    return torch.cat([x, MAP_SIZE - x[:m], further[: max(m - n, 0)]]), torch.cat([y[:n], y[:m]])


def _surrounded(key: Tensor, scenario: Scenario, spiral: Tensor) -> tuple[Tensor, Tensor]:
    """Place agents in the centre and enemies in one to four clusters, on different diagonals."""
    n, m = scenario.n_agents, scenario.n_enemies
    dtype, device = spiral.dtype, key.device
    groups = (uniform(key, _GROUPS) * 4).to(torch.int64) + 1  # [B]
    member = (_draw(key, _MEMBERS, m, torch.float64) * groups).to(torch.int64)  # [m, B]
    along = _draw(key, _ALONG, 4, dtype)
    # the ranks of four random numbers are a random order of the diagonals
    turn = _draw(key, _DIAGONAL, 4, torch.float64)
    diagonal = (turn.unsqueeze(0) < turn.unsqueeze(1)).sum(1)  # [4, B]
    number = torch.arange(m, device=device)[:, None]
    x = torch.zeros(m, key.shape[0], dtype=dtype, device=device)
    y = torch.zeros_like(x)
    begins = torch.zeros_like(groups)
    rank = torch.zeros_like(member)
    for group in range(4):
        ends = begins + (member == group).sum(0)
        inside = (number >= begins) & (number < ends)
        corner_x, corner_y = (
            torch.tensor(side, dtype=dtype, device=device)[diagonal[group]]
            for side in zip(*_CORNERS, strict=True)
        )
        near_x, near_y = (
            _CENTRE + torch.sign(corner - _CENTRE) * _NEAR_CENTRE for corner in (corner_x, corner_y)
        )
        t = along[group]
        x = torch.where(inside, t * near_x + (1 - t) * corner_x, x)
        y = torch.where(inside, t * near_y + (1 - t) * corner_y, y)
        rank = torch.where(inside, number - begins, rank)
        begins = ends
    offset_x, offset_y = spiral
    centre = torch.full((1, key.shape[0]), _CENTRE, dtype=dtype, device=device)
    return (
        torch.cat([centre + offset_x[:n, None], x + offset_x[rank]]),
        torch.cat([centre + offset_y[:n, None], y + offset_y[rank]]),
    )
