"""Create the actors, one per group, and the critics."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import spaces
from tensordict import NestedKey
from tensordict.nn import TensorDictModule, TensorDictModuleBase, TensorDictSequential
from torchrl.data.tensor_specs import Composite, Unbounded
from torchrl.envs import EnvBase, TransformedEnv
from torchrl.envs.transforms import TensorDictPrimer
from torchrl.modules import MaskedCategorical, ProbabilisticActor, TanhNormal
from torchrl.modules.distributions import NormalParamExtractor

from heteromark.config.errors import ConfigError, Fault, nearest
from heteromark.config.models.components import PolicyOverride
from heteromark.config.models.run import RunConfig
from heteromark.environment.groups import Group, override_of
from heteromark.import_paths import Registry
from heteromark.modules.networks import JointObservation, RecurrentNetwork, make_mlp

STEP_COUNT = "step_count"  # key of a batch; 0 where an episode begins

TEAM = "team"  # name of the centralised critic that all groups share


@dataclass(frozen=True)
class NetworkSpec:
    """Inputs, outputs and architecture of a network."""

    in_key: NestedKey  # entry of the batch to read, [..., in_features]
    out_key: NestedKey  # entry to write, [..., out_features]
    # For recurrent networks: keys of the hidden state before and after a step,
    # [..., memory_size]; and key of bool [...], active agents: inactive ones keep their hidden
    # state. None: active in every step.
    memory_keys: tuple[NestedKey, NestedKey]
    active_key: NestedKey | None
    in_features: int
    out_features: int
    head_gain: float  # gain of the last layer
    hidden_sizes: list[int]  # widths of the hidden layers
    activation: str  # tanh, relu or elu, after each hidden layer
    memory_size: int  # size of the recurrent hidden state

    @property
    def layers(self) -> tuple[int, int, list[int], str]:
        """The positional arguments of `make_mlp`."""
        return self.in_features, self.out_features, self.hidden_sizes, self.activation


POLICIES: Registry[Callable[[NetworkSpec], TensorDictModuleBase]] = Registry("policy_type")


@POLICIES.register("mlp")
def _mlp(spec: NetworkSpec) -> TensorDictModuleBase:
    network = make_mlp(*spec.layers, head_gain=spec.head_gain)
    return TensorDictModule(network, [spec.in_key], [spec.out_key])


@POLICIES.register("gru")
def _gru(spec: NetworkSpec) -> TensorDictModuleBase:
    network = RecurrentNetwork(*spec.layers, head_gain=spec.head_gain, hidden_size=spec.memory_size)
    before, after = spec.memory_keys
    in_keys = [spec.in_key, before, STEP_COUNT]
    if spec.active_key is not None:
        in_keys.append(spec.active_key)
    return TensorDictModule(network, in_keys, [spec.out_key, after])


@dataclass(frozen=True)
class Policies:
    """The networks of a run.

    Attributes:
        actors: by group; reads (group, "observation"), writes (group, "action") [..., n] or
            [..., n, action_size] and (group, "action_log_prob") [..., n]; with
            `loss.action_aggregation: mean` a continuous action's log-prob is [..., n, action_size].
        critics: by group; writes (group, "state_value"), [..., n, 1] for the agents' own values or
            [..., 1] for a centralised critic. Or one centralised critic named "team", which writes
            "state_value" [..., 1]. Values are in normalised units if the run normalises values.
    """

    actors: dict[str, ProbabilisticActor]
    critics: dict[str, TensorDictModuleBase]


def is_recurrent(network: TensorDictModuleBase) -> bool:
    """Return whether a network is recurrent, and is trained on sequences instead of frames."""
    return STEP_COUNT in network.in_keys


def recurrent_groups(actors: Mapping[str, TensorDictModuleBase]) -> tuple[str, ...]:
    """Return the groups with recurrent actors."""
    return tuple(group for group, actor in actors.items() if is_recurrent(actor))


class PolicyFactory:
    """Creates the actors and critics of a run."""

    def create(
        self, config: RunConfig, groups: Mapping[str, Group], state_size: int | None = None
    ) -> Policies:
        """Create the networks for every group of the environment, on the CPU.

        Args:
            config: the run.
            groups: groups of the environment.
            state_size: size of the environment's global state; None: the environment has no state.

        Raises:
            ConfigError: an override names a group that the environment does not have.
            ValueError: the critic needs a state that the environment does not provide.
        """
        require_groups(config, groups)
        actors = {name: _actor(config, group) for name, group in groups.items()}
        if config.critic == "own":
            # One critic per group, which values each agent's observation separately.
            critics = {
                name: _critic(
                    config, group, (name, "observation"), group.observation_size, (name, "active")
                )
                for name, group in groups.items()
            }
        else:
            owners = groups if config.critic == "group" else {TEAM: None}
            critics = {
                name: _centralised_critic(config, groups, state_size, owner)
                for name, owner in owners.items()
            }
        return Policies(actors, critics)


def require_groups(config: RunConfig, groups: Mapping[str, Group]) -> None:
    """Check that all overrides are for existing groups.

    Raises:
        ConfigError: lists every unknown group with its section and value, and the existing groups.
    """
    known = [*dict.fromkeys(group.family for group in groups.values())]
    known += [name for name in groups if name not in known]
    faults = [
        Fault(
            "config",
            f"environment {config.environment.name!r} has no such group."
            f"{nearest(name, known)} Its groups are {', '.join(known)}; use one of these, or "
            f"remove {name}",
            f"{section}.groups.{name}",
            override.model_dump(exclude_none=True),
        )
        for section in ("policy", "loss", "optimizer")
        for name, override in getattr(config, section).groups.items()
        if name not in known
    ]
    if faults:
        raise ConfigError(faults)


def with_memory(environment: EnvBase, recurrent: Collection[str], memory_size: int) -> EnvBase:
    """Wrap an environment so that it carries the actors' hidden states from step to step.

    Args:
        environment: without hidden states.
        recurrent: groups that get the entry (group, "hidden") [N, n, memory_size]. If empty, the
            environment itself is returned.
        memory_size: size of each agent's hidden state.
    """
    if not recurrent:
        return environment
    copies = environment.batch_size[0]
    primers = Composite(shape=[copies])
    for name in recurrent:
        agents = len(environment.groups[name].agents)
        hidden = Unbounded((copies, agents, memory_size))
        primers[name] = Composite(hidden=hidden, shape=[copies])
    return TransformedEnv(environment, TensorDictPrimer(primers))


def _network(
    config: RunConfig, group: Group | None, *, is_critic: bool, **wanted: Any
) -> TensorDictModuleBase:
    """Create the network that the config defines for a group; None: for the whole team.

    Args:
        wanted: the fields of `NetworkSpec` that do not come from the config.
    """
    policy = config.policy
    override = (group and override_of(policy.groups, group)) or PolicyOverride()
    hidden_sizes = override.hidden_sizes or policy.hidden_sizes
    if is_critic and policy.critic_hidden_sizes:
        hidden_sizes = policy.critic_hidden_sizes
    spec = NetworkSpec(
        hidden_sizes=hidden_sizes,
        activation=override.activation or policy.activation,
        memory_size=policy.gru.hidden_size,
        **wanted,
    )
    return POLICIES[override.policy_type or config.policy_type](spec)


def _actor(config: RunConfig, group: Group) -> ProbabilisticActor:
    """Create an actor: categorical, or a normal distribution squashed by tanh into the bounds."""
    name, space = group.name, group.action_space
    parameters = (name, "logits" if group.is_discrete else "parameters")
    network = _network(
        config,
        group,
        is_critic=False,
        in_key=(name, "observation"),
        out_key=parameters,
        memory_keys=((name, "hidden"), ("next", name, "hidden")),
        active_key=(name, "active"),
        in_features=group.observation_size,
        out_features=group.action_size if group.is_discrete else 2 * group.action_size,
        head_gain=0.01,
    )
    options: dict[str, Any] = {}
    if isinstance(space, spaces.Box):
        in_keys = {"loc": (name, "loc"), "scale": (name, "scale")}
        to_both = TensorDictModule(NormalParamExtractor(), [parameters], [*in_keys.values()])
        network = TensorDictSequential(network, to_both)
        distribution = TanhNormal
        options["low"] = torch.as_tensor(space.low, dtype=torch.float32)
        options["high"] = torch.as_tensor(space.high, dtype=torch.float32)
        options["event_dims"] = 0 if config.splits_actions else 1
    elif group.masked:
        in_keys = {"logits": parameters, "mask": (name, "action_mask")}
        distribution = MaskedCategorical
    else:
        in_keys = {"logits": parameters}
        distribution = torch.distributions.Categorical
        # The algorithm checks the weights once per iteration, which is far cheaper.
        options["validate_args"] = False
    return ProbabilisticActor(
        network,
        in_keys=in_keys,
        out_keys=[(name, "action")],
        distribution_class=distribution,
        distribution_kwargs=options,
        return_log_prob=True,
        log_prob_key=(name, "action_log_prob"),
    )


def _centralised_critic(
    config: RunConfig, groups: Mapping[str, Group], state_size: int | None, group: Group | None
) -> TensorDictModuleBase:
    """Create a critic of the team's return, over the state or over all observations.

    It has no active_key, because it values the team in every frame. So its hidden state advances
    in every frame, regardless of whose turn it is.
    """
    critic_input = config.policy.critic_input
    if critic_input == "state" and state_size is None:
        raise ValueError(
            f"policy.critic_input is state, but environment {config.environment.name!r} provides "
            "no state; set environment.state=true or policy.critic_input=observations"
        )
    if critic_input != "observations" and state_size is not None:
        return _critic(config, group, "state", state_size)
    joint_size = sum(len(each.agents) * each.observation_size for each in groups.values())
    return TensorDictSequential(
        TensorDictModule(
            JointObservation(),
            in_keys=[(name, "observation") for name in groups]
            + [(name, "active") for name in groups],
            out_keys=["joint_observation"],
        ),
        _critic(config, group, "joint_observation", joint_size),
    )


def _critic(
    config: RunConfig,
    group: Group | None,
    in_key: NestedKey,
    in_features: int,
    active_key: NestedKey | None = None,
) -> TensorDictModuleBase:
    value, before, after = (
        (group.name, entry) if group else entry
        for entry in ("state_value", "critic_hidden", "critic_hidden_after")
    )
    return _network(
        config,
        group,
        is_critic=True,
        in_key=in_key,
        out_key=value,
        memory_keys=(before, after),
        active_key=active_key,
        in_features=in_features,
        out_features=1,
        head_gain=1.0,
    )
