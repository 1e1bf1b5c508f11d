"""All components of a run, from its config."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torchrl.envs import EnvBase

# imported for their registrations
from heteromark.algorithm import happo, ppo  # noqa: F401
from heteromark.algorithm.base import ALGORITHMS, Algorithm, Learner
from heteromark.config.compose.composition import selector_faults
from heteromark.config.errors import ConfigError, Fault
from heteromark.config.models.run import RunConfig
from heteromark.environment.opponents.pool import OpponentPool
from heteromark.modules.collector import Collector, CollectorFactory
from heteromark.modules.loss import LossFactory
from heteromark.modules.optimizer import OptimizerFactory
from heteromark.modules.policy import PolicyFactory, recurrent_groups, with_memory
from heteromark.modules.replay_buffer import ReplayBufferFactory
from heteromark.modules.value_norm import PreciseValueNorm
from heteromark.training.device import set_arithmetic
from heteromark.training.environments import make_environment, require_evaluation
from heteromark.training.evaluator import Evaluator
from heteromark.training.metrics import episode_metrics
from heteromark.training.random_state import seed_everything

if TYPE_CHECKING:
    from heteromark.llm.algorithm import TextAlgorithm
    from heteromark.llm.collector import TextCollector
    from heteromark.llm.evaluator import TextEvaluator

# TorchRL announces every storage that it allocates
logging.getLogger("torchrl").setLevel(logging.WARNING)


@dataclass(frozen=True)
class Components:
    """What the loop works with.

    Attributes:
        learner: networks, losses, optimizers and buffers.
        collector: collects a batch.
        algorithm: turns it into updated weights.
        evaluator: judges the policies.
        measure: what the episodes of a batch were like, as metrics by name.
        environment: that it trains in; language-model agents have none.
    """

    learner: Learner
    collector: Collector | TextCollector
    algorithm: Algorithm | TextAlgorithm
    evaluator: Evaluator | TextEvaluator
    measure: Callable[[Any], dict[str, float | int]]
    device: torch.device
    environment: EnvBase | None = None

    @property
    def opponent_pool(self) -> OpponentPool | None:
        """Past policies that the environment plays against, if it does."""
        return None if self.environment is None else self.environment.opponent_pool

    def close(self) -> None:
        """Let go of environments and worker processes."""
        self.evaluator.close()
        self.collector.close()
        if self.environment is not None:
            self.environment.close()


class ComponentFactory:
    """Creates all components of one run.

    Args:
        config: the run.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    def create(self) -> Components:
        """Seed everything, then build; so the initial weights follow from the config alone.

        Raises:
            ConfigError: selectors contradict the agent config; or overrides do not fit the groups
                of the environment, or the device the machine.
            ValueError, ModuleNotFoundError: the config does not fit the environment.
        """
        config = self.config
        if faults := selector_faults(config, "config"):
            raise ConfigError(faults)
        device = require_device(config)
        seed_everything(config.seed)
        set_arithmetic(config, device)
        if config.env_type == "text":
            # imported here, because it needs packages that other runs do not
            from heteromark.llm.kind import text_components

            return text_components(config, device)
        if config.collector_type == "multi_sync":
            # the collectors have environments of their own; one copy shows what they are like
            environment = make_environment(config, 1)
        else:
            environment = make_environment(config, device=device)
        try:
            require_evaluation(config, environment)
            return self._around(environment, device)
        except BaseException:
            environment.close()
            raise

    def _around(self, environment: EnvBase, device: torch.device) -> Components:
        """All that works with an environment."""
        config = self.config
        groups = environment.groups
        policies = PolicyFactory().create(config, groups, environment.state_size)
        for network in (*policies.actors.values(), *policies.critics.values()):
            network.to(device)
        norms = policies.critics if config.loss.normalize_value else ()
        optimizers = OptimizerFactory()
        buffers = ReplayBufferFactory()
        remembering = recurrent_groups(policies.actors)
        environment = with_memory(environment, remembering, config.policy.gru.hidden_size)
        collector = CollectorFactory().create(
            config,
            environment,
            functools.partial(make_environment, config, remembering=remembering),
            policies.actors,
            device,
        )
        learner = Learner(
            groups=groups,
            policies=policies,
            losses=LossFactory().create(config, policies, groups),
            actor_optimizers=optimizers.create_for_actors(config, policies.actors, groups),
            critic_optimizers=optimizers.create_for_critics(config, policies.critics),
            actor_buffers=buffers.create(config, policies.actors, device),
            critic_buffers=buffers.create(config, policies.critics, device),
            value_norms={name: PreciseValueNorm(device) for name in norms},
            turn_based=environment.turn_based,
        )
        return Components(
            environment=environment,
            learner=learner,
            collector=collector,
            algorithm=ALGORITHMS[config.agent.algorithm](config, learner),
            evaluator=Evaluator(config, policies.actors),
            measure=episode_metrics,
            device=device,
        )


def require_device(config: RunConfig) -> torch.device:
    """The device of a run.

    Raises:
        ConfigError: it is "cuda", and torch sees no GPU.
    """
    try:
        return resolve_device(config.device)
    except ValueError as error:
        fault = Fault("config", str(error), "device")
        raise ConfigError([fault]) from error


def resolve_device(name: str) -> torch.device:
    """The device of a config: auto takes a GPU if there is one.

    Raises:
        ValueError: "cuda" is asked for and torch sees no GPU.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ValueError(
            "device is cuda, but torch sees no CUDA GPU on this machine; use device=auto or "
            "device=cpu, or check the driver and that torch was installed with CUDA"
        )
    if name == "cpu" or not available:
        return torch.device("cpu")
    # With its index: TorchRL's collector takes "cuda" and "cuda:0" for two devices, and would act
    # with a copy of the policy that is never updated.
    return torch.device("cuda", torch.cuda.current_device())
