"""Try an environment in a process of its own: two episodes of random play.

`python -m heteromark.commands.trial` reads a run's config as JSON from its input, and prints what
is wrong. Imports no torch, unless the environment does.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any

from heteromark.config.models.run import RunConfig

EPISODES = 2
SECONDS = 20.0  # of play; after that, unfinished episodes are accepted
PLAYED = "played"  # printed after the first step
FAILED = 3  # exit status with a message about the environment


def try_environment(config: RunConfig) -> None:
    """Play two episodes with random legal actions.

    Raises:
        Exception: whatever is wrong with the environment.
    """
    from heteromark.config.models.components import OpponentConfig
    from heteromark.environment.pettingzoo.arrays import action_layout, output_layout
    from heteromark.environment.pettingzoo.copies import copy_settings, make_copy
    from heteromark.environment.pettingzoo.parallel_copies import ParallelCopies
    from heteromark.environment.pettingzoo.turn_copies import TurnCopies

    make_env = None if config.env_type == "vmas" else _factory(config)
    if make_env is None:
        _try_batched(config)
        return
    environment = config.environment
    first = make_copy(make_env, environment.name, render=False)
    settings = copy_settings(
        make_env,
        first,
        environment.name,
        opponent=OpponentConfig(),
        group_by=environment.group_by,
        groups=environment.groups,
        split=not config.policy.share_policy_params,
        team_reward=environment.reward == "team",
        with_state=environment.state and config.may_read_state,
    )
    outputs, actions = (
        layout.views(bytearray(layout.size))
        for layout in (
            output_layout(settings.groups, 1, settings.description.state_size),
            action_layout(settings.groups, 1),
        )
    )
    make = TurnCopies if settings.description.turn_based else ParallelCopies
    with contextlib.closing(make(settings, outputs, actions, envs=[first])) as copies:
        _play(copies, outputs, actions, settings.groups)


def _factory(config: RunConfig) -> Any:
    """Return the factory of PettingZoo environments; None: a factory of all copies at once."""
    from heteromark.environment.smac.adapter import missing_from_smac_api, smac_factory
    from heteromark.import_paths import Task

    environment = config.environment
    assert environment.task is not None, "only environments with a task are tried"
    task = Task(environment.task, environment.kwargs)
    is_smac = config.env_type == "smac"
    if config.env_type == "custom":
        if "num_envs" in task.parameters:
            return None
        made = task()
        if any(base.__name__ == "EnvBase" for base in type(made).__mro__):
            return None
        is_smac = not missing_from_smac_api(getattr(made, "unwrapped", made))
        if hasattr(made, "close"):
            made.close()
    return smac_factory(task, environment.smac, environment.name) if is_smac else task


def _play(copies: Any, outputs: Any, actions: Any, groups: Any) -> None:
    import numpy as np

    generator = np.random.default_rng(0)
    copies.reseed([0])
    copies.reset([0])
    over, is_first, deadline = 0, True, time.monotonic() + SECONDS
    while over < EPISODES and time.monotonic() < deadline:
        for name, group in groups.items():
            action = actions[name, "action"]
            if group.is_continuous:
                low, high = group.action_space.low, group.action_space.high
                action[...] = generator.uniform(np.maximum(low, -1e3), np.minimum(high, 1e3))
            elif group.masked:
                scores = generator.random((*action.shape, group.action_size))
                action[...] = (scores * outputs[name, "action_mask"]).argmax(-1)
            else:
                choices = group.action_size if group.is_discrete else group.choices
                action[...] = generator.integers(choices, size=action.shape)
        copies.step()
        if is_first:
            print(PLAYED, flush=True)
        is_first = False
        if outputs["done"][0, 0]:
            over += 1
            copies.reset([0])


def _try_batched(config: RunConfig) -> None:
    from heteromark.modules.environment import EnvironmentFactory

    environment = EnvironmentFactory().create(config, 2)  # plays two steps to check the contract
    print(PLAYED, flush=True)
    environment.rollout(100, break_when_any_done=False)
    environment.close()


def main() -> None:
    from heteromark.commands.console import prepare_process
    from heteromark.runs.seal import Seal

    prepare_process()
    try:
        config = RunConfig.model_validate_json(sys.stdin.read())
        seal = Seal(config)
        with seal.noting():
            try_environment(config)
            seal.check_at_end()
    except Exception as error:
        notes = getattr(error, "__notes__", [])
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        print(" ".join([f"{kind}{error}", *(f"({note})" for note in notes)]), file=sys.stderr)
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
