"""Play the next steps of an environment's copies, for one run or for several that share them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from tensordict import NestedKey, TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase, TensorDictSequential
from torch import Tensor
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type

from heteromark.modules.plain import plain_actors
from heteromark.modules.policy import STEP_COUNT

Actors = Mapping[str, TensorDictModuleBase]
Entries = dict[Any, Tensor]  # by NestedKey


class RolloutPolicy:
    """One run's actors, which choose the actions of its copies.

    Args:
        actors: by group, all on one device; each writes its group's actions and log-probs.
        memory_size: size of each agent's hidden state, for recurrent actors.
        randomness: context in which actions are drawn.
        is_deterministic: choose the most likely actions. Otherwise they are drawn.
    """

    def __init__(
        self,
        actors: Actors,
        memory_size: int,
        randomness: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
        is_deterministic: bool = False,
    ) -> None:
        self.randomness = randomness
        self._is_deterministic = is_deterministic
        self._memory_size = memory_size
        self.device = next(next(iter(actors.values())).parameters()).device
        read = dict.fromkeys(key for actor in actors.values() for key in actor.in_keys)
        self._remembered = [name for name in actors if (name, "hidden") in read]
        self._read: list[NestedKey] = [
            key for key in read if key not in {(name, "hidden") for name in self._remembered}
        ]
        self._plain = plain_actors(actors)
        self._policy = TensorDictSequential(*actors.values())
        self.hidden: dict[str, Tensor] = {}  # by group with a recurrent actor, [N, n, memory_size]

    def reset_hidden(self, environment: EnvBase, copies: int) -> None:
        """Set all hidden states to zeros."""
        self.hidden = {
            name: torch.zeros(
                copies, len(environment.groups[name].agents), self._memory_size, device=self.device
            )
            for name in self._remembered
        }

    def act(self, now: TensorDictBase, copies: slice) -> Entries:
        """Return what the actors write for these copies, and the hidden states before it.

        The results depend on nothing but these copies: the actors read copies of their entries,
        whose layout in memory does not depend on the other copies.
        """
        seen: Entries = {
            key: now.get(key)[copies].contiguous().to(self.device) for key in self._read
        }
        before: Entries = {}
        if self._remembered:
            begins = now.get(STEP_COUNT)[copies].to(self.device) == 0
            for name in self._remembered:
                before[name, "hidden"] = self.hidden[name].masked_fill(begins.unsqueeze(-1), 0.0)
        seen |= before
        written: Entries = {}
        with self.randomness():
            if self._plain is None:
                batch = TensorDict(batch_size=[copies.stop - copies.start], device=self.device)
                for key, entry in seen.items():
                    batch.set(key, entry)
                acted = self._policy(batch)
                keys = (key for key in acted.keys(True, True) if key not in seen)
                written = {key: acted.get(key) for key in keys}
            else:
                for actor in self._plain:
                    written |= actor.act(seen, self._is_deterministic)
        for name in self._remembered:
            self.hidden[name] = written["next", name, "hidden"]
        return before | written


class RolloutPolicies:
    """The policies of several runs that share an environment's copies evenly, in their order.

    If a policy raises an error, its agents take their first legal action from then on, and the
    other policies are not affected. The error of a single policy is raised at once.

    Attributes:
        copies: of each policy.
        errors: by the policy's number.
    """

    def __init__(self, environment: EnvBase, policies: Sequence[RolloutPolicy]) -> None:
        self.environment, self._policies = environment, policies
        self.copies = shares_of(environment, len(policies))
        self.errors: dict[int, Exception] = {}

    def reset_hidden(self) -> None:
        """Set the hidden states of all policies to zeros."""
        for policy, copies in zip(self._policies, self.copies, strict=True):
            policy.reset_hidden(self.environment, copies.stop - copies.start)

    def act(self, now: TensorDictBase) -> list[Entries]:
        """Set all actions; return what each policy's actors write."""
        chosen = [self._choice(number, now) for number in range(len(self._policies))]
        for name in self.environment.groups:
            actions = [each[name, "action"] for each in chosen]
            action = actions[0] if len(actions) == 1 else torch.cat(actions)
            now.set((name, "action"), action.to(self.environment.device))
        return chosen

    def _choice(self, number: int, now: TensorDictBase) -> Entries:
        policy, copies = self._policies[number], self.copies[number]
        if len(self._policies) == 1:
            return policy.act(now, copies)
        if number not in self.errors:
            try:
                return policy.act(now, copies)
            except Exception as error:
                self.errors[number] = error
        return {
            (name, "action"): now[name, "action_mask"][copies].int().argmax(-1).to(policy.device)
            for name in self.environment.groups
        }


def shares_of(environment: EnvBase, number: int) -> list[slice]:
    """Divide the copies of an environment evenly, in order."""
    size = environment.batch_size[0] // number
    return [slice(i * size, (i + 1) * size) for i in range(number)]


class Rollout:
    """Steps an environment, whose copies are divided evenly between the policies, in their order.

    Args:
        environment: batch size [K * N], for K policies; restarts finished copies. With more than
            one policy, all its groups have "action_mask".
        policies: of each run.
        steps: T, the steps of a batch.
        device: of the actors and the batches.
    """

    def __init__(
        self,
        environment: EnvBase,
        policies: Sequence[RolloutPolicy],
        steps: int,
        device: torch.device,
    ) -> None:
        self.environment = environment
        self._shared = RolloutPolicies(environment, policies)
        self._steps = steps
        self._device = device
        self._share = environment.batch_size[0] // len(policies)
        self._now: TensorDictBase | None = None
        self._common: Entries = {}  # [K * N, T, ...]
        self._own: list[Entries] = [{} for _ in policies]  # [N, T, ...]

    @property
    def is_started(self) -> bool:
        """Whether episodes are running."""
        return self._now is not None

    def reset(self) -> None:
        """Abandon the running episodes, and begin new ones in all copies."""
        self.continue_from(self.environment.reset())
        self._shared.reset_hidden()

    def continue_from(self, now: TensorDictBase) -> None:
        """Continue from these outputs of the environment."""
        self._now = now

    def collect(self) -> list[TensorDict | Exception]:
        """Play the next T steps.

        Returns:
            Each policy's batch [N, T], whose memory is reused; or the error that it raised, if
            there are several policies.
        """
        with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
            for t in range(self._steps):
                self._step(t)
        errors = self._shared.errors
        return [
            errors[number] if number in errors else self._batch(number)
            for number in range(len(self._own))
        ]

    def _step(self, t: int) -> None:
        now, environment = self._now, self.environment
        assert now is not None, "`reset` was called"
        chosen = self._shared.act(now)
        stepped, self._now = environment.step_and_maybe_reset(now)
        written = {(name, "action") for name in environment.groups}
        for key in stepped.keys(True, True):
            if key not in written:
                self._store(self._common, key, t, stepped.get(key))
        for own, entries in zip(self._own, chosen, strict=True):
            for key, entry in entries.items():
                self._store(own, key, t, entry)

    def _store(self, storage: Entries, key: Any, t: int, entry: Tensor) -> None:
        if key not in storage:
            shape = (entry.shape[0], self._steps, *entry.shape[1:])
            storage[key] = torch.empty(shape, dtype=entry.dtype, device=self._device)
        storage[key][:, t] = entry

    def _batch(self, number: int) -> TensorDict:
        batch = TensorDict({}, batch_size=[self._share, self._steps], device=self._device)
        for key, entry in self._common.items():
            batch.set(key, entry[self._shared.copies[number]])
        for key, entry in self._own[number].items():
            batch.set(key, entry)
        return batch


@contextlib.contextmanager
def threads_of(environment: EnvBase) -> Iterator[None]:
    """Use one torch thread while collecting from an environment that is stepped by Python.

    Idle torch threads would keep the cores busy. With two workers on two cores, this made
    collection slower than without workers. Choosing actions for such copies is too little work to
    gain from several threads. The number of workers has no influence, because the number of
    threads can change the last bits of a result.
    """
    if not getattr(environment, "stepped_by_python", False):
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
