"""A batch of battles: reset, step, and what agents see; without TorchRL."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from heteromark.config.skirmish import SkirmishConfig
from heteromark.environment.skirmish.compilation import Compiler
from heteromark.environment.skirmish.layout import Layout, Notes
from heteromark.environment.skirmish.mechanics import Aim, game_loop, take_aim
from heteromark.environment.skirmish.moments import (
    Episode,
    Moment,
    Opening,
    Outcome,
    Start,
    View,
    chosen,
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
# what random numbers are for, besides those of `starts`
_DELAY, _SPOT, _LUCK = 100, 101, 103


class Battles:
    """B battles of one scenario, stepped together.

    Args:
        config: who fights whom, and how.
        num_envs: B.
        device: where the tensors are.
        dtype: of the floats; float64 for comparisons with a reference.

    Attributes:
        scenario, layout, traits: of the config.
        moment, episode: as they are now; None before the first reset.
    """

    def __init__(
        self,
        config: SkirmishConfig,
        num_envs: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config, self.num_envs = config, num_envs
        self.scenario = scenario = scenario_of(config)
        self.device, self.dtype = torch.device(device), dtype
        self.traits = Traits.of(scenario, config.rules)
        self.layout = Layout(scenario, config, self.traits)
        self.their_layout = Layout(
            opposite(scenario), config, replace(self.traits, n_agents=scenario.n_enemies)
        )
        self._types = scenario.unit_types(config.rules)
        self._table = stat_table(self._types, config.parity).to(self.device, dtype)
        self._adversary: PolicyOpponent | None = None
        self._seeds = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self._episodes = torch.zeros_like(self._seeds)
        self._start: Start | None = None
        self.moment: Moment | None = None
        self.episode: Episode | None = None
        self._use(Compiler() if config.compile else _eager)

    def oppose(self, player: Player) -> None:
        """Let a player command the other side, where `opponent` is "policy"."""
        self._adversary = PolicyOpponent(self.their_layout, player)

    def compile(self) -> None:
        """Compile the simulation, part by part as they are first called."""
        self._use(Compiler())

    def _use(self, wrapped: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        # apart from what uses it, which would otherwise be compiled to draw again for each use
        self._draw = wrapped(self._drawn)
        self._prepare = wrapped(self._prepared)
        self._renew = wrapped(self._renewed)
        self._order = wrapped(self._orders)
        self._loop = wrapped(functools.partial(game_loop, traits=self.traits))
        self._judge = wrapped(self._judged)
        self._see = wrapped(self._seen)

    def reseed(self, seeds: Sequence[int]) -> None:
        """Give each battle a 32-bit seed; its next episode is the first of that seed."""
        self._seeds = torch.tensor(list(seeds), dtype=torch.int64, device=self.device)
        self._episodes = torch.zeros_like(self._seeds)

    def reset(self, where: Tensor | None = None) -> View:
        """Start new episodes.

        Args:
            where: bool [B], in which battles; None: in all.
        """
        now, held = self.moment, self._start
        if where is None or now is None or held is None:
            start = self._prepare(self._draw(self._seeds, self._episodes))
            self._episodes = self._episodes + 1
        else:
            drawn = self._draw(self._seeds, self._episodes)
            start = self._renew(where, drawn, held.opening, now)
            self._episodes = self._episodes + where
        if self.config.parity and self.episode is not None:
            start = start._replace(
                episode=start.episode._replace(max_reward=self.episode.max_reward)
            )
        self._start, self.episode = start, start.episode
        return self._look(start.units, start.notes, start.steps, start.episode)

    def step(self, actions: Tensor) -> tuple[View, Outcome]:
        """One step of all battles.

        Args:
            actions: int64 [B, A].

        Raises:
            IllegalAction: an agent takes an action that is not offered, and `check_actions` is set.
        """
        before, episode = self._now()
        actions = actions.T
        if self.config.check_actions:
            self._require_legal(actions, before)
        theirs = self._their_orders(before, episode)
        units, notes, aim = self._order(before, episode, actions, theirs)
        for loop in range(self.config.step_mul):
            if loop and loop % FASTEST_WEAPON == 0:
                aim = aim._replace(delay=self._delay(before, episode, loop))
            units = self._loop(units, aim, episode.roster, episode.pairs)
        outcome = self._judge(before, units, episode)
        return self._look(units, notes, before.steps + 1, episode), outcome

    # --- the parts of a step, each a function of tensors -----------------------------------------

    def _renewed(self, where: Tensor, drawn: Opening, held: Opening, now: Moment) -> Start:
        """New episodes where it says so, and the others as they are now."""
        start = self._prepared(chosen(where, drawn, held))
        ongoing = (now.units, now.notes, now.steps)
        fresh = (start.units, start.notes, start.steps)
        units, notes, steps = map(functools.partial(chosen, where), fresh, ongoing)
        return start._replace(units=units, notes=notes, steps=steps)

    def _drawn(self, seeds: Tensor, episodes: Tensor) -> Opening:
        """New episodes: of battles with these seeds, those with these numbers."""
        key = hashed(seeds, episodes)
        kind = draw_teams(key, self.scenario)
        x, y = draw_places(key, self.scenario, self._types, self.dtype)
        sorted_kind, x, y = sorted_agents(kind, x, y, self.scenario)
        if self.config.opponent == "policy":
            sorted_kind, x, y = self._with_their_sorted(sorted_kind, x, y)
        return Opening(key, sorted_kind if self.scenario.is_random else kind, x, y)

    def _with_their_sorted(self, kind: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """The other side sorted as the agents are, so that its policy finds what it knows."""
        n, m = self.scenario.n_agents, self.scenario.n_enemies
        turned = (others_first(part, n) for part in (kind, MAP_SIZE - x, y))
        kind, x, y = sorted_agents(*turned, opposite(self.scenario))
        return tuple(others_first(part, m) for part in (kind, MAP_SIZE - x, y))

    def _prepared(self, opening: Opening) -> Start:
        """All that follows from who starts where."""
        scenario, (key, kind, x, y) = self.scenario, opening
        n, m = scenario.n_agents, scenario.n_enemies
        roster = make_roster(kind, self._table)
        number = torch.arange(scenario.type_bits, device=self.device)[:, None]
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
            walking=torch.zeros_like(x, dtype=torch.bool),
            to_x=x,
            to_y=y,
            target=torch.full_like(x, -1, dtype=torch.int64),
        )
        # sums of positions on the grid, and of whole points, are exact in any order
        points = (roster.max_health + roster.max_shield)[n:].sum(0)
        episode = Episode(
            key=key,
            roster=roster,
            pairs=make_pairs(roster, n),
            bits=(kind.unsqueeze(1) == number).to(self.dtype),
            objective=torch.stack([MAP_SIZE - x[:n].sum(0) / n, y[:n].sum(0) / n]),
            max_reward=(points + REWARD_DEATH * m + REWARD_WIN).expand(key.shape[0]),
        )
        steps = torch.zeros_like(key)
        return Start(opening, episode, units, self.layout.fresh_notes(x), steps)

    def _orders(
        self, before: Moment, episode: Episode, actions: Tensor, theirs: Orders | None
    ) -> tuple[Units, Notes, Aim]:
        """The units with both sides' orders, and what those mean in the game loops to come.

        Args:
            theirs: the other side's; None: its script says.
        """
        own, notes = self._own_orders(before, episode, actions)
        n, n_units = self.scenario.n_agents, self.scenario.n_units
        theirs = self._scripted(before, episode) if theirs is None else theirs
        units = with_orders(before.units, own, mirrored_orders(theirs, n_units - n, n_units))
        delay = self._delay(before, episode, 0)
        return units, notes, take_aim(units, episode.roster, episode.pairs, delay)

    def _own_orders(
        self, before: Moment, episode: Episode, actions: Tensor
    ) -> tuple[Orders, Notes]:
        layout, notes = self.layout, before.notes
        return orders_of(actions, before.side, before.units, episode.roster, layout, notes)

    def _scripted(self, before: Moment, episode: Episode) -> Orders:
        """The other side's orders as its script has them."""
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
        """Game loops, from -1 to 2, by which each unit's next attack is late; [U, B]."""
        unit = torch.arange(self.scenario.n_units, device=self.device)[:, None]
        drawn = uniform(episode.key, _DELAY, before.steps, loop, unit, dtype=self.dtype)
        return 3 * drawn - 1

    def _judged(self, before: Moment, units: Units, episode: Episode) -> Outcome:
        """Reward and end, as SMACv2 has them; but the scale is that of the episode's own teams."""
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
            suffered = _suffered(before.units, units)
            reward = _sum_of_rows(suffered[n:])
            if config.reward_only_positive:
                reward = reward.clamp(min=0)
            else:
                reward = reward - NEGATIVE_SCALE * _sum_of_rows(suffered[:n])
            reward = reward + REWARD_WIN * won
        if not config.reward_sparse or config.parity:
            reward = reward / (episode.max_reward / REWARD_SCALE)
        terminated = ~agents_fight | ~enemies_fight
        timeout = ~terminated & (before.steps + 1 >= self.scenario.episode_limit)
        if not config.continuing_episode:
            terminated, timeout = terminated | timeout, torch.zeros_like(timeout)
        return Outcome(reward, terminated, timeout, won)

    def _seen(
        self, units: Units, notes: Notes, steps: Tensor, episode: Episode
    ) -> tuple[Moment, Tensor, Tensor]:
        """The moment, observations [A, observation_size, B], and the state [state_size, B]."""
        layout, roster = self.layout, episode.roster
        side, notes = layout.watch(
            units, roster, episode.pairs, notes, key=episode.key, steps=steps, purpose=_SPOT
        )
        observation = layout.observe(units, roster, episode.bits, side, notes)
        state = layout.state(units, roster, episode.bits, notes)
        return Moment(units, notes, side, steps), observation, state

    # --- state -----------------------------------------------------------------------------------

    def _look(self, units: Units, notes: Notes, steps: Tensor, episode: Episode) -> View:
        self.moment, observation, state = self._see(units, notes, steps, episode)
        offered, alive = self.moment.side.offered, units.alive[: self.scenario.n_agents]
        return View(*map(_batch_first, (observation, offered, state, alive)))

    def _their_orders(self, now: Moment, episode: Episode) -> Orders | None:
        if self.config.opponent != "policy":
            return None
        if self._adversary is None:
            raise RuntimeError("the opponent is a policy, but no one plays it: call oppose() first")
        return self._adversary.orders(now, episode)

    def _now(self) -> tuple[Moment, Episode]:
        if self.moment is None or self.episode is None:
            raise RuntimeError("the battles have not started: call reset() first")
        return self.moment, self.episode

    def _require_legal(self, actions: Tensor, now: Moment) -> None:
        # whatever the dead are told to do, they do nothing
        illegal = ~is_legal(actions, now.side) & now.units.alive[: self.scenario.n_agents]
        if illegal.any():
            agent, environment = illegal.nonzero()[0].tolist()
            offered = now.side.offered[agent, :, environment].nonzero()[:, 0].tolist()
            raise IllegalAction(environment, agent, int(actions[agent, environment]), offered)


def _suffered(before: Units, after: Units) -> Tensor:
    """Points of health and shield that each unit lost, and those for its death; [U, B]."""
    lost = (before.health + before.shield) - (after.health + after.shield)
    return lost + REWARD_DEATH * (before.alive & ~after.alive)


def _sum_of_rows(rows: Tensor) -> Tensor:
    """The sum over [U, B] along U, added in order whatever the size of the batch."""
    return functools.reduce(torch.add, rows.unbind(0))


def _batch_first(part: Tensor) -> Tensor:
    """[…, B] as [B, …]; by way of a matrix, whose transpose is copied several times as fast."""
    return part.reshape(-1, part.shape[-1]).T.contiguous().view(-1, *part.shape[:-1])


def _eager(function: Callable[..., Any]) -> Callable[..., Any]:
    return function
