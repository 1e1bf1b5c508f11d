"""The loss factory: one loss per actor and one per critic."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torchrl.modules import ProbabilisticActor
from torchrl.objectives import ClipPPOLoss, LossModule
from torchrl.objectives.multiagent import IPPOLoss, MAPPOLoss

from heteromark.config.models.algorithms import NETWORKS, ROWS
from heteromark.config.models.components import LossConfig
from heteromark.config.models.run import RunConfig
from heteromark.environment.groups import Group, override_of
from heteromark.import_paths import Registry
from heteromark.loss.happo import HAPPOLoss
from heteromark.loss.value import ValueLoss
from heteromark.modules.policy import TEAM, Policies

PPOLoss = TypeVar("PPOLoss", bound=ClipPPOLoss)
ActorLossMaker = Callable[[LossConfig, ProbabilisticActor, str], LossModule]
# Losses that are not defined here are registered by the module of their algorithm.
ACTOR_LOSSES: Registry[ActorLossMaker] = Registry(
    "loss_type", {row.loss: row.home for row in ROWS if row.kind == NETWORKS}
)


@dataclass(frozen=True)
class Losses:
    """The losses of a run: `actors` by group, `critics` by critic name."""

    actors: dict[str, LossModule]
    critics: dict[str, LossModule]


class LossFactory:
    """Creates the losses of a run."""

    def create(self, config: RunConfig, policies: Policies, groups: Mapping[str, Group]) -> Losses:
        """Create losses that read their group's keys and ignore steps that do not count."""
        make_loss = ACTOR_LOSSES[config.loss_type]
        actors = {}
        for group, actor in policies.actors.items():
            loss = make_loss(loss_of_group(config.loss, groups[group]), actor, group)
            loss.loss_mask_key = (group, "counts")
            actors[group] = loss
        critics = {}
        for name, critic in policies.critics.items():
            loss = ValueLoss(
                critic,
                coefficient=config.loss.critic_coef,
                loss_critic_type=config.loss.critic_loss,
                huber_delta=config.loss.huber_delta,
                clip_epsilon=config.loss.clip_epsilon if config.loss.clip_value else None,
            )
            loss.loss_mask_key = "value_counts" if name == TEAM else (name, "value_counts")
            if name != TEAM:
                loss.set_keys(
                    value=(name, "state_value"),
                    value_target=(name, "value_target"),
                    value_before=(name, "value_before"),
                )
            critics[name] = loss
        return Losses(actors, critics)


def loss_of_group(loss: LossConfig, group: Group) -> LossConfig:
    """Return the loss config with a group's overrides."""
    override = override_of(loss.groups, group)
    return loss.model_copy(update=override.model_dump(exclude_none=True)) if override else loss


def _ppo_loss(
    loss_class: type[PPOLoss],
    config: LossConfig,
    actor: ProbabilisticActor,
    group: str,
    **options: Any,
) -> PPOLoss:
    options.setdefault("entropy_bonus", config.entropy_coef != 0)  # or it is found for nothing
    loss = loss_class(
        actor,
        None,
        clip_epsilon=config.clip_epsilon,
        entropy_coeff=config.entropy_coef,
        # The algorithm normalises advantages once per batch.
        normalize_advantage=False,
        # Use the actor's parameters: swapping them in at each call takes as long as the loss.
        functional=False,
        **options,
    )
    loss.set_keys(
        advantage=(group, "advantage"),
        action=(group, "action"),
        sample_log_prob=(group, "action_log_prob"),
    )
    return loss


def sequential_loss(
    loss_class: type[HAPPOLoss],
    config: LossConfig,
    actor: ProbabilisticActor,
    group: str,
    **options: Any,
) -> HAPPOLoss:
    """Create the loss of an algorithm that updates groups one after another."""
    options["action_aggregation"] = config.action_aggregation
    loss = _ppo_loss(loss_class, config, actor, group, **options)
    loss.set_keys(factor=(group, "factor"))
    return loss


ACTOR_LOSSES.register("happo")(functools.partial(sequential_loss, HAPPOLoss))
ACTOR_LOSSES.register("mappo")(functools.partial(_ppo_loss, MAPPOLoss))
ACTOR_LOSSES.register("ippo")(functools.partial(_ppo_loss, IPPOLoss))
ACTOR_LOSSES.register("ppo")(functools.partial(_ppo_loss, ClipPPOLoss))
