"""The collector factory, and the collector."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase, TensorDictSequential
from torchrl.collectors import Collector
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType

from heteromark.config.schema import RunConfig
from heteromark.modules.registry import Registry


class SyncCollector:
    """TorchRL's collector, with one addition: it restarts from given seeds.

    Restarting is what makes runs resumable: everything collected afterwards follows from the seeds
    and the global random state, whatever was collected before.

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
        self._collector = Collector(
            environment,
            TensorDictSequential(*actors.values()),
            frames_per_batch=frames_per_batch,
            total_frames=-1,
            exploration_type=ExplorationType.RANDOM,
            policy_device=device,
            storing_device=device,
            env_device=environment.device,
            track_traj_ids=False,
            auto_register_policy_transforms=False,
        )

    def restart(self, seed: int, *stream: int | str) -> None:
        """Abandon the running episodes and start new ones from seeds of the given stream."""
        self.environment.reseed(seed, *stream)
        self._collector.reset()
        self._started = True

    def collect(self) -> TensorDict:
        """The next T steps of every copy.

        Returns:
            [N, T] on the device: what the agents saw, did and, under "next", got and saw then. The
            memory is reused by the next call.

        Raises:
            RuntimeError: `restart` was never called.
        """
        if not self._started:
            raise RuntimeError("the collector was not started: call restart() first")
        # A new dictionary, so that keys which an algorithm adds do not end up in the next batch.
        return self._collector.rollout().copy()


COLLECTORS: Registry[Callable[..., SyncCollector]] = Registry("collector_type")
COLLECTORS.register("sync")(SyncCollector)


class CollectorFactory:
    """Creates the collector of a run."""

    def create(
        self,
        config: RunConfig,
        environment: EnvBase,
        actors: Mapping[str, TensorDictModuleBase],
        device: torch.device,
    ) -> SyncCollector:
        """A collector that has not been started."""
        make_collector = COLLECTORS[config.collector_type]
        return make_collector(environment, actors, config.collector.frames_per_batch, device)
