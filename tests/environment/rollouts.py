"""Rollouts of random legal actions."""

from __future__ import annotations

import torch


def play(env, steps, seed=0, stream=("test",)):
    """Return a rollout [N, steps] of random legal actions, with finished copies reset."""
    env.reseed(seed, *stream)
    now, taken = env.reset(), []
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        act(env, now, generator)
        stepped, now = env.step_and_maybe_reset(now)
        taken.append(stepped)
    return torch.stack(taken, 1)


def act(env, now, generator):
    """Write a random legal action for every agent."""
    for name, group in env.groups.items():
        shape = now[name, "active"].shape
        if not group.is_discrete:
            low, high = map(torch.as_tensor, (group.action_space.low, group.action_space.high))
            uniform = torch.rand((*shape, group.action_size), generator=generator)
            now[name, "action"] = low + (high - low) * uniform
        elif group.masked:
            weights = now[name, "action_mask"].float().flatten(0, 1)
            now[name, "action"] = torch.multinomial(weights, 1, generator=generator).view(shape)
        else:
            now[name, "action"] = torch.randint(group.action_size, shape, generator=generator)
