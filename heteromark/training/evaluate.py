"""What a trained policy achieves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from tensordict.nn import TensorDictModuleBase
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import ProbabilisticActor

from heteromark.config.schema import RunConfig
from heteromark.environment.seeds import stream_seed
from heteromark.modules.environment import EnvironmentFactory
from heteromark.modules.policy import PolicyFactory
from heteromark.training.checkpoint import read_policy
from heteromark.training.random_state import seeded


def load_policy(
    path: Path, device: torch.device | str = "cpu"
) -> tuple[RunConfig, dict[str, ProbabilisticActor]]:
    """The config and the trained actors, by group, of a run's checkpoint.pt.

    Raises:
        ValueError: the file is missing, damaged, or does not fit this heteromark or environment.
    """
    path = Path(path)
    saved = read_policy(path, torch.device(device))
    try:
        config = RunConfig.model_validate(saved["config"])
    except ValidationError as error:
        raise ValueError(f"{path} holds a config that this heteromark rejects: {error}") from error
    environment = EnvironmentFactory().create(config, num_envs=1)
    try:
        actors = PolicyFactory().create(config, environment.groups).actors
    finally:
        environment.close()
    if set(actors) != set(saved["actors"]):
        raise ValueError(
            f"{path} holds actors of {', '.join(saved['actors'])}, but the groups of environment "
            f"{config.environment.name!r} are now {', '.join(actors)}; train the run again"
        )
    for group, actor in actors.items():
        actor.to(device)
        try:
            actor.load_state_dict(saved["actors"][group])
        except RuntimeError as error:
            raise ValueError(
                f"the actor of {group!r} in {path} does not fit environment "
                f"{config.environment.name!r}: {error}; train the run again"
            ) from error
    return config, actors


def evaluate(
    config: RunConfig,
    actors: Mapping[str, TensorDictModuleBase],
    episodes: int,
    seed: int,
    deterministic: bool,
) -> dict[str, Any]:
    """Play episodes in environments of their own; the training's random streams are left alone.

    Copy i of N plays episodes i, i + N, … to their ends, however long they are. So short episodes
    are not over-represented, as they would be in the first `episodes` to finish.

    Args:
        actors: by group, all on one device.
        seed: seeds the environments and, unless `deterministic`, the actions.
        deterministic: take the most likely action instead of a sample.

    Returns:
        `as_report` of the episodes: returns (see `episode_returns`), lengths in frames, wins.
    """
    copies = min(episodes, config.environment.num_parallel_envs)
    device = next(next(iter(actors.values())).parameters()).device
    environment = EnvironmentFactory().create(config, num_envs=copies)
    quota = [episodes // copies + (i < episodes % copies) for i in range(copies)]
    played: list[list[tuple[float, int, int]]] = [[] for _ in range(copies)]
    exploration = ExplorationType.DETERMINISTIC if deterministic else ExplorationType.RANDOM
    try:
        with (
            seeded(stream_seed(seed, "evaluation actions")),
            set_exploration_type(exploration),
            torch.no_grad(),
        ):
            environment.reseed(seed, "evaluation")
            now = environment.reset()
            while any(len(done) < due for done, due in zip(played, quota, strict=True)):
                seen = now.to(device)
                for actor in actors.values():
                    seen = actor(seen)
                stepped, now = environment.step_and_maybe_reset(seen.to(environment.device))
                after = stepped["next"]
                if not after["done"].any():
                    continue
                for i in after["done"].squeeze(-1).nonzero()[:, 0].tolist():
                    if len(played[i]) < quota[i]:
                        length, won = int(after["step_count"][i]), int(after["won"][i])
                        played[i].append((float(after["episode_return"][i]), length, won))
    finally:
        environment.close()
    in_order = [played[e % copies][e // copies] for e in range(episodes)]
    return as_report(in_order, deterministic, seed)


def as_report(
    episodes: list[tuple[float, int, int]], deterministic: bool, seed: int
) -> dict[str, Any]:
    """What evaluation.json says about episodes of (return, length, won or -1 for unknown).

    `wins` is None unless all episodes say who won; so are all means over nothing, and numbers that
    JSON has no word for.
    """
    returns, lengths, won = ([episode[i] for episode in episodes] for i in range(3))
    finite = bool(returns) and all(math.isfinite(value) for value in returns)
    known = bool(won) and min(won) >= 0
    return {
        "episodes": len(episodes),
        "deterministic": deterministic,
        "seed": seed,
        "returns": [value if math.isfinite(value) else None for value in returns],
        "lengths": lengths,
        "wins": [bool(flag) for flag in won] if known else None,
        "return_mean": float(np.mean(returns)) if finite else None,
        "return_std": float(np.std(returns)) if finite else None,
        "length_mean": float(np.mean(lengths)) if lengths else None,
        "win_rate": float(np.mean(won)) if known else None,
    }
