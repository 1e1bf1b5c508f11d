"""A scenario of VMAS as a TorchRL environment, all copies stepped in one batch."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

from heteromark.environment.groups import Group, make_group, with_families
from heteromark.environment.specs import make_specs
from heteromark.environment.stepping import SelfRestartingEnv
from heteromark.environment.vmas.snapshot import numbers_of, restore, tensors_of
from heteromark.import_paths import how_to_install
from heteromark.seeds import stream_seed

# Arguments that decide how actions and flags are given, which this class chooses.
_CHOSEN = ("clamp_actions", "dict_spaces", "grad_enabled", "terminated_truncated", "wrapper")


class VMASEnv(SelfRestartingEnv):
    """N copies of a scenario; batch size [N], keys and shapes of `make_specs`.

    Agents stay until the end of an episode. All copies draw from one random stream, so an episode
    depends on the copies beside it. On a GPU, VMAS draws from torch's global generator.

    Args:
        scenario: name of a scenario of VMAS, such as "balance".
        num_envs: number of copies N.
        device: device of the simulation.
        max_steps: frames after which an episode is truncated; None: it only ends by itself.
        group_by: see `group_agents`.
        groups: see `group_agents`.
        split: see `group_agents`.
        team_reward: train every agent on the mean of all agents' rewards.
        first: index of copy 0 among all copies of the run.
        settings: further arguments of `vmas.make_env` and of the scenario.

    Attributes:
        groups: by name.
        turn_based: False.
        state_size: None; scenarios have no global state.

    Raises:
        ModuleNotFoundError: VMAS is not installed.
        ValueError: the scenario or a setting does not exist, or the groups do not fit the agents.
    """

    turn_based = False
    state_size: None = None
    opponent_pool: None = None

    def __init__(
        self,
        scenario: str,
        num_envs: int,
        device: torch.device | str = "cpu",
        *,
        max_steps: int | None = None,
        group_by: str = "prefix",
        groups: Mapping[str, Sequence[str]] | None = None,
        split: bool = False,
        team_reward: bool = True,
        first: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__(device=device, batch_size=[num_envs])
        self._name, self._team_reward, self._first = scenario, team_reward, first
        self._env = _make(scenario, num_envs, self.device, max_steps, settings)
        self._random = list(self._env.vmas_random_state)
        names = [agent.name for agent in self._env.agents]
        self._column = {name: k for k, name in enumerate(names)}
        observed = {
            name: spaces.Box(-np.inf, np.inf, (_flat(seen).shape[-1],), np.float32)
            for name, seen in zip(names, self._call("reset"), strict=True)
        }
        acted = {
            name: _space(self._env, agent)
            for name, agent in zip(names, self._env.agents, strict=True)
        }
        self.groups: dict[str, Group] = {
            name: make_group(name, members, observed, acted, masked=False, family=family)
            for name, members, family in with_families(names, group_by, groups, split)
        }
        self._set_specs(make_specs(self.groups, num_envs))
        self._return = torch.zeros(num_envs, 1, device=self.device)
        self._steps = torch.zeros(num_envs, 1, dtype=torch.int64, device=self.device)
        self._seen: list[Tensor] = []
        self.reseed(0)

    def _call(self, method: str, *arguments: Any) -> Any:
        """Call a method of VMAS with this environment's random state; all share one list for it."""
        shared = self._env.vmas_random_state
        shared[:] = self._random
        try:
            return getattr(self._env, method)(*arguments)
        finally:
            self._random = list(shared)

    def reseed(self, seed: int, *stream: int | str) -> None:
        """Seed the copies' random stream; see the contract."""
        self._call("seed", stream_seed(seed, *stream, self._first))

    def running_episodes(self) -> dict[str, Any]:
        """See `heteromark.environment.contract`."""
        torch_state, numpy_state, (version, internal, gauss) = self._random
        kind, keys, *rest = numpy_state
        return {
            "tensors": tensors_of(self._env),
            "numbers": numbers_of(self._env),
            "observations": self._seen,
            "episode_return": self._return,
            "step_count": self._steps,
            "random": {
                "torch": torch_state,
                "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *rest],
                "python": [version, list(internal), gauss],
            },
        }

    def continue_episodes(self, episodes: Mapping[str, Any]) -> tuple[TensorDict, dict[int, str]]:
        """See `heteromark.environment.contract`.

        A few scenarios keep state that is neither a tensor nor a number, such as a reference to a
        landmark. If the observations show it, all copies begin new episodes.
        """
        # Scenarios and worlds create some of their attributes in the first step.
        self._step(self.action_spec.zero())
        restore(self._env, episodes["tensors"], episodes["numbers"])
        self._seen = [seen.to(self.device) for seen in episodes["observations"]]
        now = map(_flat, self._call("get_from_scenario", True, False, False, False)[0])
        if not all(map(torch.equal, now, self._seen)):
            why = "the scenario keeps state that cannot be saved"
            return self._restart(None), dict.fromkeys(range(self.batch_size[0]), why)
        restore(self._env, episodes["tensors"], episodes["numbers"])
        self._return = episodes["episode_return"].to(self.device)
        self._steps = episodes["step_count"].to(self.device)
        saved = episodes["random"]
        kind, keys, *rest = saved["numpy"]
        version, internal, gauss = saved["python"]
        numpy_state = (kind, keys.numpy().astype(np.uint32), *rest)
        self._random = [saved["torch"].cpu(), numpy_state, (version, tuple(internal), gauss)]
        return self._first_outputs(), {}

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDict:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        return self._restart(None if mask is None else mask.reshape(self.batch_size[0]))

    def _restart(self, where: Tensor | None) -> TensorDict:
        if where is None or not self._seen or where.all():
            self._seen = [_flat(seen) for seen in self._call("reset")]
            self._return = torch.zeros_like(self._return)
            self._steps = torch.zeros_like(self._steps)
            return self._first_outputs()
        for number in where.nonzero()[:, 0].tolist():
            self._call("reset_at", number, False)
        seen = self._call("get_from_scenario", True, False, False, False)[0]
        anew = where.unsqueeze(1)
        self._seen = [
            torch.where(anew, _flat(new), old) for new, old in zip(seen, self._seen, strict=True)
        ]
        self._return = self._return * ~anew
        self._steps = self._steps * ~anew
        return self._first_outputs()

    def _first_outputs(self) -> TensorDict:
        over = torch.zeros(self.batch_size[0], 1, dtype=torch.bool, device=self.device)
        outputs = self._outputs(over, over.clone())
        return TensorDict(outputs, batch_size=self.batch_size, device=self.device)

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        actions: list[Any] = [None] * len(self._column)
        for name, group in self.groups.items():
            given = tensordict.get((name, "action"))
            for row, agent in enumerate(group.agents):
                action = given[:, row]
                actions[self._column[agent]] = action.unsqueeze(-1) if group.is_discrete else action
        seen, rewards, terminated, truncated, _ = self._call("step", actions)
        self._seen = [_flat(each) for each in seen]
        own = torch.stack([reward.reshape(-1) for reward in rewards], -1)
        mean = own.mean(-1, keepdim=True)
        self._return = self._return + mean
        self._steps = self._steps + 1
        terminated, truncated = terminated.unsqueeze(1).bool(), truncated.unsqueeze(1).bool()
        outputs = self._outputs(terminated, truncated & ~terminated)
        for name, group in self.groups.items():
            columns = [self._column[agent] for agent in group.agents]
            reward = mean.repeat(1, len(columns)) if self._team_reward else own[:, columns]
            outputs[name]["reward"] = reward.unsqueeze(-1)
        return TensorDict(outputs, batch_size=self.batch_size, device=self.device)

    def _outputs(self, terminated: Tensor, truncated: Tensor) -> dict[str, Any]:
        """Return the current outputs, nested by group; agents are inactive once terminated."""
        outputs: dict[str, Any] = {}
        for name, group in self.groups.items():
            seen = torch.stack([self._seen[self._column[agent]] for agent in group.agents], 1)
            if not seen.isfinite().all():
                copy, row = (~seen.isfinite().all(-1)).nonzero()[0].tolist()
                raise ValueError(
                    f"scenario {self._name!r} of VMAS gave agent {group.agents[row]!r} of copy "
                    f"{self._first + copy} an observation with NaN or infinity: {seen[copy, row]}"
                )
            active = (~terminated).repeat(1, len(group.agents))
            outputs[name] = {
                "observation": torch.where(active.unsqueeze(-1), seen, 0.0),
                "active": active,
            }
        unknown = torch.full_like(terminated, -1, dtype=torch.int8)
        outputs |= {
            "episode_return": self._return.clone(),
            "step_count": self._steps.clone(),
            "won": unknown,
        }
        return outputs | {
            "done": terminated | truncated,
            "terminated": terminated,
            "truncated": truncated,
        }


def _make(
    scenario: str,
    num_envs: int,
    device: torch.device,
    max_steps: int | None,
    settings: Mapping[str, Any],
) -> Any:
    try:
        import vmas
    except ModuleNotFoundError as error:
        remedy = how_to_install("vmas") or f"install its package {error.name}"
        raise ModuleNotFoundError(f"env_type vmas needs VMAS; {remedy}", name=error.name) from error
    known = sorted({*vmas.scenarios, *vmas.mpe_scenarios, *vmas.debug_scenarios})
    if scenario not in known:
        raise ValueError(
            f"environment.kwargs.scenario is {scenario!r}, but VMAS has {', '.join(known)}"
        )
    if taken := sorted({*_CHOSEN, "seed"} & settings.keys()):
        raise ValueError(f"environment.kwargs.{taken[0]} is chosen by HeteroMARK; remove it")
    state = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        return vmas.make_env(
            scenario,
            num_envs,
            device,
            max_steps=max_steps,
            seed=0,
            clamp_actions=True,
            terminated_truncated=True,
            **settings,
        )
    except (AssertionError, TypeError) as error:
        raise ValueError(
            f"environment.kwargs does not fit scenario {scenario!r} of VMAS: {error}"
        ) from error
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])  # noqa: NPY002


def _space(env: Any, agent: Any) -> spaces.Space[Any]:
    """Return an agent's action space as one of Gymnasium; VMAS uses the old Gym's."""
    space = env.get_agent_action_space(agent)
    if hasattr(space, "nvec"):
        return spaces.MultiDiscrete(space.nvec)
    if hasattr(space, "n"):
        return spaces.Discrete(int(space.n))
    return spaces.Box(space.low, space.high, dtype=np.float32)


def _flat(seen: Any) -> Tensor:
    """Return an observation as float32 [N, size]; a dictionary's parts lie side by side."""
    parts = seen.values() if isinstance(seen, dict) else (seen,)
    return torch.cat([part.flatten(1).float() for part in parts], -1)
