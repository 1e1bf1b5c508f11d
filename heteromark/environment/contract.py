"""The contract of a custom environment that is a TorchRL EnvBase, and the check of it.

With `env_type: custom`, `environment.task` names a factory of yours, called with
`environment.kwargs`. It may return one copy of the environment, of which N are made:

- a PettingZoo Parallel or AEC environment;
- an object with the SMAC API (see `heteromark.environment.smac.adapter`);

or all N copies at once, as a `torchrl.envs.EnvBase` on the CPU; if the factory has a parameter
`num_envs`, it gets N. Such an environment has these attributes, besides EnvBase's own:

    batch_size      [N]
    groups          dict[str, Group], see `heteromark.environment.groups.Group`
    turn_based      bool. True: agents act one after the other, one frame is one turn, and an
                    inactive agent waits. False: an inactive agent has left the episode for good.
    state_size      int | None: numbers in "state"; None: there is no such key
    reseed(seed, *stream)
                    gives copy i the seed `stream_seed(seed, *stream, i)`
                    (`heteromark.seeds`), used by its next reset. What comes after that
                    follows from it and the actions, whatever came before. Nothing else is random.

Its specs hold at least what `heteromark.environment.specs.make_specs(groups, N, state_size)`
returns; the simplest is to use those. For each group of n agents, with shapes and types:

    (group, "observation")      float32 [N, n, observation_size]; zeros where not active
    (group, "active")           bool [N, n]: takes part in this step. In `next`, it is False for
                                agents that have terminated, and stays True where only time ran out.
    (group, "action")           int64 [N, n] counted from 0, whatever the start of a Discrete space;
                                or float32 [N, n, action_size]
    (group, "action_mask")      bool [N, n, action_size], only if `Group.masked`: what is legal;
                                all True where not active
    ("next", group, "reward")   float32 [N, n, 1], what the agent is trained on; the same for all
                                agents where they share a critic (policy.critic team or group)

and at the root:

    "state"             float32 [N, state_size], only with a `state_size`
    "episode_return"    float32 [N, 1], sum so far of the environment's own rewards, the mean over
                        the agents that learn
    "step_count"        int64 [N, 1], steps of this episode so far
    "won"               int8 [N, 1]: -1; at an episode's end 1 or 0, or -1 where it is unknown
    "done", "terminated", "truncated"
                        bool [N, 1]. done = terminated or truncated. After truncation (time ran out)
                        learning goes on as if the episode did.

A reset with TorchRL's "_reset" mask starts new episodes in those copies only. `next` keeps the
true final observation. What was handed out is not changed afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from tensordict import TensorDictBase
from torchrl.data import Categorical, Composite
from torchrl.envs import EnvBase

from heteromark.environment.groups import Group
from heteromark.environment.rewards import reward_that_is_not_finite, rewards_that_differ
from heteromark.environment.specs import EnvironmentSpecs, make_specs


def check_contract(env: EnvBase, num_envs: int, name: str, critic: str = "own") -> None:
    """Look at attributes and specs, then play two steps to see that they tell the truth.

    Args:
        env: the environment; it is reset.
        num_envs: number of copies N that it must have.
        name: its name in the error message.
        critic: `RunConfig.critic`; a centralised one needs a reward that all agents share.

    Raises:
        ValueError: lists all that is missing, of a wrong shape or type, or means something else.
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
            f"environment {name!r} ({type(env).__name__}) does not keep the contract of "
            f"heteromark.environment.contract:{listed}"
        )


def _attribute_problems(env: EnvBase, num_envs: int) -> Iterator[str]:
    if env.batch_size != (num_envs,):
        yield (
            f"batch_size is {list(env.batch_size)}, and must be [{num_envs}]; the factory is told "
            "the number if it has a parameter num_envs"
        )
    if env.device is not None and env.device.type != "cpu":
        yield f"device is {env.device}, and must be cpu"
    groups = getattr(env, "groups", None)
    if not isinstance(groups, dict) or not groups:
        yield "groups must be a dictionary of heteromark.environment.groups.Group, by name"
    else:
        for name, group in groups.items():
            if not isinstance(group, Group) or group.name != name:
                yield f"groups[{name!r}] must be a Group of that name, is {group!r}"
    if not isinstance(getattr(env, "turn_based", None), bool):
        yield "turn_based must be True or False"
    size = getattr(env, "state_size", 0)
    if size is not None and not (isinstance(size, int) and size > 0):
        yield "state_size must be a positive integer, or None if there is no state"
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
                f"action_spec: {(name, 'action')} has {spec.n} actions, and Group has "
                f"{group.action_size}"
            )


def _differences(where: str, wanted: Composite, found: Composite | TensorDictBase) -> Iterator[str]:
    """What specs or data lack of the specs wanted, or have in another shape or type."""
    for key, leaf in wanted.items(True, True):
        there = found.get(key, None)
        if there is None:
            yield f"{where} lacks {key!r}: {_shape_and_type(leaf)}"
        elif (there.shape, there.dtype) != (leaf.shape, leaf.dtype):
            yield f"{where}: {key!r} is {_shape_and_type(there)}, must be {_shape_and_type(leaf)}"


def _shape_and_type(of: Any) -> str:
    return f"{str(of.dtype).removeprefix('torch.')} {list(of.shape)}"


def _play_problems(env: EnvBase, expected: EnvironmentSpecs, critic: str) -> Iterator[str]:
    env.reseed(0, "contract")
    first = env.reset()
    env.reseed(0, "contract")
    again = env.reset()
    shown = [
        *_differences("reset()", expected.observation, first),
        *_differences("reset()", expected.done, first),
        *_missing_actions(first, env.groups),
    ]
    if shown:
        yield from shown
        return
    if infinite := list(_not_finite("reset()", first, env.groups)):
        yield from infinite
        return
    for key in expected.observation.keys(True, True):
        if not torch.equal(first[key], again[key]):
            yield (
                f"{key!r} of a reset differs after the same reseed(0, 'contract'); everything must "
                "follow from the seeds"
            )
    stepped, now = env.step_and_maybe_reset(_act(first, env))
    after = stepped["next"]
    shown = [
        *_differences("step()", expected.observation, after),
        *_differences("step()", expected.reward, after),
        *_differences("step()", expected.done, after),
    ]
    yield from shown or _meaning_problems(after, env.groups, critic)
    if shown or _missing_actions(now, env.groups):
        return
    # copy 0 alone starts anew, though its episode goes on
    now["_reset"] = torch.zeros_like(after["done"])
    now["_reset"][0] = True
    steps = env.step(_act(env.reset(now), env))["next", "step_count"]
    due = torch.where(after["done"], 1, 2)
    due[0] = 1
    if not torch.equal(steps, due):
        yield (
            "after one step, a reset of copy 0 alone through '_reset', and a step, 'step_count' is "
            f"{steps.flatten().tolist()}, must be {due.flatten().tolist()}"
        )


def _not_finite(where: str, shown: TensorDictBase, groups: Mapping[str, Group]) -> Iterator[str]:
    """Agents that observe NaN or infinity."""
    for name, group in groups.items():
        observed = shown[name, "observation"]
        for copy, row in (~observed.isfinite().all(-1)).nonzero()[:1].tolist():
            yield (
                f"{where}: agent {group.agents[row]!r} of group {name!r} in copy {copy} observes "
                f"{observed[copy, row].tolist()}; every number must be finite"
            )


def _meaning_problems(
    after: TensorDictBase, groups: Mapping[str, Group], critic: str
) -> Iterator[str]:
    """What a first step says in the right shape, but cannot mean."""
    if (after["step_count"] != 1).any():
        yield f"'step_count' is {after['step_count'].flatten().tolist()} after the first step"
    if not torch.equal(after["done"], after["terminated"] | after["truncated"]):
        yield "'done' must be terminated or truncated"
    if (after["won"][~after["done"]] != -1).any():
        yield "'won' must be -1 until the episode ends"
    for name in groups:
        yield from _not_finite("step()", after, {name: groups[name]})
        if after[name, "observation"][~after[name, "active"]].any():
            yield f"{(name, 'observation')!r} must be zeros where the agent is not active"
    for problem in (
        reward_that_is_not_finite(after, groups),
        rewards_that_differ(after, groups, critic),
    ):
        if problem:
            yield problem


def _missing_actions(shown: TensorDictBase, groups: Mapping[str, Group]) -> list[str]:
    return [
        f"{(name, 'action_mask')!r} leaves an agent without a legal action; where an agent is not "
        "active, all must be True"
        for name, group in groups.items()
        if group.masked
        and (name, "action_mask") in shown.keys(True)
        and not shown[name, "action_mask"].any(-1).all()
    ]


def _act(shown: TensorDictBase, env: EnvBase) -> TensorDictBase:
    """Add the first legal action of every agent, or one in the middle of its bounds."""
    for name, group in env.groups.items():
        if group.masked:
            action = shown[name, "action_mask"].int().argmax(-1)
        elif group.is_discrete:
            action = env.full_action_spec[name, "action"].zero()
        else:
            middle = (group.action_space.low + group.action_space.high) / 2
            shape = env.full_action_spec[name, "action"].shape
            action = torch.as_tensor(middle, dtype=torch.float32).expand(shape).clone()
        shown[name, "action"] = action
    return shown
