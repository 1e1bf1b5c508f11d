"""What the loop works with, and what makes it: the seam where the kinds of agents meet.

The loop, the checkpoints and the commands know no kind. A kind registers under its name, as
algorithms do, and answers what `Kind` asks. What kinds differ in before anything is built, such as
which keys of a config act, is asked in `config.rules.kinds`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
from heteromark.training.device import require_device, set_arithmetic
from heteromark.training.random_state import seed_everything

if TYPE_CHECKING:
    from torchrl.envs import EnvBase

    from heteromark.modules.collector import Collector
    from heteromark.training.evaluation_request import EvaluationRequest
    from heteromark.training.saved_policy import SavedPolicy

Report = dict[str, Any]


class Algorithm(Protocol):
    """Turns a batch into updated weights."""

    def update(self, batch: Any, iteration: int) -> dict[str, float]:
        """Update on a batch; returns metrics by column name. Raises Diverged."""


class Evaluator(Protocol):
    """Judges the policies as they are."""

    def evaluate(self, seed: int, opponent_pool: Mapping[str, Any] | None = None) -> Report:
        """The report of an evaluation; the same for one seed."""

    def close(self) -> None:
        """Let go of environments."""


@dataclass(frozen=True)
class Components:
    """What the loop works with."""

    learner: Learner  # what is trained, and with what
    collector: Collector  # collects a batch
    algorithm: Algorithm  # turns it into updated weights
    evaluator: Evaluator  # judges the policies
    # what the episodes of a batch were like, as metrics by name
    measure: Callable[[Any], dict[str, float | int]]
    device: torch.device
    environment: EnvBase | None = None  # that it trains in; language-model agents have none

    def close(self) -> None:
        """Let go of environments and worker processes."""
        self.evaluator.close()
        self.collector.close()
        if self.environment is not None:
            self.environment.close()


class Kind(Protocol):
    """What is asked of one kind of agents."""

    def components(self, config: RunConfig, device: torch.device) -> Components:
        """Build what a run is trained with.

        Raises:
            ConfigError, ValueError, ModuleNotFoundError: the config does not fit the environment,
                the task or the models.
        """

    def plan(self, config: RunConfig, components: Components) -> Iterator[str]:
        """Describe what would be trained, a line each."""

    def quick_to_build(self, config: RunConfig) -> RunConfig:
        """The config without what takes long to build and changes nothing of the plan."""

    def faults(self, config: RunConfig) -> list[Fault]:
        """What does not fit, as only the environment can tell; it is made once for that."""

    def evaluation(self, request: EvaluationRequest, config: RunConfig) -> EvaluationConfig:
        """How to evaluate: as the run's config says, but for what was asked for."""

    def refused(self, request: EvaluationRequest, config: RunConfig) -> Iterator[Fault]:
        """Options that this kind of run does not know, or that contradict each other."""

    def evaluate(
        self, saved: SavedPolicy, request: EvaluationRequest, device: torch.device
    ) -> tuple[Report, list[Any]]:
        """Evaluate what a file holds: the report, and lines (or what rich can print) about it.

        Raises:
            ConfigError: an option does not fit.
            ValueError: the file does not fit its environment, task or model.
        """


KINDS: Registry[Callable[[], Kind]] = Registry(
    "env_type", {NETWORKS: "training.networks", LLM: "llm.kind"}
)


def kind_of(config: RunConfig) -> Kind:
    """The kind of a run's agents; imports what it needs."""
    return KINDS[config.kind]()


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
            ConfigError: sections contradict each other; or overrides do not fit the groups of the
                environment, or the device the machine.
            ValueError, ModuleNotFoundError: the config does not fit the environment.
        """
        config = self.config
        if faults := run_faults(config, "config"):
            raise ConfigError(faults)
        device = require_device(config)
        seed_everything(config.seed)
        set_arithmetic(config, device)
        return kind_of(config).components(config, device)
