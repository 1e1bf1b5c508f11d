"""Build the components that train networks over arrays."""

from __future__ import annotations

import functools
import logging

import torch
from torchrl.envs import EnvBase

from heteromark.algorithm.base import ALGORITHMS
from heteromark.algorithm.learner import Learner
from heteromark.config.models.run import RunConfig
from heteromark.modules.collector import Collector, CollectorFactory
from heteromark.modules.loss import LossFactory
from heteromark.modules.optimizer import OptimizerFactory
from heteromark.modules.policy import PolicyFactory, recurrent_groups
from heteromark.modules.replay_buffer import ReplayBufferFactory
from heteromark.modules.sharing import Share, SharedCollector
from heteromark.modules.value_norm import PreciseValueNorm
from heteromark.training.components import Components
from heteromark.training.environments import make_environment, require_evaluation
from heteromark.training.evaluator import Evaluator
from heteromark.training.metrics import episode_metrics

# TorchRL logs every storage that it allocates.
logging.getLogger("torchrl").setLevel(logging.WARNING)


def network_components(config: RunConfig, device: torch.device, share: Share | None) -> Components:
    """See `training.components.Kind.components`."""
    if share is not None or config.collector_type == "multi_sync":
        # The episodes are played in other environments; one copy is enough for the specs.
        environment = make_environment(config, 1)
    else:
        environment = make_environment(config, device=device)
    try:
        require_evaluation(config, environment)
        return _components_for(config, environment, device, share)
    except BaseException:
        environment.close()
        raise


def _components_for(
    config: RunConfig, environment: EnvBase, device: torch.device, share: Share | None
) -> Components:
    """Build all components for an environment."""
    groups = environment.groups
    policies = PolicyFactory().create(config, groups, environment.state_size)
    for network in (*policies.actors.values(), *policies.critics.values()):
        network.to(device)
    norms = policies.critics if config.loss.normalize_value else ()
    floor = config.loss.value_norm_floor
    optimizers = OptimizerFactory()
    buffers = ReplayBufferFactory()
    recurrent = recurrent_groups(policies.actors)
    collector: Collector
    if share is not None:
        collector = SharedCollector(share, config, policies.actors, device)
    else:
        collector = CollectorFactory().create(
            config,
            environment,
            functools.partial(make_environment, config, recurrent=recurrent),
            policies.actors,
            device,
        )
    learner = Learner(
        groups=groups,
        actors=policies.actors,
        critics=policies.critics,
        losses=LossFactory().create(config, policies, groups),
        actor_optimizers=optimizers.create_for_actors(config, policies.actors, groups),
        critic_optimizers=optimizers.create_for_critics(config, policies.critics),
        actor_buffers=buffers.create(config, policies.actors, device),
        critic_buffers=buffers.create(
            config, policies.critics, device, config.replay_buffer.critic_minibatch_size
        ),
        value_norms={name: PreciseValueNorm(floor, device) for name in norms},
        turn_based=environment.turn_based,
        opponent_pool=environment.opponent_pool,
    )
    return Components(
        environment=environment,
        learner=learner,
        collector=collector,
        algorithm=ALGORITHMS[config.agent.algorithm](config, learner),
        evaluator=Evaluator(
            config, policies.actors, shared=None if share is None else share.evaluation
        ),
        measure=episode_metrics,
        device=device,
    )
