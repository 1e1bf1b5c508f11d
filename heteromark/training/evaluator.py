"""What a trained policy achieves."""

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
from heteromark.seeds import stream_seed
from heteromark.training.environments import against, make_evaluation_environment, opponent_of
from heteromark.training.evaluation_report import Episode, as_report
from heteromark.training.random_state import preserved_random_state, seeded

Actors = Mapping[str, TensorDictModuleBase]


class Evaluator:
    """Plays episodes in an environment of its own, made when first needed and then kept.

    The training's random streams are left alone.

    Args:
        config: the run.
        actors: by group, all on one device.
        settings: how to evaluate; by default as the run's config says.
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

        Copy i of N plays episodes i, i + N, … to their ends, however long they are. So short
        episodes are not over-represented, as they would be in the first ones to finish.

        Args:
            seed: seeds the environments and, unless deterministic, the actions; the same seed
                gives the same episodes.
            opponent_pool: state of the pool of past selves to play against.

        Returns:
            `as_report` of the episodes.

        Raises:
            ValueError: the settings do not fit the environment.
        """
        settings = self._settings
        episodes = settings.episodes
        copies = min(episodes, self._config.environment.num_parallel_envs)
        if self._environment is None:
            with preserved_random_state():
                self._environment = make_evaluation_environment(
                    self._config, settings, copies, remembering=recurrent_groups(self._actors)
                )
        environment = self._environment
        bring_past_selves(environment, self._actors, opponent_pool)
        quota = [episodes // copies + (i < episodes % copies) for i in range(copies)]
        played: list[list[Episode]] = [[] for _ in range(copies)]

        def see(after: TensorDictBase, cut_off: Tensor) -> bool:
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

        play(environment, self._actors, settings, seed, see)
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
    """One evaluation by an `Evaluator`."""
    with contextlib.closing(Evaluator(config, actors, settings)) as evaluator:
        return evaluator.evaluate(seed, opponent_pool)


def bring_past_selves(
    environment: EnvBase, actors: Actors, state: Mapping[str, Any] | None
) -> None:
    """Put past selves into an environment that is played against them.

    Args:
        actors: by group; the past selves are built like them.
        state: of an opponent pool; None: there is none.

    Raises:
        ValueError: the environment wants past selves, and there are none.
    """
    if environment.opponent_pool is None:
        return
    if state is None:
        raise ValueError(
            "--opponent is past_self, but there are no past selves to play against: the run was "
            "trained with another opponent; use --opponent random, heuristic or self, or train a "
            "run with environment.opponent.kind=past_self"
        )
    environment.opponent_pool.load_state_dict(state, actors)


def play(
    environment: EnvBase,
    actors: Actors,
    settings: EvaluationConfig,
    seed: int,
    see: Callable[[TensorDictBase, Tensor], bool],
) -> None:
    """Let the actors play, for as long as somebody wants to see it.

    Args:
        environment: batch size [N]; its copies start anew from `seed`.
        settings: `deterministic` and `max_steps` are used.
        see: called after the reset and after each step, before finished copies are reset, with
            what the agents then see, and with bool [N]: the episode was cut off just now. Returns
            whether to go on.
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
        while see(now, cut_off):
            now = environment.maybe_reset(now)
            seen = now.to(device)
            for actor in actors.values():
                seen = actor(seen)
            stepped = environment.step(seen.to(environment.device))
            if settings.max_steps is not None:
                cut_off = _cut_off(stepped["next"], settings.max_steps)
            now = environment.step_mdp(stepped)


def _cut_off(after: TensorDictBase, max_steps: int) -> Tensor:
    """End the episodes that go on after `max_steps`; returns which, bool [N]."""
    over = ~after["done"] & (after["step_count"] >= max_steps)
    for key in ("done", "truncated"):  # not in place: the memory may be the environment's
        after.set(key, after[key] | over)
    return over.squeeze(-1)
