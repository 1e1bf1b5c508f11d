"""The components of a run, and the interface that each kind of agents implements to build them.

The loop, the checkpoints and the commands work for every kind of agents. A kind registers under its
name and implements `Kind`. `config.rules.kinds` holds the rules that apply before anything is
built, such as which config keys have an effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from heteromark.algorithm.learner import Learner
from heteromark.config.errors import ConfigError, Fault
from heteromark.config.models.algorithms import LLM, NETWORKS
from heteromark.config.models.components import EvaluationConfig
from heteromark.config.models.run import RunConfig
from heteromark.config.rules.kinds import run_faults
from heteromark.import_paths import Registry
from heteromark.modules.random_state import seed_everything
from heteromark.training.device import require_device, set_arithmetic

if TYPE_CHECKING:
    from torchrl.envs import EnvBase

    from heteromark.modules.collector import Collector
    from heteromark.modules.sharing import Share
    from heteromark.training.evaluation_request import EvaluationRequest
    from heteromark.training.saved_policy import SavedPolicy

Report = dict[str, Any]


class Algorithm(Protocol):
    """Updates the weights from a batch."""

    def update(self, batch: Any, iteration: int) -> dict[str, float]:
        """Update on a batch and return metrics by column name. Raises Diverged."""

    def state_dict(self) -> dict[str, Any]:
        """Return what an exact resume needs besides the learner, as tensors and containers."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""


class Evaluator(Protocol):
    """Evaluates the current policies."""

    def evaluate(self, seed: int, opponent_pool: Mapping[str, Any] | None = None) -> Report:
        """Return the report of an evaluation. The same seed gives the same report."""

    def close(self) -> None:
        """Close the evaluation's environments."""


@dataclass(frozen=True)
class Components:
    """What the training loop needs."""

    learner: Learner  # networks, losses and optimizers
    collector: Collector
    algorithm: Algorithm
    evaluator: Evaluator
    measure: Callable[[Any], dict[str, float | int]]  # episode metrics of a batch, by name
    device: torch.device
    environment: EnvBase | None = None  # for training; None for language-model agents

    def close(self) -> None:
        """Close environments and end worker processes."""
        with ExitStack() as parts:  # closes each, even if one of them fails
            if self.environment is not None:
                parts.callback(self.environment.close)
            parts.callback(self.collector.close)
            parts.callback(self.evaluator.close)


class Kind(Protocol):
    """What one kind of agents must implement."""

    def components(
        self, config: RunConfig, device: torch.device, share: Share | None = None
    ) -> Components:
        """Build the components of a run.

        Args:
            config: the run.
            device: of its networks.
            share: the environment that it shares with other runs; None: it has its own.

        Raises:
            ConfigError, ValueError, ModuleNotFoundError: the config does not fit the environment,
                the task or the models.
        """

    def plan(self, config: RunConfig, components: Components) -> Iterator[str]:
        """Yield lines that describe what would be trained."""

    def quick_to_build(self, config: RunConfig) -> RunConfig:
        """Return the config without parts that are slow to build and do not affect the plan."""

    def faults(self, config: RunConfig) -> list[Fault]:
        """Create the environment once and return everything in the config that does not fit it."""

    def evaluation(self, request: EvaluationRequest, config: RunConfig) -> EvaluationConfig:
        """Return the run's evaluation settings, with the requested options applied."""

    def refused(self, request: EvaluationRequest, config: RunConfig) -> Iterator[Fault]:
        """Yield a fault per option that does not apply to this kind or contradicts another."""

    def evaluate(
        self, saved: SavedPolicy, request: EvaluationRequest, device: torch.device
    ) -> tuple[Report, list[Any]]:
        """Evaluate a saved policy.

        Returns:
            The report, and its printed form: lines of text or objects that rich can print.

        Raises:
            ConfigError: an option does not fit.
            ValueError: the file does not fit its environment, task or model.
        """


KINDS: Registry[Callable[[], Kind]] = Registry(
    "env_type", {NETWORKS: "training.networks", LLM: "llm.kind"}
)


def kind_of(config: RunConfig) -> Kind:
    """Return the kind of a run's agents, and import the modules it needs."""
    return KINDS[config.kind]()


class ComponentFactory:
    """Creates all components of one run.

    Args:
        config: the run.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    def create(self, share: Share | None = None) -> Components:
        """Seed everything, then build. So the initial weights depend only on the config.

        Args:
            share: the environment that the run shares with others; None: it has its own.

        Raises:
            ConfigError: sections contradict each other, overrides do not fit the environment's
                groups, or the machine does not have the device.
            ValueError, ModuleNotFoundError: the config does not fit the environment.
        """
        config = self.config
        if faults := run_faults(config, "config"):
            raise ConfigError(faults)
        device = require_device(config)
        seed_everything(config.seed)
        set_arithmetic(config, device)
        return kind_of(config).components(config, device, share)
