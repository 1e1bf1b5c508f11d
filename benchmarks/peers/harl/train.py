"""Train HARL's HAPPO on a PettingZoo environment, in a separate virtual environment with HARL.

    python train.py REQUEST.json

`benchmarks/published.py` calls this script. The request has the keys

    environment  task ("module:function" that returns a Parallel environment) and kwargs
    values       HARL's values, as in its tuned_configs: {"algo": …, "model": …, "train": …}
    frames       frames to train, over all copies
    seed
    evaluate_at  frames after which the greedy policy plays `episodes` episodes
    episodes
    threads      threads of torch

Prints JSON as its last line: "curve", the [frames, mean return of the episodes that ended] of every
iteration, and "evaluations", [frames, mean return].

HARL's training loop and update are used as they are. The environment replaces HARL's own, which
need mujoco-py and an old PettingZoo; its copies are stepped in this process, one after another,
which takes HARL half the CPU time of its processes.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

sys.argv, _REQUEST = sys.argv[:1], sys.argv[1:]  # HARL's imports parse the command line

from harl.algorithms.actors import ALGO_REGISTRY  # noqa: E402, F401 (imported before the runners)
from harl.envs.env_wrappers import ShareDummyVecEnv  # noqa: E402
from harl.runners import RUNNER_REGISTRY, on_policy_base_runner  # noqa: E402


class Team:
    """A Parallel environment in the form that HARL expects; its agents never leave early."""

    def __init__(self, task: str, kwargs: dict[str, Any], seed: int) -> None:
        module, _, name = task.partition(":")
        self._env = getattr(importlib.import_module(module), name)(**kwargs)
        self._next_seed: int | None = seed
        self._env.reset(seed=seed)
        self._agents = list(self._env.possible_agents)
        self.n_agents = len(self._agents)
        self.observation_space = [self._env.observation_space(each) for each in self._agents]
        self.action_space = [self._env.action_space(each) for each in self._agents]
        shape = self._env.state().shape
        self.share_observation_space = [spaces.Box(-np.inf, np.inf, shape)] * self.n_agents
        self._is_discrete = hasattr(self.action_space[0], "n")

    def reset(self) -> tuple[Any, ...]:
        observations, _ = self._env.reset(seed=self._next_seed)
        self._next_seed = None
        return self._list(observations), self._state(), self._legal()

    def step(self, actions: np.ndarray) -> tuple[Any, ...]:
        chosen = actions[:, 0].astype(int) if self._is_discrete else actions
        taken = dict(zip(self._agents, chosen, strict=True))
        observations, rewards, terminated, truncated, _ = self._env.step(taken)
        reward = sum(rewards.values()) / self.n_agents
        over = [terminated[each] or truncated[each] for each in self._agents]
        # HARL's name for an end that is only a time limit
        infos = [{"bad_transition": truncated[e] and not terminated[e]} for e in self._agents]
        rows = [[reward]] * self.n_agents
        return self._list(observations), self._state(), rows, over, infos, self._legal()

    def close(self) -> None:
        self._env.close()

    def _list(self, observations: dict[str, Any]) -> list[np.ndarray]:
        return [np.asarray(observations[each], np.float32) for each in self._agents]

    def _state(self) -> list[np.ndarray]:
        return [np.asarray(self._env.state(), np.float32)] * self.n_agents

    def _legal(self) -> list[list[int]] | None:
        return [[1] * space.n for space in self.action_space] if self._is_discrete else None


def main() -> None:
    request = json.loads(Path(_REQUEST[0]).read_text(encoding="utf-8"))
    environment, values, seed = request["environment"], request["values"], request["seed"]
    torch.set_num_threads(request["threads"])

    def make_copies(count: int, first: int) -> ShareDummyVecEnv:
        def makes(i: int) -> Any:
            return lambda: Team(environment["task"], environment["kwargs"], 1000 * seed + first + i)

        return ShareDummyVecEnv([makes(i) for i in range(count)])

    on_policy_base_runner.make_train_env = lambda _, __, count, ___: make_copies(count, 0)
    values["train"] |= {"num_env_steps": request["frames"], "log_interval": 1, "model_dir": None}
    values["train"]["eval_interval"] = 10**9
    values["eval"] = {"use_eval": False, "n_eval_rollout_threads": 1, "eval_episodes": 1}
    values["render"] = {"use_render": False}
    values["seed"] = {"seed_specify": True, "seed": seed}
    values["device"] = {
        "cuda": False,
        "cuda_deterministic": True,
        "torch_threads": request["threads"],
    }
    with tempfile.TemporaryDirectory() as folder:
        values["logger"] = {"log_dir": folder}
        names = {"algo": "happo", "env": "mamujoco", "exp_name": "peer"}
        described = {"scenario": "peer", "agent_conf": "", "state_type": "EP"}
        runner = RUNNER_REGISTRY["happo"](names, values, described)
        curve: list[tuple[int, float]] = []
        evaluations: list[tuple[int, float]] = []

        # These three are what HARL calls for its curve, after an iteration, and for its files.
        def log(_: Any, returns: dict[str, float], frames: int) -> None:
            if "aver_rewards" in returns:
                curve.append((frames, float(returns["aver_rewards"])))

        runner.writter.add_scalars = lambda name, *rest: log(name, *rest)
        runner.save = lambda: None
        after_update = runner.after_update
        frames_before, size = 0, values["train"]["episode_length"]
        size *= values["train"]["n_rollout_threads"]

        def then_evaluate() -> None:
            nonlocal frames_before
            after_update()
            frames = frames_before + size
            if any(frames_before < point <= frames for point in request["evaluate_at"]):
                copies = make_copies(min(10, request["episodes"]), 500)
                evaluations.append((frames, evaluate(runner, copies, request["episodes"])))
                copies.close()
            frames_before = frames

        runner.after_update = then_evaluate
        runner.run()
        runner.close()
    print(json.dumps({"curve": curve, "evaluations": evaluations}))


@torch.no_grad()
def evaluate(runner: Any, copies: ShareDummyVecEnv, episodes: int) -> float:
    """Return the mean return of the greedy policy; a long episode counts as much as a short one."""
    count = len(copies.envs)
    each = -(-episodes // count)  # per copy
    observations, _, legal = copies.reset()
    running, finished = np.zeros(count), [[] for _ in range(count)]
    hidden = np.zeros((count, 1, runner.rnn_hidden_size), np.float32)
    masks = np.ones((count, 1), np.float32)
    for actor in runner.actor:
        actor.prep_rollout()
    while min(map(len, finished)) < each:
        actions = [
            actor.act(
                observations[:, i],
                hidden,
                masks,
                None if legal[0] is None else legal[:, i],
                deterministic=True,
            )[0].numpy()
            for i, actor in enumerate(runner.actor)
        ]
        observations, _, rewards, over, _, legal = copies.step(np.stack(actions, axis=1))
        running += rewards[:, 0, 0]
        for i in np.flatnonzero(over.all(axis=1)):
            finished[i].append(running[i])
            running[i] = 0.0
    return float(np.mean([value for own in finished for value in own[:each]]))


if __name__ == "__main__":
    main()
