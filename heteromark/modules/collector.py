"""The collector factory, and the collectors."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase, TensorDictSequential
from torchrl.collectors import Collector as TorchRLCollector
from torchrl.collectors import MultiSyncCollector as TorchRLMultiSyncCollector
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType

from heteromark.config.schema import RunConfig
from heteromark.environment.seeds import stream_seed
from heteromark.modules.registry import Registry

MakeEnvironment = Callable[[int], EnvBase]


class Collector(Protocol):
    """Plays the environments with the actors."""

    def restart(self, seed: int, *stream: int | str) -> None:
        """Abandon the running episodes and start new ones from seeds of the given stream.

        This is what makes runs resumable: everything collected afterwards follows from the seeds,
        the actors and the random state, whatever was collected before.
        """

    def collect(self) -> TensorDict:
        """The next T steps of every copy.

        Returns:
            [N, T] on the device: what the agents saw, did and, under "next", got and saw then. The
            memory is reused by the next call.

        Raises:
            RuntimeError: `restart` was never called, or a process of the collector died.
        """

    def close(self) -> None:
        """End the processes and environments that this collector started."""


class SyncCollector:
    """Collects in this process, on TorchRL's collector; see Collector.

    Args:
        environment: batch size [N]; finished copies reset by themselves.
        actors: by group; each writes its group's actions and log-probs.
        frames_per_batch: N * T.
        device: where the actors are and the batch goes.
    """

    def __init__(
        self,
        environment: EnvBase,
        actors: Mapping[str, TensorDictModuleBase],
        frames_per_batch: int,
        device: torch.device,
    ) -> None:
        self.environment = environment
        self._started = False
        self._collector = TorchRLCollector(
            environment,
            TensorDictSequential(*actors.values()),
            frames_per_batch=frames_per_batch,
            total_frames=-1,
            env_device=environment.device,
            track_traj_ids=False,
            **_common(device),
        )

    def restart(self, seed: int, *stream: int | str) -> None:
        self.environment.reseed(seed, *stream)
        self._collector.reset()
        self._started = True

    def collect(self) -> TensorDict:
        if not self._started:
            raise RuntimeError("the collector was not started: call restart() first")
        # A new dictionary, so that keys which an algorithm adds do not end up in the next batch.
        return self._collector.rollout().copy()

    def close(self) -> None:
        """Nothing to end: the environment belongs to whoever made it."""


class MultiSyncCollector:
    """Splits the copies over processes that play at the same time; see Collector.

    Every process samples actions from a random state of its own, which `restart` seeds. So a run
    with several collectors is as reproducible as one without, but not the same run.

    Args:
        make_environment: makes an environment of that many copies.
        num_envs: copies in all, N.
        actors: by group; each writes its group's actions and log-probs.
        frames_per_batch: N * T.
        num_collectors: processes; divides N.
        device: where the actors are and the batch goes.
    """

    def __init__(
        self,
        make_environment: MakeEnvironment,
        num_envs: int,
        actors: Mapping[str, TensorDictModuleBase],
        frames_per_batch: int,
        num_collectors: int,
        device: torch.device,
    ) -> None:
        self._batch: Any = None
        self._reports = tempfile.TemporaryDirectory(prefix="heteromark-collector-")
        share = functools.partial(make_environment, num_envs // num_collectors)
        self._collector = TorchRLMultiSyncCollector(
            [share] * num_collectors,
            TensorDictSequential(*actors.values()),
            frames_per_batch=frames_per_batch,
            total_frames=-1,
            env_device="cpu",
            cat_results=0,
            collector_class=functools.partial(_ReportingCollector, Path(self._reports.name)),
            num_sub_threads=1,
            use_buffers=True,
            **_common(device),
        )
        self._num_collectors = num_collectors

    def restart(self, seed: int, *stream: int | str) -> None:
        # the iterator asks for a batch only when it is advanced: nothing is under way here
        streams = [(seed, *stream, "collector", i) for i in range(self._num_collectors)]
        self._collector.map_fn("restart", streams)
        if self._batch is None:
            self._batch = iter(self._collector)

    def collect(self) -> TensorDict:
        if self._batch is None:
            raise RuntimeError("the collector was not started: call restart() first")
        self._collector.update_policy_weights_()
        try:
            return next(self._batch).copy()
        except RuntimeError as error:
            reports = sorted(Path(self._reports.name).glob("*.txt"))
            if not reports:
                raise
            told = "\n".join(report.read_text(encoding="utf-8") for report in reports)
            raise RuntimeError(f"a process of the collector failed:\n{told}") from error

    def close(self) -> None:
        # a process that died cannot be shut down in an orderly way
        with contextlib.suppress(RuntimeError, OSError, EOFError):
            self._collector.shutdown()
        self._reports.cleanup()


class _ReportingCollector(TorchRLCollector):
    """In a process of its own: restarts from seeds, and writes down why it failed."""

    def __init__(self, reports: Path, *args: Any, **kwargs: Any) -> None:
        self._reports = reports
        super().__init__(*args, **kwargs)

    def restart(self, seed: int, *stream: int | str) -> None:
        """Seed the environments and the sampling of actions, and start new episodes."""
        own = stream_seed(seed, *stream, "actions")
        torch.manual_seed(own)
        # environments may draw from these
        np.random.seed(own)  # noqa: NPY002
        random.seed(own)
        self.env.reseed(seed, *stream)
        self.reset()

    def rollout(self) -> TensorDict:
        try:
            return super().rollout()
        except Exception:
            report = self._reports / f"{os.getpid()}.txt"
            report.write_text(traceback.format_exc(), encoding="utf-8")
            raise


def _common(device: torch.device) -> dict[str, Any]:
    return {
        "exploration_type": ExplorationType.RANDOM,
        "policy_device": device,
        "storing_device": device,
        "auto_register_policy_transforms": False,
    }


CollectorMaker = Callable[
    [RunConfig, EnvBase, MakeEnvironment, Mapping[str, TensorDictModuleBase], torch.device],
    Collector,
]
COLLECTORS: Registry[CollectorMaker] = Registry("collector_type")


class CollectorFactory:
    """Creates the collector of a run."""

    def create(
        self,
        config: RunConfig,
        environment: EnvBase,
        make_environment: MakeEnvironment,
        actors: Mapping[str, TensorDictModuleBase],
        device: torch.device,
    ) -> Collector:
        """A collector that has not been started.

        Args:
            environment: the run's, of all copies.
            make_environment: makes another one of fewer copies; picklable.
        """
        make_collector = COLLECTORS[config.collector_type]
        return make_collector(config, environment, make_environment, actors, device)


@COLLECTORS.register("sync")
def _sync(
    config: RunConfig,
    environment: EnvBase,
    make_environment: MakeEnvironment,
    actors: Mapping[str, TensorDictModuleBase],
    device: torch.device,
) -> Collector:
    return SyncCollector(environment, actors, config.collector.frames_per_batch, device)


@COLLECTORS.register("multi_sync")
def _multi_sync(
    config: RunConfig,
    environment: EnvBase,
    make_environment: MakeEnvironment,
    actors: Mapping[str, TensorDictModuleBase],
    device: torch.device,
) -> Collector:
    return MultiSyncCollector(
        make_environment,
        config.environment.num_parallel_envs,
        actors,
        config.collector.frames_per_batch,
        config.collector.num_collectors,
        device,
    )
