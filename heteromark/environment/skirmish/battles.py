"""A batch of battles: reset, step, and observations; independent of TorchRL."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_structure, tree_unflatten

from heteromark.config.models.skirmish import SkirmishConfig
from heteromark.environment.skirmish.compilation import Compiler, Graphed
from heteromark.environment.skirmish.layout import Layout, Notes
from heteromark.environment.skirmish.mechanics import Aim, game_loop, take_aim
from heteromark.environment.skirmish.moments import (
    Episode,
    Moment,
    Outcome,
    Scene,
    View,
    select,
)
from heteromark.environment.skirmish.opponents import COMMANDERS, Situation
from heteromark.environment.skirmish.orders import (
    IllegalAction,
    Orders,
    is_legal,
    mirrored,
    mirrored_orders,
    mirrored_roster,
    orders_of,
    others_first,
    with_orders,
)
from heteromark.environment.skirmish.policy_opponent import Player, PolicyOpponent
from heteromark.environment.skirmish.randomness import hashed, uniform
from heteromark.environment.skirmish.scenarios import MAP_SIZE, opposite, scenario_of
from heteromark.environment.skirmish.starts import draw_places, draw_teams, sorted_agents
from heteromark.environment.skirmish.state import (
    Pairs,
    Roster,
    Traits,
    Units,
    make_pairs,
    make_roster,
    stat_table,
)
from heteromark.environment.skirmish.units import FASTEST_WEAPON, SHIELD_DELAY, START_ENERGY

REWARD_WIN = 200.0
REWARD_DEATH = 10.0
REWARD_SCALE = 20.0
NEGATIVE_SCALE = 0.5
# purposes of random numbers; see also `starts` and `policy_opponent`
_DELAY, _SPOT, _LUCK = 100, 101, 103


class Battles:
    """B battles of one scenario, stepped together.

    Args:
        config: the scenario and its rules.
        num_envs: B.
        device: device of all tensors.
        dtype: of the floats; float64 for comparisons with a reference.
        conceal: after a battle is over, return zero observations and nobody alive.

    Attributes:
        scenario, layout, traits: derived from the config.
    """

    _advance: Callable[..., Any]  # `_advance_step`, or its CUDA graph

    def __init__(
        self,
        config: SkirmishConfig,
        num_envs: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        conceal: bool = False,
    ) -> None:
        self._conceal = conceal
        self.config, self.num_envs = config, num_envs
        self.scenario = scenario = scenario_of(config)
        self.device, self.dtype = torch.device(device), dtype
        self.traits = Traits.of(scenario, config.rules)
        self.layout = Layout(scenario, config, self.device)
        self.their_layout = Layout(opposite(scenario), config, self.device)
        self._types = scenario.unit_types(config.rules)
        self._table = stat_table(self._types, config.parity).to(self.device, dtype)
        self._adversary: PolicyOpponent | None = None
        self._seeds = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self._episodes = torch.zeros_like(self._seeds)
        self._scene: Scene | None = None
        # the next episode of every battle, prepared for all at once, and where it has been used
        self._spare: Scene | None = None
        self._used = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        self._use(_eager)
        if config.compile:
            self.compile()

    def oppose(self, player: Player) -> None:
        """Let a player command the other side; requires `opponent` "policy"."""
        self._adversary = PolicyOpponent(self.their_layout, player)

    def compile(self) -> None:
        """Compile each part of the simulation at its first call.

        On a GPU, the compiled parts of a step are captured as one CUDA graph.
        """
        self._use(Compiler())
        if self.device.type == "cuda":
            self._advance = Graphed(self._advance_step, self.device)

    def _use(self, wrapped: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        # compiled separately from `_prepare`; fused, each use would draw the numbers again
        self._draw = wrapped(self._draw_episodes)
        self._prepare = wrapped(self._prepare_units)
        self._choose = wrapped(self._merge)
        self._order = wrapped(self._orders)
        self._loop = wrapped(functools.partial(game_loop, traits=self.traits))
        self._finish = wrapped(self._finish_step)
        self._advance = self._advance_step

    def reseed(self, seeds: Sequence[int]) -> None:
        """Give each battle a 32-bit seed; its next episode is that seed's first."""
        self._seeds = torch.tensor(list(seeds), dtype=torch.int64, device=self.device)
        self._episodes = torch.zeros_like(self._seeds)
        self._spare = None

    def state(self) -> dict[str, Any]:
        """Return everything that determines what happens next, as tensors and containers."""
        adversary = self._adversary
        return {
            "seeds": self._seeds,
            "episodes": self._episodes,
            "scene": tree_leaves(self._current_scene()),
            "adversary": None if adversary is None else adversary.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a `state`; call `reset` before."""
        self._seeds = state["seeds"].to(self.device)
        self._episodes = state["episodes"].to(self.device)
        self._spare = None
        leaves = [leaf.to(self.device) for leaf in state["scene"]]
        self._scene = tree_unflatten(leaves, tree_structure(self._current_scene()))
        if self._adversary is not None:
            self._adversary.load_state(state["adversary"], self.moment.units.x)

    @property
    def view(self) -> View:
        """What the agents currently see."""
        return self._current_scene().view()

    @property
    def moment(self) -> Moment:
        """The current state of the battles."""
        return self._current_scene().moment

    @property
    def episode(self) -> Episode:
        """What stays fixed during the current episodes."""
        return self._current_scene().episode

    def reset(self, where: Tensor | None = None) -> View:
        """Start new episodes.

        Args:
            where: bool [B], the battles to reset; None: all.
        """
        held = self._scene
        if where is None or held is None:
            where = torch.ones_like(self._used)
        if self._spare is None or (where & self._used).any():
            self._spare, self._used = self._next_episodes(), torch.zeros_like(self._used)
        if held is None:
            scene = self._spare
        else:
            scene = self._choose(where.to(self.dtype), self._spare, held)
            if self.config.parity:
                episode = scene.episode._replace(max_reward=held.episode.max_reward)
                scene = scene._replace(episode=episode)
        self._scene = scene
        self._used = self._used | where
        self._episodes = self._episodes + where
        return scene.view()

    def step(self, actions: Tensor) -> tuple[View, Outcome]:
        """Step all battles.

        Args:
            actions: int64 [B, A].

        Raises:
            IllegalAction: an action is illegal, and `check_actions` is set.
        """
        scene = self._current_scene()
        episode, before = scene.episode, scene.moment
        actions = actions.T
        if self.config.check_actions:
            self._require_legal(actions, before)
        theirs = self._their_orders(before, episode)
        outcome, *after = self._advance(before, episode, actions, *theirs)
        self._scene = Scene(episode, *after)
        return self._scene.view(), outcome

    # --- a step and its parts, each a function of tensors ----------------------------------------

    def _advance_step(
        self, before: Moment, episode: Episode, actions: Tensor, theirs: Orders | None = None
    ) -> tuple[Outcome, Moment, Tensor, Tensor, Tensor]:
        """Return a step's outcome and the fields of the scene after it, except its episode.

        Args:
            actions: int64 [A, B].
            theirs: the other side's orders; None: its script gives them.
        """
        units, notes, aim, points = self._order(before, episode, actions, theirs)
        for loop in range(self.config.step_mul):
            if loop and loop % FASTEST_WEAPON == 0:
                aim = aim._replace(delay=self._delay(before, episode, loop))
            units = self._loop(units, aim, episode.roster, episode.pairs)
        return self._finish(points, units, notes, before.steps + 1, episode)

    def _draw_episodes(
        self, seeds: Tensor, episodes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw the episodes with these numbers for battles with these seeds.

        Returns:
            The keys of their random numbers, int64 [B]; the units' types, int64 [U, B], or [U, 1]
            with fixed teams; x and y, [U, B].
        """
        key = hashed(seeds, episodes)
        kind = draw_teams(key, self.scenario)
        x, y = draw_places(key, self.scenario, self._types, self.dtype)
        sorted_kind, x, y = sorted_agents(kind, x, y, self.scenario)
        if self.config.opponent == "policy":
            sorted_kind, x, y = self._sort_their_units(sorted_kind, x, y)
        return key, sorted_kind if self.scenario.is_random else kind, x, y

    def _sort_their_units(self, kind: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """Sort the other side like the agents, so that its policy sees its training layout."""
        n, m = self.scenario.n_agents, self.scenario.n_enemies
        kind, x, y = (others_first(part, n) for part in (kind, MAP_SIZE - x, y))
        kind, x, y = sorted_agents(kind, x, y, opposite(self.scenario))
        return tuple(others_first(part, m) for part in (kind, MAP_SIZE - x, y))

    def _prepare_units(
        self, key: Tensor, kind: Tensor, x: Tensor, y: Tensor
    ) -> tuple[Episode, Units]:
        """Compute everything else about an episode from the results of `_draw_episodes`."""
        n, m = self.scenario.n_agents, self.scenario.n_enemies
        roster, pairs, bits = self._of_types(kind)
        zero = torch.zeros_like(x)
        units = Units(
            x=x,
            y=y,
            health=roster.max_health + zero,
            shield=roster.max_shield + zero,
            energy=START_ENERGY * roster.heals + zero,
            cooldown=zero,
            calm=zero + SHIELD_DELAY,
            bursting=zero,
            walking=zero,
            to_x=x,
            to_y=y,
            target=torch.full_like(x, -1, dtype=torch.int64),
        )
        # sums of grid positions and of whole points are exact in any order
        points = (roster.max_health + roster.max_shield)[n:].sum(0)
        objective = torch.stack([MAP_SIZE - x[:n].sum(0) / n, y[:n].sum(0) / n])
        max_reward = (points + REWARD_DEATH * m + REWARD_WIN).expand(key.shape[0])
        return Episode(key, roster, pairs, bits, objective, max_reward), units

    def _merge(self, where: Tensor, spare: Scene, held: Scene) -> Scene:
        """Take `spare` where `where` is 1, and `held` where it is 0."""
        where = where > 0
        if not self.scenario.is_random:
            return select(where, spare, held)
        # recomputing what depends on the units' types is faster than reading it twice
        new, *fresh = spare
        old, *ongoing = held
        kind = torch.where(where, new.roster.kind, old.roster.kind)
        key = torch.where(where, new.key, old.key)
        objective = torch.where(where, new.objective, old.objective)
        max_reward = torch.where(where, new.max_reward, old.max_reward)
        episode = Episode(key, *self._of_types(kind), objective, max_reward)
        rest = (select(where, *parts) for parts in zip(fresh, ongoing, strict=True))
        return Scene(episode, *rest)

    def _of_types(self, kind: Tensor) -> tuple[Roster, Pairs, Tensor]:
        """Return roster, pairs and bits of units of these types."""
        roster = make_roster(kind, self._table)
        number = torch.arange(self.scenario.type_bits, device=self.device)[:, None]
        bits = (kind.unsqueeze(1) == number).to(self.dtype)
        return roster, make_pairs(roster, self.scenario.n_agents), bits

    def _orders(
        self, before: Moment, episode: Episode, actions: Tensor, theirs: Orders | None
    ) -> tuple[Units, Notes, Aim, Tensor]:
        """Give orders to both sides.

        Args:
            theirs: the other side's orders; None: its script gives them.

        Returns:
            The units with their orders; the agents' notes; the aim for the coming game loops; the
            points before them.
        """
        own, notes = self._own_orders(before, episode, actions)
        n, n_units = self.scenario.n_agents, self.scenario.n_units
        theirs = self._scripted(before, episode) if theirs is None else theirs
        units = with_orders(before.units, own, mirrored_orders(theirs, n_units - n, n_units))
        delay = self._delay(before, episode, 0)
        aim = take_aim(units, episode.roster, episode.pairs, delay)
        return units, notes, aim, _points(units)

    def _own_orders(
        self, before: Moment, episode: Episode, actions: Tensor
    ) -> tuple[Orders, Notes]:
        """Return the agents' orders and updated notes; benchmarks override it."""
        return orders_of(
            actions, before.options, before.units, episode.roster, self.layout, before.notes
        )

    def _scripted(self, before: Moment, episode: Episode) -> Orders:
        """Return the scripted orders of the other side."""
        n, n_units = self.scenario.n_agents, self.scenario.n_units
        row = torch.arange(n_units - n, device=self.device)[:, None]
        situation = Situation(
            units=mirrored(before.units, n),
            roster=mirrored_roster(episode.roster, n),
            pairs=episode.pairs,
            objective=episode.objective,
            luck=uniform(episode.key, _LUCK, before.steps, row, dtype=self.dtype),
        )
        return COMMANDERS[self.config.opponent](situation, self.their_layout)

    def _delay(self, before: Moment, episode: Episode, loop: int) -> Tensor:
        """Return the random delay of each unit's next attack in game loops, -1 to 2; [U, B]."""
        unit = torch.arange(self.scenario.n_units, device=self.device)[:, None]
        drawn = uniform(episode.key, _DELAY, before.steps, loop, unit, dtype=self.dtype)
        return 3 * drawn - 1

    def _score(self, points: Tensor, units: Units, steps: Tensor, episode: Episode) -> Outcome:
        """Return reward and end as in SMACv2, but scaled by the episode's own teams."""
        config, n = self.config, self.scenario.n_agents
        fights = units.alive & (episode.roster.heals == 0)
        agents_fight, enemies_fight = fights[:n].any(0), fights[n:].any(0)
        won = agents_fight & ~enemies_fight
        lost = ~agents_fight & enemies_fight
        if config.parity and self.traits.heals:
            lost = ~agents_fight
        if config.reward_sparse:
            reward = won.to(self.dtype) - lost.to(self.dtype)
        else:
            after = _points(units)
            killed = (points > 0) & (after <= 0)
            suffered = points - after + REWARD_DEATH * killed
            reward = _sum_of_rows(suffered[n:])
            if config.reward_only_positive:
                reward = reward.clamp(min=0)
            else:
                reward = reward - NEGATIVE_SCALE * _sum_of_rows(suffered[:n])
            reward = reward + REWARD_WIN * won
        if not config.reward_sparse or config.parity:
            reward = reward / (episode.max_reward / REWARD_SCALE)
        terminated = ~agents_fight | ~enemies_fight
        timeout = ~terminated & (steps >= self.scenario.episode_limit)
        if not config.continuing_episode:
            terminated, timeout = terminated | timeout, torch.zeros_like(timeout)
        return Outcome(reward, terminated, timeout, won)

    def _finish_step(
        self, points: Tensor, units: Units, notes: Notes, steps: Tensor, episode: Episode
    ) -> tuple[Outcome, Moment, Tensor, Tensor, Tensor]:
        """Return a step's outcome and the fields of the scene after it, except its episode.

        Args:
            points: [U, B], of the units before the step.
            units, notes, steps: after the step.
        """
        layout, roster, n = self.layout, episode.roster, self.scenario.n_agents
        outcome = self._score(points, units, steps, episode)
        visible = units
        if self._conceal:  # as if all were dead
            visible = units._replace(health=units.health * ~outcome.terminated)
        side, notes = layout.watch(
            visible, roster, episode.pairs, notes, key=episode.key, steps=steps, purpose=_SPOT
        )
        observation = layout.observe(visible, roster, episode.bits, side, notes)
        state = layout.state(units, roster, episode.bits, notes)
        moment = Moment(units, notes, side.options, steps)
        return outcome, moment, observation, state, visible.alive[:n].to(self.dtype)

    # --- state -----------------------------------------------------------------------------------

    def _next_episodes(self) -> Scene:
        """Prepare the next episodes of all battles."""
        episode, units = self._prepare(*self._draw(self._seeds, self._episodes))
        # shared tensors and tensors with stride 0 would cause recompilation
        units = Units(*(part.clone() for part in units))
        episode = episode._replace(max_reward=episode.max_reward.clone())
        notes = self.layout.fresh_notes(units.x)
        return self._scene_of(units, notes, torch.zeros_like(self._episodes), episode)

    def _scene_of(self, units: Units, notes: Notes, steps: Tensor, episode: Episode) -> Scene:
        """Return the scene of battles whose units have not acted since the last step."""
        _, *scene = self._finish(_points(units), units, notes, steps, episode)
        return Scene(episode, *scene)

    def _their_orders(self, now: Moment, episode: Episode) -> tuple[Orders, ...]:
        """Return a policy's orders to the other side; empty if a script commands it."""
        if self.config.opponent != "policy":
            return ()
        if self._adversary is None:
            raise RuntimeError(
                "the opponent is a policy, but it has no player: call oppose() first"
            )
        return (self._adversary.orders(now, episode),)

    def _current_scene(self) -> Scene:
        if self._scene is None:
            raise RuntimeError("the battles have not started: call reset() first")
        return self._scene

    def _require_legal(self, actions: Tensor, now: Moment) -> None:
        # actions of the dead are ignored
        illegal = ~is_legal(actions, now.options) & now.units.alive[: self.scenario.n_agents]
        if illegal.any():
            agent, environment = illegal.nonzero()[0].tolist()
            offered = now.options.offered[agent, :, environment].nonzero()[:, 0].tolist()
            raise IllegalAction(environment, agent, int(actions[agent, environment]), offered)


def _points(units: Units) -> Tensor:
    """Return health plus shield of each unit, [U, B]; 0 for the dead."""
    return units.health + units.shield


def _sum_of_rows(rows: Tensor) -> Tensor:
    """Sum [U, B] along U, in the same order for every batch size."""
    return functools.reduce(torch.add, rows.unbind(0))


def _eager(function: Callable[..., Any]) -> Callable[..., Any]:
    return function
