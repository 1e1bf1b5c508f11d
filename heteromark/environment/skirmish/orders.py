"""Orders to one side's units, from the agents' actions or directly from an opponent."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from heteromark.environment.skirmish.layout import (
    FIRST_TURN,
    MOVE_AMOUNT,
    MOVES,
    STOP,
    Layout,
    Notes,
    Options,
)
from heteromark.environment.skirmish.scenarios import MAP_SIZE
from heteromark.environment.skirmish.state import Pairs, Roster, Units


class IllegalAction(ValueError):
    """An illegal action.

    Args:
        environment: index of the battle.
        unit: index of the agent's unit.
        action: the illegal action.
        offered: the legal actions.
        name: the agent's name; empty if unknown.
    """

    def __init__(
        self, environment: int, unit: int, action: int, offered: list[int], name: str = ""
    ) -> None:
        super().__init__(environment, unit, action, offered, name)
        self.environment, self.unit, self.action = environment, unit, action
        self.offered, self.name = offered, name

    def __str__(self) -> str:
        return (
            f"illegal action in environment {self.environment}: agent {self.name or self.unit} "
            f"took action {self.action}; legal are {self.offered}. Sample actions with the action "
            "mask, or set check_actions=False to replace illegal actions with a stop"
        )

    def named(self, name: str) -> IllegalAction:
        """Return the same error with the agent's name."""
        return IllegalAction(self.environment, self.unit, self.action, self.offered, name)


class Orders(NamedTuple):
    """Orders of each own unit; see the same fields of `Units`; [A, B]."""

    walking: Tensor
    to_x: Tensor
    to_y: Tensor
    target: Tensor


def standing_orders(units: Units, n_own: int) -> Orders:
    """Return the own units' current orders, without attacks on dead units."""
    orders = Orders(
        walking=units.walking[:n_own],
        to_x=units.to_x[:n_own],
        to_y=units.to_y[:n_own],
        target=units.target[:n_own],
    )
    number = torch.arange(units.x.shape[0], device=units.x.device)[:, None]
    on_living = ((orders.target.unsqueeze(1) == number) & units.alive).any(1)
    return orders._replace(target=torch.where(on_living, orders.target, -1))


def is_legal(actions: Tensor, options: Options) -> Tensor:
    """Return whether each action is legal, bool [A, B].

    Args:
        actions: int64 [A, B].
    """
    number = torch.arange(options.offer.shape[1], device=actions.device)[:, None]
    return (options.offer * (actions.unsqueeze(1) == number)).sum(1) > 0


def orders_of(
    actions: Tensor, options: Options, units: Units, roster: Roster, layout: Layout, notes: Notes
) -> tuple[Orders, Notes]:
    """Return the orders for some actions, and the updated notes.

    Illegal actions are a stop. After turning, or after a legal attack on a target out of range, a
    unit keeps its last order.

    Args:
        actions: int64 [A, B].
    """
    n = layout.n_agents
    alive = units.alive[:n]
    actions = torch.where(is_legal(actions, options), actions, torch.where(alive, STOP, 0))
    last = standing_orders(units, n)
    to_x, to_y = units.x[:n], units.y[:n]
    moves = torch.zeros_like(to_x)
    for number, east, north in MOVES:
        chosen = actions == number
        moves = moves + chosen
        to_x = to_x + chosen * (east * MOVE_AMOUNT)
        to_y = to_y + chosen * (north * MOVE_AMOUNT)
    slot = actions - layout.first_target
    slots = torch.arange(layout.n_targets, device=actions.device)[:, None]
    acts = (options.carried_out * (slot.unsqueeze(1) == slots)).sum(1) > 0
    target = torch.where(roster.heals[:n] > 0, slot, slot + n)
    stays = (actions >= FIRST_TURN) & ~acts
    orders = Orders(
        walking=torch.where(stays, last.walking, moves),
        to_x=torch.where(stays, last.to_x, to_x),
        to_y=torch.where(stays, last.to_y, to_y),
        target=torch.where(stays, last.target, torch.where(acts, target, -1)),
    )
    facing = notes.facing
    if layout.config.conic_fov:
        turns = (actions >= FIRST_TURN) & (actions < layout.first_target)
        facing = torch.where(turns, actions - FIRST_TURN, facing)
    return orders, notes._replace(facing=facing, last_action=actions)


def with_orders(units: Units, own: Orders, others: Orders) -> Units:
    """Return the units with new orders; `own` apply to the first units."""
    joined = (torch.cat(parts) for parts in zip(own, others, strict=True))
    return units._replace(**dict(zip(Orders._fields, joined, strict=True)))


# --- the other side's view -----------------------------------------------------------------------


def mirrored(units: Units, n_own: int) -> Units:
    """Return the battle as the other side sees it: its units first, west and east exchanged."""
    swapped = Units(*(others_first(part, n_own) for part in units))
    return swapped._replace(
        x=MAP_SIZE - swapped.x,
        to_x=MAP_SIZE - swapped.to_x,
        target=_renumbered(swapped.target, n_own, units.x.shape[0]),
    )


def mirrored_roster(roster: Roster, n_own: int) -> Roster:
    """Return the roster with the other side's units first."""
    return Roster(*(others_first(part, n_own) for part in roster))


def mirrored_pairs(pairs: Pairs, n_own: int) -> Pairs:
    """Return the pairs with the other side's units first."""
    return Pairs(*(part.roll((-n_own, -n_own), (0, 1)) for part in pairs))


def mirrored_orders(orders: Orders, n_own: int, n_units: int) -> Orders:
    """Convert one side's orders to the other side's view.

    Args:
        orders: the orders.
        n_own: number of units of the side that gave them.
        n_units: number of all units.
    """
    target = _renumbered(orders.target, n_own, n_units)
    return orders._replace(to_x=MAP_SIZE - orders.to_x, target=target)


def others_first(part: Tensor, n_own: int) -> Tensor:
    """Return the rows [U, …] with the other side's first."""
    return torch.cat([part[n_own:], part[:n_own]])


def _renumbered(target: Tensor, n_own: int, n_units: int) -> Tensor:
    """Convert indices of units after the first n_own of n_units moved to the end; keep -1."""
    moved = torch.where(target >= n_own, target - n_own, target + (n_units - n_own))
    return torch.where(target < 0, -1, moved)
