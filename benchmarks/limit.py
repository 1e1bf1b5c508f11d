"""Measure how close training comes to its arithmetic: the same work in plain torch, beside it.

    python benchmarks/limit.py
    python benchmarks/limit.py --task skirmish --pairs 9

Both step the same environment with networks, batches, epochs and minibatches of the same sizes. The
plain loop has no metrics, no checks, no value clipping and nothing that can be configured: it is
what somebody would write for this one case. An iteration of each is measured in turn, in CPU
seconds of one thread, so the ratio holds on a machine that others use too.

    skirmish        HAPPO, three groups: the default sweep's base config
    simple_spread   MAPPO, three agents that share an actor
    halfcheetah     HAPPO, two groups with continuous actions; needs the extra mujoco

Prints the parts of each loop, and writes benchmarks/results/limit.json.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import commit, write_report

VERSIONED = ("torch", "torchrl", "tensordict", "numpy")
TARGET = 1.15  # most that training may cost beside plain torch
Parts = dict[str, float]  # CPU seconds by part


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", action="append", choices=[*TASKS], help="default: all")
    parser.add_argument("--pairs", type=int, default=7, help="iterations of each, after two more")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
    tasks = {}
    for task in options.task or TASKS:
        try:
            tasks[task] = measure(task, options.pairs)
        except (ImportError, ValueError) as error:  # the environment is not installed
            print(f"{task}: not measured: {error}")
            continue
        show(task, tasks[task])
    measured = {"commit": commit(), "target": TARGET, "pairs": options.pairs, "tasks": tasks}
    write_report("limit", "benchmarks/limit.py", VERSIONED, measured)


def config_of(task: str) -> Any:
    from heteromark.commands.request import TrainRequest, resolve_request

    agent, environment, hyperparameters = TASKS[task]
    request = TrainRequest(
        Path("config/agents") / f"{agent}.yaml",
        environment=environment,
        hyperparameters=hyperparameters,
        device="cpu",
    )
    return resolve_request(request)[0]


TASKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "skirmish": ("happo_agent_v1", "skirmish", {}),
    "simple_spread": ("ppo_agent_v1", "simple_spread", {"algorithm": "MAPPO"}),
    "halfcheetah": ("mujoco_agent_v1", "halfcheetah_2x3", {}),
}


def measure(task: str, pairs: int) -> dict[str, Any]:
    """Return the median ratio, its range, and the medians of both loops' parts."""
    from heteromark.training.components import ComponentFactory

    config = config_of(task)
    components = ComponentFactory(config).create()
    components.collector.restart(config.seed, "training")
    plain = PlainLoop(config)

    def ours(iteration: int) -> Parts:
        parts: Parts = {}
        with timed(parts, "collection"):
            batch = components.collector.collect()
        with timed(parts, "update"):
            components.measure(batch)
            components.algorithm.update(batch, iteration)
        return parts

    rounds: dict[str, list[Parts]] = {"heteromark": [], "plain": []}
    for iteration in range(pairs + 2):
        found = {"heteromark": ours(iteration), "plain": plain.iterate()}
        if iteration >= 2:
            for name, parts in found.items():
                rounds[name].append(parts)
    components.close()
    plain.environment.close()
    ratios = [
        sum(mine.values()) / sum(theirs.values())
        for mine, theirs in zip(rounds["heteromark"], rounds["plain"], strict=True)
    ]
    return {
        "ratio": round(statistics.median(ratios), 3),
        "range": [round(min(ratios), 3), round(max(ratios), 3)],
        "milliseconds": {name: medians(parts) for name, parts in rounds.items()},
        "frames": config.collector.frames_per_batch,
    }


def medians(rounds: list[Parts]) -> dict[str, float]:
    """Return the median of each part in milliseconds."""
    return {
        part: round(1000 * statistics.median(each[part] for each in rounds), 1)
        for part in rounds[0]
    }


def show(task: str, found: dict[str, Any]) -> None:
    low, high = found["range"]
    print(f"{task}: {found['ratio']:.2f} times plain torch ({low:.2f} to {high:.2f})")
    for name, parts in found["milliseconds"].items():
        listed = ", ".join(f"{part} {spent:.0f}" for part, spent in parts.items())
        print(f"  {name:<11} {sum(parts.values()):5.0f} ms: {listed}", flush=True)


@contextmanager
def timed(parts: Parts, name: str) -> Iterator[None]:
    began = time.process_time()
    yield
    parts[name] = parts.get(name, 0.0) + time.process_time() - began


class PlainLoop:
    """PPO for groups of agents with a common reward, in plain torch.

    Groups are updated one after another, as by HAPPO, unless the config says MAPPO.
    """

    def __init__(self, config: Any) -> None:
        import torch
        from torch import nn

        from heteromark.training.environments import make_environment

        self.torch, self.config = torch, config
        torch.set_num_threads(1)
        self.environment = environment = make_environment(config)
        environment.reseed(config.seed, "plain")
        self.now = environment.reset()
        self.copies = environment.batch_size[0]
        self.steps = config.collector.frames_per_batch // self.copies
        self.groups = environment.groups
        self.by_state = environment.state_size is not None
        policy = config.policy
        activation = {"tanh": nn.Tanh, "relu": nn.ReLU}[policy.activation]

        def network(inputs: int, outputs: int) -> Any:
            sizes = [inputs, *policy.hidden_sizes]
            layers: list[Any] = []
            for before, after in itertools.pairwise(sizes):
                layers += [nn.Linear(before, after), activation()]
            return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))

        seen = sum(len(group.agents) * group.observation_size for group in self.groups.values())
        self.critic = network(environment.state_size if self.by_state else seen, 1)
        self.actors, self.deviations = {}, {}
        for name, group in self.groups.items():
            outputs = group.action_size if group.is_continuous else sum(group.choices)
            self.actors[name] = network(group.observation_size, outputs)
            if group.is_continuous:
                self.deviations[name] = nn.Parameter(torch.full((outputs,), -1.0))
        rate = config.optimizer.learning_rate
        self.weights = {
            name: [*net.parameters(), *([self.deviations[name]] if name in self.deviations else [])]
            for name, net in self.actors.items()
        }
        self.weights["critic"] = [*self.critic.parameters()]
        self.optimizers = {
            name: torch.optim.Adam(weights, lr=rate, eps=1e-5, fused=True)
            for name, weights in self.weights.items()
        }

    def iterate(self) -> Parts:
        """Collect a batch and update on it; return the CPU seconds of each part."""
        parts: Parts = {}
        with timed(parts, "acting"):
            stored = self.storage()
        for step in range(self.steps):
            self.play(step, stored, parts)
        with timed(parts, "update"):
            self.update(stored)
        return parts

    def storage(self) -> dict[Any, Any]:
        torch, shape = self.torch, (self.copies, self.steps)
        stored: dict[Any, Any] = {"done": torch.empty(shape), "terminated": torch.empty(shape)}
        stored["reward"] = torch.empty(shape)
        for name, group in self.groups.items():
            agents = (*shape, len(group.agents))
            stored[name, "seen"] = torch.empty(*agents, group.observation_size)
            stored[name, "after"] = torch.empty(*agents, group.observation_size)
            stored[name, "active"] = torch.empty(agents, dtype=torch.bool)
            stored[name, "log_prob"] = torch.empty(agents)
            if group.is_continuous:
                stored[name, "action"] = torch.empty(*agents, group.action_size)
            else:
                stored[name, "action"] = torch.empty(agents, dtype=torch.int64)
            if group.masked:
                stored[name, "mask"] = torch.empty(*agents, group.action_size, dtype=torch.bool)
        if self.by_state:
            size = self.environment.state_size
            stored["state"], stored["next_state"] = torch.empty(2, *shape, size)
        return stored

    def play(self, step: int, stored: dict[Any, Any], parts: Parts) -> None:
        torch, now = self.torch, self.now
        with timed(parts, "acting"), torch.no_grad():
            for name, group in self.groups.items():
                seen, mask = now[name, "observation"], now.get((name, "action_mask"), None)
                action, log_prob = self.act(name, seen, mask)
                now[name, "action"] = action
                entries = {"seen": seen, "active": now[name, "active"], "action": action}
                entries["log_prob"] = log_prob
                if group.masked:
                    entries["mask"] = mask
                for key, entry in entries.items():
                    stored[name, key][:, step] = entry
            if self.by_state:
                stored["state"][:, step] = now["state"]
        with timed(parts, "environment"):
            stepped, self.now = self.environment.step_and_maybe_reset(now)
        with timed(parts, "acting"):
            after = stepped["next"]
            rewarded = next(iter(self.groups))
            stored["reward"][:, step] = after[rewarded, "reward"][:, 0, 0]
            for key in ("done", "terminated"):
                stored[key][:, step] = after[key].squeeze(-1)
            for name in self.groups:
                stored[name, "after"][:, step] = after[name, "observation"]
            if self.by_state:
                stored["next_state"][:, step] = after["state"]

    def act(self, name: str, seen: Any, mask: Any) -> tuple[Any, Any]:
        torch = self.torch
        if name in self.deviations:
            mean = torch.tanh(self.actors[name](seen))
            noise = torch.randn_like(mean)
            action = mean + self.deviations[name].exp() * noise
            return action, self.log_prob_of(name, mean, action)
        chances = self.choices(name, seen, mask)
        action = torch.multinomial(chances.exp().flatten(0, -2), 1).view(chances.shape[:-1])
        return action, chances.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def choices(self, name: str, seen: Any, mask: Any) -> Any:
        outputs = self.actors[name](seen)
        if mask is not None:
            outputs = outputs.masked_fill(~mask, -1e9)
        return outputs.log_softmax(-1)

    def log_prob_of(self, name: str, mean: Any, action: Any) -> Any:
        log_std = self.deviations[name]
        distance = (action - mean) / log_std.exp()
        return (-0.5 * distance.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def log_prob(self, name: str, data: dict[str, Any]) -> tuple[Any, Any]:
        """Return log-probability and entropy of the actions."""
        torch = self.torch
        if name in self.deviations:
            mean = torch.tanh(self.actors[name](data["seen"]))
            return self.log_prob_of(name, mean, data["action"]), self.deviations[name].sum()
        chances = self.choices(name, data["seen"], data.get("mask"))
        taken = chances.gather(-1, data["action"].unsqueeze(-1)).squeeze(-1)
        return taken, -(chances.exp() * chances).sum(-1)

    def update(self, stored: dict[Any, Any]) -> None:
        torch = self.torch
        with torch.no_grad():
            inputs, after = self.of_critic(stored)
            advantage = self.advantage(stored, self.critic(inputs), self.critic(after))
            target = advantage + self.critic(inputs).squeeze(-1)
        factor = torch.ones(self.copies, self.steps, 1)
        is_sequential = self.config.agent.algorithm != "MAPPO"
        for name in self.groups:
            data = {key: stored[name, key] for key in ("seen", "active", "log_prob", "action")}
            if (name, "mask") in stored:
                data["mask"] = stored[name, "mask"]
            active = data["active"]
            own = advantage.unsqueeze(-1).expand(active.shape)
            mean = own[active].mean()
            own = torch.where(active, (own - mean) / (own[active].std() + 1e-5), 0.0)
            data["weight"] = own * factor
            flat = {key: entry.reshape(-1, *entry.shape[2:]) for key, entry in data.items()}
            with torch.no_grad():
                before = self.log_prob(name, flat)[0]
            self.fit(name, flat, self.config.training.num_epochs, self.policy_loss)
            if is_sequential:
                with torch.no_grad():
                    change = torch.where(flat["active"], self.log_prob(name, flat)[0] - before, 0.0)
                    factor = factor * change.sum(-1).exp().view(self.copies, self.steps, 1)
        flat = {"seen": inputs.reshape(-1, inputs.shape[-1]), "target": target.reshape(-1)}
        epochs = self.config.training.critic_epochs or self.config.training.num_epochs
        self.fit("critic", flat, epochs, self.value_loss)

    def of_critic(self, stored: dict[Any, Any]) -> tuple[Any, Any]:
        """Return what the critic reads before and after each step."""
        if self.by_state:
            return stored["state"], stored["next_state"]
        return tuple(
            self.torch.cat([stored[name, key].flatten(2) for name in self.groups], -1)
            for key in ("seen", "after")
        )

    def advantage(self, stored: dict[Any, Any], value: Any, next_value: Any) -> Any:
        torch, loss = self.torch, self.config.loss
        value, next_value = value.squeeze(-1), next_value.squeeze(-1)
        found, trace = torch.empty_like(value), torch.zeros(self.copies)
        for step in reversed(range(self.steps)):
            future = next_value[:, step] * (1 - stored["terminated"][:, step])
            error = stored["reward"][:, step] + loss.gamma * future - value[:, step]
            kept = 1 - stored["done"][:, step]
            trace = error + loss.gamma * loss.gae_lambda * trace * kept
            found[:, step] = trace
        return found

    def fit(
        self,
        name: str,
        data: dict[str, Any],
        epochs: int,
        loss_of: Callable[[str, dict[str, Any]], Any],
    ) -> None:
        torch, weights, rows = self.torch, self.weights[name], self.copies * self.steps
        size = self.config.replay_buffer.minibatch_size
        for _ in range(epochs):
            for chosen in torch.randperm(rows).split(size):
                batch = {key: entry.index_select(0, chosen) for key, entry in data.items()}
                loss = loss_of(name, batch)
                for weight, gradient in zip(
                    weights, torch.autograd.grad(loss, weights), strict=True
                ):
                    weight.grad = gradient
                torch.nn.utils.clip_grad_norm_(weights, self.config.training.max_grad_norm or 1e9)
                self.optimizers[name].step()

    def policy_loss(self, name: str, batch: dict[str, Any]) -> Any:
        torch, clip = self.torch, self.config.loss.clip_epsilon
        log_prob, entropy = self.log_prob(name, batch)
        ratio, active = (log_prob - batch["log_prob"]).exp(), batch["active"]
        weight = batch["weight"]
        gain = torch.min(ratio * weight, ratio.clamp(1 - clip, 1 + clip) * weight)
        gain = gain + self.config.loss.entropy_coef * entropy
        return -(gain * active).sum() / active.sum()

    def value_loss(self, _: str, batch: dict[str, Any]) -> Any:
        found = self.critic(batch["seen"]).squeeze(-1)
        return self.torch.nn.functional.huber_loss(found, batch["target"], delta=10.0)


if __name__ == "__main__":
    main()
