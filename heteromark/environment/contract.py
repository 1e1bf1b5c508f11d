"""The contract of a custom TorchRL environment, and its check.

With `env_type: custom`, `environment.task` names your factory. It is called with
`environment.kwargs`. The factory returns either one copy of the environment, which is created N
times:

- a PettingZoo Parallel or AEC environment;
- an object with the SMAC API (see `heteromark.environment.smac.adapter`);

or all N copies at once, as a `torchrl.envs.EnvBase` on the CPU. If the factory has a parameter
`num_envs`, it receives N. Such an EnvBase needs these additional attributes:

    batch_size      [N]
    groups          dict[str, Group], see `heteromark.environment.groups.Group`
    turn_based      bool. True: agents act one after the other, one frame is one turn, and inactive
                    agents wait. False: an inactive agent has left the episode for good.
    state_size      int | None: size of "state"; None: there is no such key
    reseed(seed, *stream)
                    seeds copy i with `stream_seed(seed, *stream, i)` (`heteromark.seeds`) for its
                    next reset. Everything after that reset depends only on the seed and the
                    actions, not on earlier episodes. There is no other randomness.

The specs contain at least what `heteromark.environment.specs.make_specs(groups, N, state_size)`
returns; the simplest way is to use those. For each group of n agents, with dtypes and shapes:

    (group, "observation")      float32 [N, n, observation_size]; zeros where not active
    (group, "active")           bool [N, n]: takes part in this step. In `next`, it is False for
                                agents that have terminated, and stays True if only time ran out.
    (group, "action")           int64 [N, n] counted from 0, regardless of the space's `start`;
                                int64 or float32 [N, n, action_size]
    (group, "action_mask")      bool [N, n, action_size], only if `Group.masked`: legal actions;
                                all True where not active
    ("next", group, "reward")   float32 [N, n, 1], the training reward; equal for all agents that
                                share a critic (policy.critic team or group)

and at the root:

    "state"             float32 [N, state_size], only with a `state_size`
    "episode_return"    float32 [N, 1], sum of the environment's own rewards in this episode so
                        far, averaged over the learning agents
    "step_count"        int64 [N, 1], steps of this episode so far
    "won"               int8 [N, 1]: -1 during the episode; at its end 1 or 0, or -1 if unknown
    "done", "terminated", "truncated"
                        bool [N, 1]. done = terminated or truncated. After truncation (time ran out)
                        value targets bootstrap as if the episode continued.

A reset with TorchRL's "_reset" mask starts new episodes in those copies only. `next` keeps the
true final observation. Returned tensors must not change afterwards.

With these two methods, a resumed run continues the episodes that were running at its checkpoint.
Without them new episodes begin then, with a warning and a note in the run's record.

    running_episodes()
                    returns everything that determines how the running episodes go on, as tensors in
                    dictionaries, lists and tuples
    continue_episodes(episodes)
                    continues such episodes, after `reseed` and `reset` with the seed of that time.
                    Returns what reset() would: the current outputs; and a dictionary with the
                    reason for each copy whose episode could not be continued, so that a new one
                    began
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from tensordict import TensorDictBase
from torchrl.data import Categorical, Composite
from torchrl.envs import EnvBase

from heteromark.environment.groups import Group
from heteromark.environment.rewards import find_nonfinite_reward, find_unequal_rewards
from heteromark.environment.specs import EnvironmentSpecs, make_specs


def check_contract(env: EnvBase, num_envs: int, name: str, critic: str = "own") -> None:
    """Check an environment's attributes and specs, then play two steps to verify them.

    Args:
        env: the environment; it is reset.
        num_envs: required number of copies N.
        name: the environment's name in error messages.
        critic: `RunConfig.critic`; a centralised critic requires equal rewards for all agents.

    Raises:
        ValueError: lists everything that is missing, wrong in shape or dtype, or inconsistent.
    """
    problems = list(_attribute_problems(env, num_envs))
    if not problems:
        expected = make_specs(env.groups, num_envs, env.state_size)
        problems = list(_spec_problems(env, expected)) or list(
            _play_problems(env, expected, critic)
        )
    if problems:
        listed = "".join(f"\n- {problem}" for problem in problems)
        raise ValueError(
            f"environment {name!r} ({type(env).__name__}) violates the contract described in "
            f"heteromark.environment.contract:{listed}"
        )


def _attribute_problems(env: EnvBase, num_envs: int) -> Iterator[str]:
    if env.batch_size != (num_envs,):
        yield (
            f"batch_size is {list(env.batch_size)}, but must be [{num_envs}]; a factory with a "
            "parameter num_envs receives this number"
        )
    if env.device is not None and env.device.type != "cpu":
        yield f"device is {env.device}, but must be cpu"
    groups = getattr(env, "groups", None)
    if not isinstance(groups, dict) or not groups:
        yield "groups must be a dictionary from names to heteromark.environment.groups.Group"
    else:
        for name, group in groups.items():
            if not isinstance(group, Group) or group.name != name:
                yield f"groups[{name!r}] must be a Group with that name, but is {group!r}"
    if not isinstance(getattr(env, "turn_based", None), bool):
        yield "turn_based must be True or False"
    size = getattr(env, "state_size", 0)
    if size is not None and not (isinstance(size, int) and size > 0):
        yield "state_size must be a positive integer, or None without a state"
    if not callable(getattr(env, "reseed", None)):
        yield "reseed(seed, *stream) is missing"


def _spec_problems(env: EnvBase, expected: EnvironmentSpecs) -> Iterator[str]:
    for kind in ("observation", "action", "reward", "done"):
        wanted, found = getattr(expected, kind), getattr(env, f"full_{kind}_spec")
        yield from _differences(f"{kind}_spec", wanted, found)
    for name, group in env.groups.items():
        spec = env.full_action_spec.get((name, "action"), None)
        if group.is_discrete and isinstance(spec, Categorical) and spec.n != group.action_size:
            yield (
                f"action_spec: {(name, 'action')} has {spec.n} actions, but its Group has "
                f"{group.action_size}"
            )


def _differences(where: str, wanted: Composite, found: Composite | TensorDictBase) -> Iterator[str]:
    """Yield the keys that are missing from `found` or differ in shape or dtype."""
    for key, leaf in wanted.items(True, True):
        actual = found.get(key, None)
        if actual is None:
            yield f"{where} lacks {key!r}: {_dtype_and_shape(leaf)}"
        elif (actual.shape, actual.dtype) != (leaf.shape, leaf.dtype):
            yield (
                f"{where}: {key!r} is {_dtype_and_shape(actual)}, must be {_dtype_and_shape(leaf)}"
            )


def _dtype_and_shape(leaf: Any) -> str:
    return f"{str(leaf.dtype).removeprefix('torch.')} {list(leaf.shape)}"


def _play_problems(env: EnvBase, expected: EnvironmentSpecs, critic: str) -> Iterator[str]:
    env.reseed(0, "contract")
    first = env.reset()
    env.reseed(0, "contract")
    again = env.reset()
    problems = [
        *_differences("reset()", expected.observation, first),
        *_differences("reset()", expected.done, first),
        *_missing_actions(first, env.groups),
    ]
    if problems:
        yield from problems
        return
    if infinite := list(_not_finite("reset()", first, env.groups)):
        yield from infinite
        return
    for key in expected.observation.keys(True, True):
        if not torch.equal(first[key], again[key]):
            yield (
                f"reset() returns a different {key!r} after the same reseed(0, 'contract'); all "
                "randomness must come from the seed"
            )
    stepped, now = env.step_and_maybe_reset(_act(first, env))
    after = stepped["next"]
    problems = [
        *_differences("step()", expected.observation, after),
        *_differences("step()", expected.reward, after),
        *_differences("step()", expected.done, after),
    ]
    yield from problems or _meaning_problems(after, env.groups, critic)
    if problems or _missing_actions(now, env.groups):
        return
    # reset only copy 0, in the middle of its episode
    now["_reset"] = torch.zeros_like(after["done"])
    now["_reset"][0] = True
    now = env.reset(now)
    episodes = copy.deepcopy(env.running_episodes()) if hasattr(env, "running_episodes") else None
    later = env.step(_act(now.clone(), env))["next"]
    steps = later["step_count"]
    due = torch.where(after["done"], 1, 2)
    due[0] = 1
    if episodes is not None:
        yield from _continuation_problems(env, episodes, now, later)
    if not torch.equal(steps, due):
        yield (
            "after a step, a reset of only copy 0 through '_reset', and another step, 'step_count' "
            f"is {steps.flatten().tolist()}, must be {due.flatten().tolist()}"
        )


def _continuation_problems(
    env: EnvBase, episodes: Any, now: TensorDictBase, later: TensorDictBase
) -> Iterator[str]:
    """Yield a problem if episodes do not continue from `now` to `later`."""
    env.reseed(0, "contract")
    env.reset()
    continued, _ = env.continue_episodes(episodes)
    for where, found, expected in (
        ("continue_episodes()", continued, now),
        ("a step after continue_episodes()", env.step(_act(continued, env))["next"], later),
    ):
        for key in expected.select(*env.observation_spec.keys(True, True)).keys(True, True):
            if not torch.equal(found[key], expected[key]):
                yield f"{where} returns another {key!r} than the episodes had"
                return


def _not_finite(where: str, data: TensorDictBase, groups: Mapping[str, Group]) -> Iterator[str]:
    """Yield a problem per group with an agent that observes NaN or infinity."""
    for name, group in groups.items():
        observed = data[name, "observation"]
        for number, row in (~observed.isfinite().all(-1)).nonzero()[:1].tolist():
            yield (
                f"{where}: agent {group.agents[row]!r} of group {name!r} in copy {number} observes "
                f"{observed[number, row].tolist()}; all values must be finite"
            )


def _meaning_problems(
    after: TensorDictBase, groups: Mapping[str, Group], critic: str
) -> Iterator[str]:
    """Yield values of the first step that are valid in shape but inconsistent."""
    if (after["step_count"] != 1).any():
        counts = after["step_count"].flatten().tolist()
        yield f"'step_count' is {counts} after the first step, must be 1 in every copy"
    if not torch.equal(after["done"], after["terminated"] | after["truncated"]):
        yield "'done' must equal terminated | truncated"
    if (after["won"][~after["done"]] != -1).any():
        yield "'won' must be -1 until the episode ends"
    for name in groups:
        yield from _not_finite("step()", after, {name: groups[name]})
        if after[name, "observation"][~after[name, "active"]].any():
            yield f"{(name, 'observation')!r} must be zeros where the agent is not active"
    for problem in (
        find_nonfinite_reward(after, groups),
        find_unequal_rewards(after, groups, critic),
    ):
        if problem:
            yield problem


def _missing_actions(data: TensorDictBase, groups: Mapping[str, Group]) -> list[str]:
    return [
        f"{(name, 'action_mask')!r} leaves an agent without a legal action; it must be all True "
        "where an agent is not active"
        for name, group in groups.items()
        if group.masked
        and (name, "action_mask") in data.keys(True)
        and not data[name, "action_mask"].any(-1).all()
    ]


def _act(data: TensorDictBase, env: EnvBase) -> TensorDictBase:
    """Add each agent's first legal action, or the midpoint of a continuous action's bounds."""
    for name, group in env.groups.items():
        if group.masked:
            action = data[name, "action_mask"].int().argmax(-1)
        elif not group.is_continuous:
            action = env.full_action_spec[name, "action"].zero()
        else:
            middle = (group.action_space.low + group.action_space.high) / 2
            shape = env.full_action_spec[name, "action"].shape
            action = torch.as_tensor(middle, dtype=torch.float32).expand(shape).clone()
        data[name, "action"] = action
    return data
