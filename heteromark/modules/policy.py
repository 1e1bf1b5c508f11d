"""Actors, one per group, and critics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.modules import MaskedCategorical, ProbabilisticActor, TanhNormal
from torchrl.modules.distributions import NormalParamExtractor

from heteromark.config.schema import PolicyConfig, PolicyOverride, RunConfig
from heteromark.environment.groups import Group
from heteromark.modules.networks import JointObservation, make_mlp
from heteromark.modules.registry import Registry

_CENTRALISED_LOSSES = frozenset({"happo", "mappo"})

TEAM = "team"  # name of the one centralised critic

PolicyMaker = Callable[[PolicyConfig, Group], ProbabilisticActor]
POLICIES: Registry[PolicyMaker] = Registry("policy_type")


@dataclass(frozen=True)
class Policies:
    """The networks of a run.

    Attributes:
        actors: by group; reads (group, "observation"), writes (group, "action") [..., n] or
            [..., n, action_size] and (group, "action_log_prob") [..., n].
        critics: by group, writing (group, "state_value") [..., n, 1]; or one centralised critic
            called "team", writing "state_value" [..., 1] at the root. Values are in normalised
            units where the run normalises values.
    """

    actors: dict[str, ProbabilisticActor]
    critics: dict[str, TensorDictModule]


def is_centralised(config: RunConfig) -> bool:
    """One critic sees all agents and values the team; else every agent has a value of its own."""
    return config.loss_type in _CENTRALISED_LOSSES


class PolicyFactory:
    """Creates the actors and critics of a run."""

    def create(self, config: RunConfig, groups: Mapping[str, Group]) -> Policies:
        """Networks for every group of the environment, on the CPU.

        Raises:
            ValueError: `policy.groups` names a group that the environment does not have.
        """
        policy = config.policy
        if unknown := sorted(set(policy.groups) - set(groups)):
            raise ValueError(
                f"policy.groups names {', '.join(unknown)}, which environment "
                f"{config.environment.name!r} does not have; its groups are {', '.join(groups)}"
            )
        make_actor = POLICIES[config.policy_type]
        actors = {name: make_actor(policy, group) for name, group in groups.items()}
        if is_centralised(config):
            critics = {TEAM: _team_critic(policy, groups)}
        else:
            critics = {name: _own_critic(policy, group) for name, group in groups.items()}
        return Policies(actors, critics)


@POLICIES.register("mlp")
def _mlp_actor(policy: PolicyConfig, group: Group) -> ProbabilisticActor:
    hidden_sizes, activation = _architecture(policy, group)
    name = group.name
    network = make_mlp(
        group.observation_size,
        group.action_size if group.is_discrete else 2 * group.action_size,
        hidden_sizes,
        activation,
        head_gain=0.01,
        n_agents=None if policy.share_policy_params else len(group.agents),
    )
    common = {
        "out_keys": [(name, "action")],
        "return_log_prob": True,
        "log_prob_key": (name, "action_log_prob"),
    }
    observation = [(name, "observation")]
    if not group.is_discrete:
        low, high = (
            torch.as_tensor(bound, dtype=torch.float32)
            for bound in (group.action_space.low, group.action_space.high)
        )
        parameters = [(name, "loc"), (name, "scale")]
        return ProbabilisticActor(
            TensorDictModule(
                nn.Sequential(network, NormalParamExtractor()), observation, parameters
            ),
            in_keys={"loc": parameters[0], "scale": parameters[1]},
            distribution_class=TanhNormal,
            distribution_kwargs={"low": low, "high": high},
            **common,
        )
    logits = TensorDictModule(network, observation, [(name, "logits")])
    if group.masked:
        return ProbabilisticActor(
            logits,
            in_keys={"logits": (name, "logits"), "mask": (name, "action_mask")},
            distribution_class=MaskedCategorical,
            **common,
        )
    return ProbabilisticActor(
        logits,
        in_keys={"logits": (name, "logits")},
        distribution_class=torch.distributions.Categorical,
        # the algorithm checks the weights once per iteration, which is far cheaper
        distribution_kwargs={"validate_args": False},
        **common,
    )


def _architecture(policy: PolicyConfig, group: Group) -> tuple[list[int], str]:
    """A group's hidden layer sizes and activation."""
    override = policy.groups.get(group.name, PolicyOverride())
    return override.hidden_sizes or policy.hidden_sizes, override.activation or policy.activation


def _critic_mlp(
    policy: PolicyConfig, in_features: int, hidden: list[int], activation: str
) -> nn.Module:
    return make_mlp(in_features, 1, policy.critic_hidden_sizes or hidden, activation, head_gain=1.0)


def _own_critic(policy: PolicyConfig, group: Group) -> TensorDictModule:
    """Values each agent's own observation; the group's agents share it."""
    return TensorDictModule(
        _critic_mlp(policy, group.observation_size, *_architecture(policy, group)),
        in_keys=[(group.name, "observation")],
        out_keys=[(group.name, "state_value")],
    )


def _team_critic(policy: PolicyConfig, groups: Mapping[str, Group]) -> TensorDictModule:
    """Values the team's shared return from what all agents see together."""
    joint_size = sum(len(group.agents) * group.observation_size for group in groups.values())
    return TensorDictSequential(
        TensorDictModule(
            JointObservation(),
            in_keys=[(g, "observation") for g in groups] + [(g, "active") for g in groups],
            out_keys=["joint_observation"],
        ),
        TensorDictModule(
            _critic_mlp(policy, joint_size, policy.hidden_sizes, policy.activation),
            in_keys=["joint_observation"],
            out_keys=["state_value"],
        ),
    )
