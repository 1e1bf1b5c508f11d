"""Time SMAX with random legal actions: smacv2_5_units against its heuristic, on the CPU.

Prints {"env_steps_per_second", "compile_seconds", "peak_mib"} as its last line. Observations,
world state and rewards are summed and returned, so that no computation is optimised away. Resets
happen within SMAX's step.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from importlib import metadata


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", action="store_true")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.versions:
        names = ("jaxmarl", "jax", "jaxlib")
        print(json.dumps({name: metadata.version(name) for name in names}))
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    print(json.dumps(measure(arguments.batch, arguments.seconds)))


def measure(batch: int, seconds: float, length: int = 10) -> dict[str, float]:
    import jax
    import jax.numpy as jnp
    from jaxmarl import make
    from jaxmarl.environments.smax import map_name_to_scenario

    env = make("HeuristicEnemySMAX", scenario=map_name_to_scenario("smacv2_5_units"))

    def choose(key, mask):
        return jax.random.categorical(key, jnp.where(mask > 0, 0.0, -1e9))

    def step(carry, _):
        key, state, total = carry
        key, act, advance = jax.random.split(key, 3)
        masks = jax.vmap(env.get_avail_actions)(state)
        keys = jax.random.split(act, len(env.agents))
        actions = {
            agent: choose(key, masks[agent]) for agent, key in zip(env.agents, keys, strict=True)
        }
        observations, state, rewards, _, _ = jax.vmap(env.step)(
            jax.random.split(advance, batch), state, actions
        )
        seen = sum(leaf.sum() for leaf in jax.tree.leaves(observations))
        paid = sum(leaf.sum() for leaf in jax.tree.leaves(rewards))
        return (key, state, total + seen + paid), None

    @jax.jit
    def run(key, state):
        (key, state, total), _ = jax.lax.scan(step, (key, state, 0.0), None, length)
        return key, state, total

    key = jax.random.PRNGKey(0)
    _, state = jax.vmap(env.reset)(jax.random.split(key, batch))
    started = time.perf_counter()
    key, state, total = run(key, state)
    jax.block_until_ready(total)
    compiling = time.perf_counter() - started
    key, state, total = run(key, state)
    jax.block_until_ready(total)
    started, steps = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < seconds:
        key, state, total = run(key, state)
        jax.block_until_ready(total)
        steps += length * batch
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "env_steps_per_second": steps / elapsed,
        "compile_seconds": compiling,
        "peak_mib": peak,
    }


if __name__ == "__main__":
    main()
