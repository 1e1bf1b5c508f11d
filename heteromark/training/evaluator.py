"""Evaluation of policies over arrays."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type

from heteromark.config.models.components import EvaluationConfig
from heteromark.config.models.run import RunConfig
from heteromark.modules.policy import recurrent_groups
from heteromark.modules.random_state import preserved_random_state, seeded
from heteromark.seeds import stream_seed
from heteromark.training.environments import against, make_evaluation_environment, opponent_of
from heteromark.training.evaluation_report import Episode, as_report

Actors = Mapping[str, TensorDictModuleBase]


class Evaluator:
    """Plays evaluation episodes in a separate environment, created at the first evaluation.

    Does not affect the random streams of the training.

    Args:
        config: the run.
        actors: by group, all on one device.
        settings: how to evaluate; default: the run's `evaluation`.
    """

    def __init__(
        self, config: RunConfig, actors: Actors, settings: EvaluationConfig | None = None
    ) -> None:
        self._config = config
        self._actors = actors
        self._settings = settings or config.evaluation
        self._environment: EnvBase | None = None

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
        settings = self._settings
        episodes = settings.episodes
        copies = min(episodes, self._config.environment.num_parallel_envs)
        if self._environment is None:
            with preserved_random_state():
                self._environment = make_evaluation_environment(
                    self._config, settings, copies, recurrent=recurrent_groups(self._actors)
                )
        environment = self._environment
        load_past_policies(environment, self._actors, opponent_pool)
        quota = [episodes // copies + (i < episodes % copies) for i in range(copies)]
        played: list[list[Episode]] = [[] for _ in range(copies)]

        def on_step(after: TensorDictBase, cut_off: Tensor) -> bool:
            for i in after["done"].squeeze(-1).nonzero()[:, 0].tolist():
                if len(played[i]) < quota[i]:
                    played[i].append(
                        Episode(
                            float(after["episode_return"][i]),
                            int(after["step_count"][i]),
                            int(after["won"][i]),
                            bool(cut_off[i]),
                        )
                    )
            return any(len(done) < due for done, due in zip(played, quota, strict=True))

        play(environment, self._actors, settings, seed, on_step)
        report = as_report(
            [played[e % copies][e // copies] for e in range(episodes)],
            settings,
            seed,
            opponent_of(self._config, settings) if environment.turn_based else None,
        )
        if self._config.env_type == "skirmish":
            report["opponent"] = against(self._config, settings).environment.skirmish.opponent
        return report

    def close(self) -> None:
        """Close the environment, if there is one."""
        if self._environment is not None:
            self._environment.close()
            self._environment = None


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
    actors: Actors,
    settings: EvaluationConfig,
    seed: int,
    on_step: Callable[[TensorDictBase, Tensor], bool],
) -> None:
    """Let the actors play until `on_step` returns False.

    Args:
        environment: batch size [N]; restarted from `seed`.
        settings: `deterministic` and `max_steps` are used.
        on_step: called after the reset and after each step, before finished copies are reset.
            Receives the current observations and bool [N], which episodes were cut off in this
            step. Returns whether to continue.
    """
    device = next(next(iter(actors.values())).parameters()).device
    kind = ExplorationType.DETERMINISTIC if settings.deterministic else ExplorationType.RANDOM
    with (
        seeded(stream_seed(seed, "evaluation actions")),
        set_exploration_type(kind),
        torch.no_grad(),
    ):
        environment.reseed(seed, "evaluation")
        now = environment.reset()
        cut_off = torch.zeros(environment.batch_size, dtype=torch.bool)
        while on_step(now, cut_off):
            now = environment.maybe_reset(now)
            seen = now.to(device)
            for actor in actors.values():
                seen = actor(seen)
            stepped = environment.step(seen.to(environment.device))
            if settings.max_steps is not None:
                cut_off = _cut_off(stepped["next"], settings.max_steps)
            now = environment.step_mdp(stepped)


def _cut_off(after: TensorDictBase, max_steps: int) -> Tensor:
    """End episodes that have reached `max_steps` frames; return which, bool [N]."""
    over = ~after["done"] & (after["step_count"] >= max_steps)
    for key in ("done", "truncated"):  # not in place: the environment may own the memory
        after.set(key, after[key] | over)
    return over.squeeze(-1)
