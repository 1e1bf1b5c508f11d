"""Create the actors, one per group, and the critics."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import spaces
from tensordict import NestedKey, TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictModuleBase, TensorDictSequential
from torch import nn
from torchrl.data.tensor_specs import Composite, Unbounded
from torchrl.envs import EnvBase, TransformedEnv
from torchrl.envs.transforms import TensorDictPrimer
from torchrl.modules import IndependentNormal, MaskedCategorical, ProbabilisticActor, TanhNormal

from heteromark.config.errors import ConfigError, Fault, nearest
from heteromark.config.models.components import CNNConfig, GRUConfig, PolicyOverride
from heteromark.config.models.run import RunConfig
from heteromark.environment.groups import Group, Image, override_of
from heteromark.import_paths import Registry
from heteromark.modules.distributions import GaussianHead, MultiCategorical
from heteromark.modules.networks import (
    ConvolutionalNetwork,
    JointObservation,
    Layers,
    RecurrentNetwork,
    RunningNorm,
    make_mlp,
)

STEP_COUNT = "step_count"  # key of a batch; 0 where an episode begins

TEAM = "team"  # name of the centralised critic that all groups share


@dataclass(frozen=True, kw_only=True)
class NetworkSpec(Layers):
    """Inputs, outputs and architecture of a network."""

    in_key: NestedKey  # entry of the batch to read, [..., in_features]
    out_key: NestedKey  # entry to write, [..., out_features]
    # For recurrent networks: keys of the hidden state before and after a step,
    # [..., gru.memory_size]; and key of bool [...], active agents: inactive ones keep their hidden
    # state. None: active in every step.
    memory_keys: tuple[NestedKey, NestedKey]
    active_key: NestedKey | None
    gru: GRUConfig  # the recurrent layers of recurrent networks
    cnn: CNNConfig  # the convolutional layers of convolutional networks
    # the number of pictures of each kind in the input, side by side and flattened; empty: none
    pictures: tuple[tuple[int, Image], ...]


POLICIES: Registry[Callable[[NetworkSpec], TensorDictModuleBase]] = Registry("policy_type")


@POLICIES.register("mlp")
def _mlp(spec: NetworkSpec) -> TensorDictModuleBase:
    network = make_mlp(spec)
    return TensorDictModule(network, [spec.in_key], [spec.out_key])


@POLICIES.register("cnn")
def _cnn(spec: NetworkSpec) -> TensorDictModuleBase:
    network: nn.Module
    if spec.pictures:
        network = ConvolutionalNetwork(spec, spec.pictures, **spec.cnn.model_dump())
    else:  # a critic of the environment's state
        network = make_mlp(spec)
    return TensorDictModule(network, [spec.in_key], [spec.out_key])


@POLICIES.register("gru")
def _gru(spec: NetworkSpec) -> TensorDictModuleBase:
    network = RecurrentNetwork(
        spec, hidden_size=spec.gru.hidden_size, num_layers=spec.gru.num_layers
    )
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


def update_observation_norms(
    network: TensorDictModuleBase, batch: TensorDictBase, active_key: NestedKey | None
) -> None:
    """Add a batch's inputs to the running statistics of a network's input, if it has any.

    Args:
        network: an actor or a critic.
        batch: [N, T], as collected.
        active_key: bool entry [N, T, n], inputs that count; None: all.
    """
    if not any(isinstance(module, RunningNorm) for module in network.modules()):
        return
    for each in network if isinstance(network, TensorDictSequential) else (network,):
        norms = [module for module in each.modules() if isinstance(module, RunningNorm)]
        if norms:
            inputs = batch[each.in_keys[0]]
            shown = inputs.flatten(0, -2) if active_key is None else inputs[batch[active_key]]
            norms[0].update(shown)
            return
        batch = each(batch.copy())


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
        require_pictures(config, groups)
        actors = {name: _actor(config, group) for name, group in groups.items()}
        if config.critic == "own":
            # One critic per group, which values each agent's observation separately.
            critics = {
                name: _critic(
                    config,
                    group,
                    (name, "observation"),
                    group.observation_size,
                    active_key=(name, "active"),
                    pictures=((1, group.image),) if group.image else (),
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


def require_pictures(config: RunConfig, groups: Mapping[str, Group]) -> None:
    """Check that convolutional policies see pictures, and that other built-in ones see none.

    Raises:
        ValueError: a group's observation does not fit its policy.
    """
    for name, group in groups.items():
        override = override_of(config.policy.groups, group) or PolicyOverride()
        policy_type = override.policy_type or config.policy_type
        environment = config.environment.name
        if group.image and policy_type in ("mlp", "gru"):
            raise ValueError(
                f"group {name!r} of environment {environment!r} observes pictures "
                f"{list(group.image.shape)}, and policy_type {policy_type} would read each pixel "
                "as a number; set policy_type=cnn (network.policy: CnnPolicy), or wrap the "
                "environment in SuperSuit's resize_v1, dtype_v0 and flatten_v0"
            )
        if policy_type == "cnn" and not group.image:
            raise ValueError(
                f"policy_type cnn needs pictures (uint8 with 2 or 3 dimensions), but group "
                f"{name!r} of environment {environment!r} observes {group.observation_size} "
                f"numbers; set policy.groups.{name}.policy_type=mlp, or policy_type=mlp for all"
            )


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
    config: RunConfig,
    group: Group | None,
    *,
    is_critic: bool,
    in_features: int,
    out_features: int,
    pictures: tuple[tuple[int, Image], ...] = (),
    **keys: Any,
) -> TensorDictModuleBase:
    """Create the network that the config defines for a group; None: for the whole team.

    Args:
        pictures: see `NetworkSpec`.
        keys: the fields of `NetworkSpec` that name entries of a batch.
    """
    policy = config.policy
    override = (group and override_of(policy.groups, group)) or PolicyOverride()
    hidden_sizes = override.hidden_sizes or policy.hidden_sizes
    if is_critic and policy.critic_hidden_sizes:
        hidden_sizes = policy.critic_hidden_sizes
    spec = NetworkSpec(
        in_features=in_features,
        out_features=out_features,
        hidden_sizes=hidden_sizes,
        activation=override.activation or policy.activation,
        head_gain=1.0 if is_critic else policy.output_gain,
        initialization=policy.initialization,
        layer_norm=policy.layer_norm,
        feature_norm=policy.feature_norm,
        observation_norm=policy.observation_norm and not pictures,
        gru=policy.gru,
        cnn=policy.cnn,
        pictures=pictures,
        **keys,
    )
    return POLICIES[override.policy_type or config.policy_type](spec)


def _actor(config: RunConfig, group: Group) -> ProbabilisticActor:
    """Create an actor: categorical, or normal within the bounds of its actions."""
    name, space = group.name, group.action_space
    parameters = (name, "parameters" if group.is_continuous else "logits")
    gaussian = config.policy.gaussian
    if group.is_continuous:
        outputs = group.action_size * (2 if gaussian.std == "by_observation" else 1)
    else:
        outputs = sum(group.choices)
    network = _network(
        config,
        group,
        is_critic=False,
        in_key=(name, "observation"),
        out_key=parameters,
        memory_keys=((name, "hidden"), ("next", name, "hidden")),
        active_key=(name, "active"),
        in_features=group.observation_size,
        out_features=outputs,
        pictures=((1, group.image),) if group.image else (),
    )
    options: dict[str, Any] = {}
    in_keys = {"logits": parameters}
    if isinstance(space, spaces.Box):
        in_keys = {"loc": (name, "loc"), "scale": (name, "scale")}
        head = GaussianHead(gaussian, space)
        to_both = TensorDictModule(head, [parameters], [*in_keys.values()])
        network = TensorDictSequential(network, to_both)
        if gaussian.bounds == "tanh":
            distribution = TanhNormal
            options["low"], options["high"] = head.low, head.high
            options["event_dims"] = 0 if config.splits_actions else 1
        else:
            distribution = IndependentNormal
            options["event_dim"] = 0 if config.splits_actions else 1
    elif group.masked:
        in_keys["mask"] = (name, "action_mask")
        distribution = MaskedCategorical
    elif group.is_discrete:
        distribution = torch.distributions.Categorical
        # The algorithm checks the weights once per iteration, which is far cheaper.
        options["validate_args"] = False
    else:
        distribution = MultiCategorical
        options["choices"] = group.choices
        options["event_dims"] = 0 if config.splits_actions else 1
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
    pictures = tuple((len(each.agents), each.image) for each in groups.values() if each.image)
    if pictures and len(pictures) < len(groups):
        raise ValueError(
            f"only some groups of environment {config.environment.name!r} observe pictures, so no "
            "critic can see all observations; set environment.state=true, or use IPPO"
        )
    return TensorDictSequential(
        TensorDictModule(
            JointObservation(),
            in_keys=[(name, "observation") for name in groups]
            + [(name, "active") for name in groups],
            out_keys=["joint_observation"],
        ),
        _critic(config, group, "joint_observation", joint_size, pictures=pictures),
    )


def _critic(
    config: RunConfig,
    group: Group | None,
    in_key: NestedKey,
    in_features: int,
    *,
    active_key: NestedKey | None = None,
    pictures: tuple[tuple[int, Image], ...] = (),
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
        pictures=pictures,
    )
