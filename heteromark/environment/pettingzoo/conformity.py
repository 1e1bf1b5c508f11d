"""Check what a PettingZoo environment returns, and say in one sentence what is wrong. No torch."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import numpy as np

_RESET = "def reset(self, seed=None, options=None): … return observations, infos"
_DICT = {dict}
_STEP = "return observations, rewards, terminations, truncations, infos"


def require_seed(env: Any, name: str) -> None:
    """Raise ValueError unless `reset` takes a seed."""
    parameters = inspect.signature(env.reset).parameters.values()
    if not any(p.name == "seed" or p.kind is p.VAR_KEYWORD for p in parameters):
        raise ValueError(
            f"environment {name!r} cannot be seeded: its reset() takes no seed, so its episodes "
            f"could not be repeated. Write it as `{_RESET}`, and draw all random numbers from a "
            "generator made of the seed"
        )


def reset_parallel(
    env: Any, seed: int | None, name: str, copy: int = 0
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Reset a Parallel environment; return observations and infos by agent.

    Raises:
        ValueError: it returns something else.
    """
    result = env.reset() if seed is None else env.reset(seed=seed)
    if _has_mappings(result, 2):
        return result
    raise ValueError(
        f"reset() of environment {name!r}, copy {copy}, returned {_brief(result)}, but must return "
        f"two dictionaries by agent, as in `{_RESET}`"
    )


def step_parallel(
    env: Any, actions: Mapping[str, Any], name: str, copy: int
) -> tuple[Mapping[str, Any], ...]:
    """Step a Parallel environment; return its five dictionaries.

    Raises:
        ValueError: it returns something else.
    """
    result = env.step(actions)
    if _has_mappings(result, 5):
        return result
    raise ValueError(
        f"step() of environment {name!r}, copy {copy}, returned {_brief(result)}, but must return "
        f"five dictionaries by agent: `{_STEP}`"
    )


def number(value: Any) -> float | None:
    """Return a value as a float, also if it is an array of one number; None: it is no number."""
    if isinstance(value, float):  # numpy's as well
        return float(value)
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        return None
    return float(array.item()) if array.dtype.kind in "biuf" and array.size == 1 else None


def refuse_reward(agent: str, value: Any, name: str, copy: int) -> NoReturn:
    """Raise ValueError for a reward that is no number."""
    raise ValueError(
        f"environment {name!r} gave agent {agent!r} of copy {copy} the reward {_brief(value)}; a "
        "reward must be one number"
    )


def refuse_info(agent: str, value: Any, name: str, copy: int) -> NoReturn:
    """Raise ValueError for an info that is no dictionary."""
    raise ValueError(
        f"environment {name!r} gave agent {agent!r} of copy {copy} the info {_brief(value)}; an "
        "info must be a dictionary, which may be empty"
    )


def refuse_ids(
    kind: str, unknown: set[Any], agents: Iterable[str], name: str, copy: int
) -> NoReturn:
    """Raise ValueError for entries of agents that do not exist."""
    found = ", ".join(sorted(map(repr, unknown)))
    raise ValueError(
        f"environment {name!r} returned {kind} for {found} in copy {copy}, but its possible_agents "
        f"are {', '.join(agents)}; use these names as keys"
    )


def _has_mappings(result: Any, count: int) -> bool:
    if not isinstance(result, tuple) or len(result) != count:
        return False
    types = set(map(type, result))
    # asking an abstract class is slow
    return types == _DICT or all(issubclass(each, Mapping) for each in types)


def _brief(value: Any) -> str:
    """Describe a value in a few words."""
    if isinstance(value, tuple):
        return f"a tuple of {len(value)} ({', '.join(type(part).__name__ for part in value)})"
    text = repr(value)
    if isinstance(value, Mapping) or len(text) > 60:
        return f"a {type(value).__name__}"
    return text
