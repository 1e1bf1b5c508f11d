"""One environment for several runs that are trained in lock-step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from torchrl.envs import EnvBase

from heteromark.config.models.run import RunConfig
from heteromark.modules.random_state import OwnRandomState
from heteromark.modules.rollout import Actors, Rollout, RolloutPolicy


class SharedEnvironment:
    """The copies of several runs in one environment, stepped together.

    Each run gets the same batches, bit for bit, as from an environment of its own. When one run
    asks for its next batch, a batch is collected for every run, so all must then be about to
    collect. A run may leave at any time.

    Args:
        make_environment: creates an environment with a number of copies, which has the methods
            `reseed_shares`, `split_episodes` and `join_episodes` of `SkirmishEnv`.
    """

    def __init__(self, make_environment: Callable[[int], EnvBase]) -> None:
        self._make_environment = make_environment
        self._members: list[SharedCollector] = []
        self._playing: list[SharedCollector] = []  # those that the environment was created for
        self._environment: EnvBase | None = None
        self._rollout: Rollout | None = None
        self._failure: Exception | None = None

    def join(self, member: SharedCollector) -> None:
        """Add a run."""
        self._members.append(member)

    def leave(self, member: SharedCollector) -> None:
        """Remove a run, unless it has left already."""
        self._members = [other for other in self._members if other is not member]
        if not self._members:
            self._close()

    def collect(self) -> None:
        """Collect the next batch of every run.

        Raises:
            RuntimeError: the environment failed, now or earlier. No run can continue in it, because
                it may have played a part of a batch.
        """
        began = time.perf_counter()
        try:
            self._require_working()
            if self._playing != self._members:
                self._build()
            assert self._rollout is not None, "`_build` creates it"
            batches = self._rollout.collect()
        except Exception as error:
            self._failure = self._failure or error
            raise
        seconds = (time.perf_counter() - began) / len(batches)
        for member, batch in zip(self._playing, batches, strict=True):
            member.receive(batch, seconds)

    def _require_working(self) -> None:
        if self._failure is not None:
            raise RuntimeError(
                f"the environment that this run shares with others failed: {self._failure}"
            ) from self._failure

    def episodes_of(self, member: SharedCollector) -> dict[str, Any]:
        """Return the running episodes of a run that has collected."""
        assert self._environment is not None, "the run has collected"
        return self._environment.split_episodes(len(self._playing))[self._playing.index(member)]

    def _build(self) -> None:
        """Create an environment for the present runs, and continue their episodes in it."""
        members, first = [*self._members], self._members[0]
        states = [
            member.state_dict() if member in self._playing else member.resumed for member in members
        ]
        environment = self._make_environment(first.copies * len(members))
        environment.reseed_shares([member.stream for member in members])
        policies = [member.policy for member in members]
        rollout = Rollout(environment, policies, first.steps, first.device)
        rollout.reset()
        known = [state for state in states if state is not None]
        if known:
            assert len(known) == len(members), "all runs start at the same iteration"
            rollout.continue_from(
                environment.join_episodes([state["environment"] for state in known])
            )
            for policy, state in zip(policies, known, strict=True):
                policy.hidden.update(state["hidden"])
        self._close()
        self._environment, self._rollout, self._playing = environment, rollout, members

    def _close(self) -> None:
        if self._environment is not None:
            self._environment.close()
        self._environment, self._rollout, self._playing = None, None, []


@dataclass(frozen=True)
class Share:
    """What a run needs to collect in a shared environment.

    Attributes:
        environment: of all its runs.
        evaluation: of all its runs, a `training.evaluator.SharedEvaluation`.
        randomness: the run's random state, from which its actions are drawn.
    """

    environment: SharedEnvironment
    evaluation: Any
    randomness: OwnRandomState


class SharedCollector:
    """A run's part of a SharedEnvironment; see `collector.Collector`.

    Attributes:
        borrowed: seconds that the last batch took in the turn of another run; negative: minus the
            seconds of the last `collect` that were spent for other runs.
    """

    def __init__(
        self, share: Share, config: RunConfig, actors: Actors, device: torch.device
    ) -> None:
        self._shared = share.environment
        self.device = device
        self.copies = config.environment.num_parallel_envs
        self.steps = config.collector.frames_per_batch // self.copies
        self.policy = RolloutPolicy(actors, config.policy.gru.memory_size, share.randomness.drawing)
        self.stream: tuple[Any, ...] = ()
        self.resumed: dict[str, Any] | None = None  # state to continue from
        self.borrowed = 0.0
        self._batch: TensorDict | Exception | None = None
        self._seconds = 0.0

    def restart(self, seed: int, *stream: int | str) -> None:
        self.stream, self.resumed = (seed, *stream), None
        self._shared.leave(self)
        self._shared.join(self)

    def state_dict(self) -> dict[str, Any]:
        hidden = {name: state.clone() for name, state in self.policy.hidden.items()}
        return {"environment": self._shared.episodes_of(self), "hidden": hidden}

    def load_state_dict(self, state: dict[str, Any]) -> dict[int, str]:
        self.resumed = state
        return {}

    def receive(self, batch: TensorDict | Exception, seconds: float) -> None:
        """Take the next batch, or the run's own error, and the time that it took."""
        if self._batch is not None:
            raise RuntimeError("the runs that share an environment are not in lock-step")
        self._batch, self._seconds = batch, seconds

    def collect(self) -> TensorDict:
        if not self.stream:
            raise RuntimeError("the collector was not started: call restart() first")
        began = time.perf_counter()
        if self._batch is None:
            self._shared.collect()
        batch, self._batch = self._batch, None
        assert batch is not None, "`receive` was called"
        self.borrowed = self._seconds - (time.perf_counter() - began)
        if isinstance(batch, Exception):
            raise batch
        return batch

    def close(self) -> None:
        self._shared.leave(self)
