"""A small battle with the SMAC API whose numbers can be calculated by hand."""

from __future__ import annotations

import random
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import gymnasium
import numpy as np

WIDTH, HEIGHT = 12.0, 8.0
SIGHT = 6.0
STOP, NORTH, SOUTH, EAST, WEST, FIRST_TARGET = range(1, 7)
MOVES = {NORTH: (0, 1), SOUTH: (0, -1), EAST: (1, 0), WEST: (-1, 0)}
KILL, VICTORY = 10, 20


@dataclass(frozen=True)
class Kind:
    """Health, damage per step (of a medivac: healing), and range of both."""

    id: int
    health: int
    damage: int
    reach: float


KINDS = {
    "marauder": Kind(101, 8, 2, 4.0),
    "marine": Kind(102, 4, 1, 3.0),
    "medivac": Kind(103, 6, 1, 3.0),
}


class Unit:
    def __init__(self, name, position):
        self.name, self.kind = name, KINDS[name]
        self.position = np.array(position, float)
        self.health = self.kind.health

    @property
    def unit_type(self):
        return self.kind.id

    def reaches(self, other):
        return np.linalg.norm(self.position - other.position) <= self.kind.reach


class Battle:
    """Allies against an equal number of marines, on an open map.

    Actions: 0 no-op (the only one for dead units), 1 stop, 2-5 move by 1 (north, south, east, west;
    not over the edge), 6 + k: shoot enemy k, or for a medivac: heal ally k, which must not be a
    medivac. Targets must be alive and in range. Afterwards every living enemy shoots the nearest
    ally, or moves by 1 towards it if it is out of range.

    Observation: the unit's own [x, y, health], then [dx, dy, health] of each enemy and each ally
    (including itself), zeros beyond the range of sight; all zeros for dead units. State: [x, y,
    health] of all units, zeros for dead ones. Reward: damage dealt, 10 per kill and 20 for a win.

    Args:
        units: the allies' types.
        distance: between the two lines at the start.
        jitter: maximum random offset of the start positions.
        episode_limit: steps until time runs out.
        continuing_episode: report timeouts in the info, as in SMAC.
        random_team: redraw the allies in every episode.
        says_so: report random teams, as SMACv2 does.
        crash_at: step at which the game crashes and restarts, as in SMAC.
        strict: illegal actions raise; otherwise they are no-ops.
        seed: as in SMAC, only accepted by the constructor; None: unseeded.
    """

    marauder_id: ClassVar = 101
    marine_id: ClassVar = 102
    medivac_id: ClassVar = 103
    zealot_id: ClassVar = 0  # as in SMAC: not of this race

    def __init__(
        self,
        units=("marine", "marine", "medivac"),
        distance=4.0,
        jitter=0.4,
        episode_limit=20,
        continuing_episode=True,
        random_team=False,
        says_so=True,
        crash_at=None,
        strict=True,
        seed=None,
    ):
        self.units, self.distance, self.jitter = list(units), distance, jitter
        self.episode_limit, self.continuing_episode = episode_limit, continuing_episode
        self.random_team, self.replace_teammates = random_team, random_team and says_so
        self.crash_at, self.force_restarts, self.strict = crash_at, 0, strict
        self.n_agents = self.n_enemies = len(self.units)
        self.n_actions = FIRST_TARGET + self.n_agents
        self.agents, self.enemies = {}, {}
        self.closed = False
        self._seed = seed
        self.rng = np.random.default_rng(seed)

    def seed(self):
        return self._seed

    def close(self):
        self.closed = True

    def get_env_info(self):
        return {
            "n_agents": self.n_agents,
            "n_actions": self.n_actions,
            "obs_shape": 3 + 6 * self.n_agents,
            "state_shape": 6 * self.n_agents,
            "episode_limit": self.episode_limit,
        }

    def reset(self):
        self.steps = 0
        names = self._draw_team() if self.random_team else self.units
        self.agents = self._line_up(names, (WIDTH - self.distance) / 2)
        self.enemies = self._line_up(["marine"] * len(names), (WIDTH + self.distance) / 2)
        return self.get_obs(), self.get_state()

    def _draw_team(self):
        drawn = self.rng.choice(list(KINDS), self.n_agents - 1)
        return sorted(["marine", *drawn], key=lambda name: KINDS[name].id)

    def _line_up(self, names, x):
        spread = self.rng.uniform(-self.jitter, self.jitter, (len(names), 2))
        first = HEIGHT / 2 - (len(names) - 1) / 2
        return {k: Unit(n, spread[k] + (x, first + k)) for k, n in enumerate(names)}

    def step(self, actions):
        self.steps += 1
        if self.steps == self.crash_at:
            self.force_restarts += 1
            return 0, True, {}
        legal = self.get_avail_actions()
        for k, action in enumerate(actions):
            assert type(action) is int
            assert legal[k][action] or not self.strict, f"agent {k} cannot take action {action}"
        before = sum(unit.health for unit in self.enemies.values())
        alive = self._alive(self.enemies)
        for k, action in enumerate(actions):
            if legal[k][action]:
                self._act(self.agents[k], action)
        for enemy in self.enemies.values():
            self._fight_back(enemy)
        reward = before - sum(unit.health for unit in self.enemies.values())
        reward += KILL * (alive - self._alive(self.enemies))
        won = not self._alive(self.enemies)
        lost = not any(u.health for u in self.agents.values() if u.name != "medivac")
        info = {
            "battle_won": won,
            "dead_allies": self.n_agents - self._alive(self.agents),
            "dead_enemies": self.n_enemies - self._alive(self.enemies),
        }
        if out_of_time := not (won or lost) and self.steps >= self.episode_limit:
            info |= {"episode_limit": True} if self.continuing_episode else {}
        return reward + VICTORY * won, won or lost or out_of_time, info

    @staticmethod
    def _alive(units):
        return sum(unit.health > 0 for unit in units.values())

    def _act(self, unit, action):
        if action in MOVES:
            unit.position += MOVES[action]
        elif action >= FIRST_TARGET:
            if unit.name == "medivac":
                target = self.agents[action - FIRST_TARGET]
                target.health += min(unit.kind.damage, target.kind.health - target.health)
            else:
                target = self.enemies[action - FIRST_TARGET]
                target.health -= min(unit.kind.damage, target.health)

    def _fight_back(self, enemy):
        living = [unit for unit in self.agents.values() if unit.health]
        if not enemy.health or not living:
            return
        target = min(living, key=lambda u: np.linalg.norm(u.position - enemy.position))
        if enemy.reaches(target):
            target.health -= min(enemy.kind.damage, target.health)
        else:
            way = target.position - enemy.position
            enemy.position += way / np.linalg.norm(way)

    def render(self, mode="human"):
        """One pixel per unit of length: allies green, enemies red."""
        assert mode == "rgb_array"
        picture = np.zeros((int(HEIGHT), int(WIDTH), 3), np.uint8)
        for channel, units in ((1, self.agents), (0, self.enemies)):
            for unit in units.values():
                x, y = unit.position.astype(int)
                picture[y, x, channel] = 255 * (unit.health > 0)
        return picture

    def get_avail_actions(self):
        return [self._legal(unit) for unit in self.agents.values()]

    def _legal(self, unit):
        if not unit.health:
            return [1] + [0] * (self.n_actions - 1)
        legal = [0, 1]
        for move in MOVES.values():
            legal.append(
                int(
                    (unit.position + move >= 0).all()
                    and (unit.position + move <= (WIDTH, HEIGHT)).all()
                )
            )
        heals = unit.name == "medivac"
        for target in (self.agents if heals else self.enemies).values():
            fits = target.health > 0 and not (heals and target.name == "medivac")
            legal.append(int(fits and unit.reaches(target)))
        return legal

    def get_obs(self):
        return [self._seen_by(unit) for unit in self.agents.values()]

    def _seen_by(self, unit):
        size = 3 + 6 * self.n_agents
        if not unit.health:
            return np.zeros(size, np.float32)
        seen = [*unit.position, unit.health]
        for other in (*self.enemies.values(), *self.agents.values()):
            way = other.position - unit.position
            visible = other.health and np.linalg.norm(way) < SIGHT
            seen += [*way, other.health] if visible else [0, 0, 0]
        return np.array(seen, np.float32)

    def get_state(self):
        rows = [
            [*unit.position, unit.health] if unit.health else [0, 0, 0]
            for unit in (*self.agents.values(), *self.enemies.values())
        ]
        return np.array(rows, np.float32).reshape(-1)


class SeedableBattle(Battle):
    """A battle that can be seeded after its construction, like SMAClite."""

    def seed(self, seed=None):
        self.rng = np.random.default_rng(seed)


class ScatteredBattle(Battle):
    """A battle with SMACv2's random sources: global generators and unseeded ones of its own."""

    def __init__(self, **kwargs):
        super().__init__(random_team=True, **kwargs)
        inner = SimpleNamespace(rng=np.random.default_rng(), generate=lambda: inner.rng.random())
        outer = SimpleNamespace(
            rng=np.random.default_rng(),
            inner=inner,
            generate=lambda: outer.rng.random() + inner.generate(),
        )
        self.env_key_to_distribution_map = {"start_positions": outer}

    def _draw_team(self):
        return random.sample(["marine", "marauder", "medivac"], self.n_agents)

    def _line_up(self, names, x):
        x += self.env_key_to_distribution_map["start_positions"].generate() / 4
        units = super()._line_up(names, x)
        for unit in units.values():
            unit.position += np.random.rand() / 4  # noqa: NPY002
        return units


class LiteBattle(gymnasium.Env):
    """SMAClite's variant: Gymnasium's reset and step, sizes as attributes, types by name."""

    def __init__(self, units=("marine", "medivac"), seed=None):
        self._battle = SeedableBattle(units, episode_limit=10**9)
        self.n_agents, self.n_actions = self._battle.n_agents, self._battle.n_actions
        self.obs_size, self.state_size = (
            self._battle.get_env_info()[key] for key in ("obs_shape", "state_shape")
        )
        self.agents = {}
        self.get_obs, self.get_state = self._battle.get_obs, self._battle.get_state
        self.get_avail_actions = self._battle.get_avail_actions
        self.seed(seed)

    def seed(self, seed=None):
        self._battle.seed(seed)

    def reset(self, seed=None, options=None):
        self._battle.reset()
        self.agents = {
            k: SimpleNamespace(type=SimpleNamespace(stats=SimpleNamespace(name=unit.name)))
            for k, unit in self._battle.agents.items()
        }
        return self.get_obs(), {"battle_won": False}

    def step(self, actions):
        reward, over, info = self._battle.step(actions)
        return self.get_obs(), reward, over, False, {"battle_won": info["battle_won"]}


def wrapped_lite(**kwargs):
    """Return a LiteBattle in a wrapper, as `gymnasium.make` does."""
    return gymnasium.wrappers.OrderEnforcing(LiteBattle(**kwargs))


class Blind(Battle):
    """A battle that cannot render."""

    render = None


class NoStates(Battle):
    """A battle that lacks two methods of the API."""

    get_state = get_avail_actions = None


def unseedable():
    """Return an object that cannot be seeded; this factory takes no seed either."""
    return Battle()


class Broken(Battle):
    """A battle whose reset fails."""

    def reset(self):
        return 1 / 0


class WithoutStarCraft(Battle):
    """A battle that starts the game like SMAC."""

    def reset(self):
        from pysc2 import run_configs

        run_configs.get()


class WritesIntoItsTeam(Battle):
    """A battle that modifies its configuration, like SMACv2's wrapper."""

    def __init__(self, units, seed=None):
        units.append("marine")
        super().__init__(units, seed=seed)
