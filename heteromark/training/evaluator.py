"""Evaluation of policies over arrays."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type

from heteromark.config.models.components import EvaluationConfig
from heteromark.config.models.run import RunConfig
from heteromark.modules.random_state import OwnRandomState, preserved_random_state, seeded
from heteromark.modules.rollout import Actors, RolloutPolicies, RolloutPolicy, shares_of
from heteromark.seeds import stream_seed
from heteromark.training.environments import against, make_evaluation_environment, opponent_of
from heteromark.training.evaluation_report import Episode, as_report


class Evaluator:
    """Plays evaluation episodes in a separate environment, created at the first evaluation.

    Does not affect the random streams of the training.

    Args:
        config: the run.
        actors: by group, all on one device.
        settings: how to evaluate; default: the run's `evaluation`.
        shared: evaluations of several runs at once; None: this one only.

    Attributes:
        borrowed: see `modules.sharing.SharedCollector`, for the last evaluation.
    """

    def __init__(
        self,
        config: RunConfig,
        actors: Actors,
        settings: EvaluationConfig | None = None,
        shared: SharedEvaluation | None = None,
    ) -> None:
        self.config = config
        self.actors = actors
        self.settings = settings or config.evaluation
        self._shared = shared or SharedEvaluation()
        self._shared.join(self)
        self.borrowed = 0.0

    @property
    def copies(self) -> int:
        """Number of copies that play."""
        return min(self.settings.episodes, self.config.environment.num_parallel_envs)

    def evaluate(self, seed: int, opponent_pool: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Play `settings.episodes` episodes.

        Copy i of N plays the episodes i, i + N, … to their ends. Taking the first episodes to
        finish instead would over-represent short ones.

        Args:
            seed: seeds the environments and, unless deterministic, the actions. The same seed
                gives the same episodes.
            opponent_pool: state of the pool of past policies to play against.

        Returns:
            The report, see `as_report`.

        Raises:
            ValueError: the settings do not fit the environment.
        """
        began = time.perf_counter()
        report, seconds = self._shared.report_of(self, seed, opponent_pool)
        self.borrowed = seconds - (time.perf_counter() - began)
        return report

    def report(self, episodes: Sequence[Episode], seed: int, turn_based: bool) -> dict[str, Any]:
        """Return the report of these episodes."""
        opponent = opponent_of(self.config, self.settings) if turn_based else None
        report = as_report(episodes, self.settings, seed, opponent)
        if self.config.env_type == "skirmish":
            skirmish = against(self.config, self.settings).environment.skirmish
            report["opponent"] = skirmish.opponent
        return report

    def close(self) -> None:
        """Close the environment, if there is one."""
        self._shared.leave(self)


class SharedEvaluation:
    """Evaluates several runs at once, whose copies are in one environment.

    When one run asks for its report, all are evaluated, so all must then be due for evaluation.
    """

    def __init__(self) -> None:
        self._members: list[Evaluator] = []
        self._playing: list[Evaluator] = []
        self._environment: EnvBase | None = None
        # each report, and its share of the seconds, by identity of the evaluator
        self._reports: dict[int, tuple[dict[str, Any] | Exception, float]] = {}

    def join(self, member: Evaluator) -> None:
        """Add a run."""
        self._members.append(member)

    def leave(self, member: Evaluator) -> None:
        """Remove a run, and close the environment with the last one."""
        self._members = [other for other in self._members if other is not member]
        if not self._members:
            self._close()

    def report_of(
        self, member: Evaluator, seed: int, opponent_pool: Mapping[str, Any] | None
    ) -> tuple[dict[str, Any], float]:
        """Return the report of one run, see `Evaluator.evaluate`, and its share of the seconds."""
        if id(member) not in self._reports:
            seeds = [seed if other is member else other.config.seed for other in self._members]
            self._evaluate(seeds, opponent_pool)
        report, seconds = self._reports.pop(id(member))
        if isinstance(report, Exception):
            raise report
        return report, seconds

    def _evaluate(self, seeds: Sequence[int], opponent_pool: Mapping[str, Any] | None) -> None:
        began = time.perf_counter()
        members, first = self._members, self._members[0]
        if self._playing != members:
            self._close()
            with preserved_random_state():
                self._environment = make_evaluation_environment(
                    first.config, first.settings, first.copies * len(members)
                )
            self._playing = [*members]
        environment = self._environment
        assert environment is not None, "it was just created"
        load_past_policies(environment, first.actors, opponent_pool)
        tallies = [Tally(each.settings.episodes, each.copies) for each in members]
        shares = shares_of(environment, len(members))

        def on_step(after: TensorDictBase, cut_off: Tensor) -> bool:
            for tally, copies in zip(tallies, shares, strict=True):
                tally.add(after[copies], cut_off[copies])
            return any(tally.lacks_episodes for tally in tallies)

        policies = [
            RolloutPolicy(
                each.actors,
                each.config.policy.gru.memory_size,
                is_deterministic=each.settings.deterministic,
            )
            for each in members
        ]
        errors = play(environment, policies, first.settings, seeds, on_step)
        reports = [
            errors.get(number) or each.report(tally.episodes, seed, environment.turn_based)
            for number, (each, tally, seed) in enumerate(zip(members, tallies, seeds, strict=True))
        ]
        seconds = (time.perf_counter() - began) / len(members)
        for each, report in zip(members, reports, strict=True):
            self._reports[id(each)] = report, seconds

    def _close(self) -> None:
        if self._environment is not None:
            self._environment.close()
        self._environment, self._playing = None, []


class Tally:
    """The episodes that a policy has played.

    Args:
        episodes: to be played.
        copies: N.
    """

    def __init__(self, episodes: int, copies: int) -> None:
        self._number, self._copies = episodes, copies
        self._due = [episodes // copies + (i < episodes % copies) for i in range(copies)]
        self._played: list[list[Episode]] = [[] for _ in range(copies)]

    def add(self, after: TensorDictBase, cut_off: Tensor) -> None:
        """Add the episodes that ended in this step of the copies, [N]."""
        for i in after["done"].squeeze(-1).nonzero()[:, 0].tolist():
            if len(self._played[i]) < self._due[i]:
                self._played[i].append(
                    Episode(
                        float(after["episode_return"][i]),
                        int(after["step_count"][i]),
                        int(after["won"][i]),
                        bool(cut_off[i]),
                    )
                )

    @property
    def lacks_episodes(self) -> bool:
        """Whether some are still to be played."""
        return any(len(done) < due for done, due in zip(self._played, self._due, strict=True))

    @property
    def episodes(self) -> list[Episode]:
        """All of them, in order."""
        return [self._played[e % self._copies][e // self._copies] for e in range(self._number)]


def evaluate(
    config: RunConfig,
    actors: Actors,
    seed: int,
    settings: EvaluationConfig | None = None,
    opponent_pool: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Evaluate once with an `Evaluator`, and close it."""
    with contextlib.closing(Evaluator(config, actors, settings)) as evaluator:
        return evaluator.evaluate(seed, opponent_pool)


def load_past_policies(
    environment: EnvBase, actors: Actors, state: Mapping[str, Any] | None
) -> None:
    """Load past policies into an environment whose opponent is `past_self`.

    Args:
        actors: by group; templates for the past policies.
        state: of an opponent pool; None: the run has no pool.

    Raises:
        ValueError: the environment needs past policies, but there are none.
    """
    if environment.opponent_pool is None:
        return
    if state is None:
        raise ValueError(
            "--opponent is past_self, but the run has no past policies, because it was trained "
            "against a different opponent; use --opponent random, heuristic or self, or train a "
            "run with environment.opponent.kind=past_self"
        )
    environment.opponent_pool.load_state_dict(state, actors)


def play(
    environment: EnvBase,
    policies: Sequence[RolloutPolicy],
    settings: EvaluationConfig,
    seeds: Sequence[int],
    on_step: Callable[[TensorDictBase, Tensor], bool],
) -> dict[int, Exception]:
    """Let policies play, each in its share of the copies, until `on_step` returns False.

    Args:
        environment: batch size [K * N], for K policies.
        policies: each must choose as `settings.deterministic` says.
        settings: `deterministic` and `max_steps` are used.
        seeds: of each policy: its copies start from it, and so do its random actions.
        on_step: called after the reset and after each step, before finished copies are reset.
            Receives the current observations and bool [K * N], which episodes were cut off in this
            step. Returns whether to continue.

    Returns:
        With several policies, the errors that ended the play of some of them, by their number.
    """
    kind = ExplorationType.DETERMINISTIC if settings.deterministic else ExplorationType.RANDOM
    action_seeds = [stream_seed(seed, "evaluation actions") for seed in seeds]
    shared = RolloutPolicies(environment, policies)
    with seeded(action_seeds[0]), set_exploration_type(kind), torch.no_grad():
        if len(policies) == 1:
            environment.reseed(seeds[0], "evaluation")
        else:
            environment.reseed_shares([(seed, "evaluation") for seed in seeds])
            for policy, seed in zip(policies, action_seeds, strict=True):
                policy.randomness = OwnRandomState.seeded(seed).drawing
        now = environment.reset()
        shared.reset_hidden()
        cut_off = torch.zeros(environment.batch_size, dtype=torch.bool)
        while on_step(now, cut_off):
            now = environment.maybe_reset(now)
            shared.act(now)
            stepped = environment.step(now)
            if settings.max_steps is not None:
                cut_off = _cut_off(stepped["next"], settings.max_steps)
            now = environment.step_mdp(stepped)
    return shared.errors


def _cut_off(after: TensorDictBase, max_steps: int) -> Tensor:
    """End episodes that have reached `max_steps` frames; return which, bool [N]."""
    over = ~after["done"] & (after["step_count"] >= max_steps)
    for key in ("done", "truncated"):  # not in place: the environment may own the memory
        after.set(key, after[key] | over)
    return over.squeeze(-1)
