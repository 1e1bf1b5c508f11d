"""A game in place of StarCraft II's process, for the real Python of SMAC and SMACv2.

It speaks pysc2's interface with the real protobuf messages: it creates and kills units on request,
moves and fights with those that are commanded, and lets the enemies approach and shoot the nearest
unit. As SMAC's maps do, it starts the battle anew when no unit is left.
"""

from __future__ import annotations

import random
from types import SimpleNamespace

from pysc2 import maps, run_configs
from pysc2.lib import protocol
from pysc2.lib.units import Terran
from s2clientprotocol import common_pb2, raw_pb2, sc2api_pb2

SIZE = 32
ALLY, ENEMY = 1, 2
REACH = 6.0
DAMAGE = {ALLY: 20.0, ENEMY: 2.0}
ATTACK, MOVE = 23, 16  # ability numbers in SMAC
TYPES = 2000  # of units that the game knows; SMAC's maps define further ones after them
# MMM's team: types as SMAC numbers them, the lowest first: marauder, marine, medivac
MMM = [TYPES] * 2 + [TYPES + 1] * 7 + [TYPES + 2]
ENEMIES = [Terran.Marauder] * 2 + [Terran.Marine] * 7 + [Terran.Medivac]


class Game:
    """The controller of one game."""

    def __init__(self, log):
        self._log = log
        self._units = []
        self._commands = {}
        self._tags = 0
        self.steps = 0
        self.crashes_at = None  # number of a step

    # --- what pysc2 calls ----------------------------------------------------------------------

    def create_game(self, request):
        self._log.append(request.random_seed)
        self._random = random.Random(request.random_seed)
        self._map = request.local_map.map_path
        self._begin()

    def join_game(self, request):
        assert request.options.raw

    def game_info(self):
        def grid(value):
            size = common_pb2.Size2DI(x=SIZE, y=SIZE)
            return common_pb2.ImageData(bits_per_pixel=8, size=size, data=bytes([value]) * SIZE**2)

        corner = common_pb2.PointI
        return sc2api_pb2.ResponseGameInfo(
            start_raw=raw_pb2.StartRaw(
                map_size=common_pb2.Size2DI(x=SIZE, y=SIZE),
                pathing_grid=grid(0),
                terrain_height=grid(127),
                playable_area=common_pb2.RectangleI(p0=corner(x=0, y=0), p1=corner(x=SIZE, y=SIZE)),
            )
        )

    def data(self):
        return SimpleNamespace(units=range(TYPES + 9))

    def observe(self):
        raw = raw_pb2.ObservationRaw(units=self._units)
        return sc2api_pb2.ResponseObservation(
            observation=sc2api_pb2.Observation(game_loop=self.steps, raw_data=raw)
        )

    def debug(self, commands):
        for command in commands:
            if command.HasField("create_unit"):
                made = command.create_unit
                for _ in range(made.quantity):
                    self._add(made.owner, made.unit_type, made.pos.x, made.pos.y)
            else:
                dead = set(command.kill_unit.tag)
                self._units = [unit for unit in self._units if unit.tag not in dead]

    def actions(self, request):
        for action in request.actions:
            command = action.action_raw.unit_command
            for tag in command.unit_tags:
                self._commands[tag] = command

    def step(self, count):
        self.steps += 1
        if self.steps == self.crashes_at:
            raise protocol.ConnectionError("the game is gone")
        if not self._units:
            self._begin()
            return
        for unit in self._units:
            self._act(unit)
        self._units = [unit for unit in self._units if unit.health > 0]

    # --- the battle ----------------------------------------------------------------------------

    def _begin(self):
        if "10gen" in self._map:
            return  # SMACv2 creates the units itself
        for owner, team, x in ((ALLY, MMM, 12), (ENEMY, ENEMIES, 15)):
            for i, kind in enumerate(team):
                self._add(owner, int(kind), x, 10 + i + self._random.random())

    def _add(self, owner, kind, x, y):
        self._tags += 1
        self._units.append(
            raw_pb2.Unit(
                **{"tag": self._tags, "owner": owner, "unit_type": kind, "alliance": owner},
                **{"health": 45.0, "health_max": 45.0, "energy": 50.0, "radius": 0.4},
                pos=common_pb2.Point(x=x, y=y, z=0),
            )
        )

    def _act(self, unit):
        command = self._commands.pop(unit.tag, None)
        if unit.owner == ENEMY:
            nearest = min(self._of(ALLY), key=lambda other: _distance(unit, other), default=None)
            if nearest is None:
                return
            if _distance(unit, nearest) > REACH:  # come closer
                unit.pos.x += (nearest.pos.x - unit.pos.x) / 5
                unit.pos.y += (nearest.pos.y - unit.pos.y) / 5
            else:
                nearest.health -= DAMAGE[ENEMY] * self._random.uniform(0.5, 1.5)
        elif command is not None and command.ability_id == MOVE:
            unit.pos.x = min(max(command.target_world_space_pos.x, 0), SIZE - 1)
            unit.pos.y = min(max(command.target_world_space_pos.y, 0), SIZE - 1)
        elif command is not None and command.ability_id == ATTACK:
            for other in self._units:
                if other.tag == command.target_unit_tag:
                    other.health -= DAMAGE[ALLY]

    def _of(self, owner):
        return [unit for unit in self._units if unit.owner == owner and unit.health > 0]


def _distance(one, other):
    return ((one.pos.x - other.pos.x) ** 2 + (one.pos.y - other.pos.y) ** 2) ** 0.5


class Installation:
    """Stands in for an installed StarCraft II; `games` are those started, `seeds` theirs."""

    version = SimpleNamespace(game_version="4.10")

    def __init__(self):
        self.games, self.seeds, self.closed = [], [], 0

    def start(self, **_):
        self.games.append(Game(self.seeds))
        return SimpleNamespace(controller=self.games[-1], close=self._close)

    def _close(self):
        self.closed += 1

    def map_data(self, path):
        return b""


def install(monkeypatch):
    """Put an installation in the place of the real one, and return it.

    Maps are looked up by name alone: pysc2 refuses those of smac and smacv2 in one process.
    """
    installation = Installation()
    monkeypatch.setattr(maps, "get", lambda name: SimpleNamespace(path=name))
    monkeypatch.setattr(run_configs, "get", lambda version=None: installation)
    return installation
