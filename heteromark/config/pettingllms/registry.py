"""The names by which team configs call environments and agents, and what they stand for here."""

from __future__ import annotations

from heteromark.config.models.tasks import TASK_ROLES

# Tasks by environment. Where there are several, `env.benchmark` chooses.
ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "code_env": ("code",),
    "math_env": ("math",),
    "search_env": ("search",),
    "stateful_env": ("plan_path", "sokoban", "sudoku"),
}

SINGLE_AGENT = "single_agent"  # the role that can solve a task alone, whichever that is

# Names of agents by the role that they play. A generator proposes, and a critic reacts to it.
_NAMES_OF_ROLE: dict[str, tuple[str, ...]] = {
    "tool": ("tool_generator", "tool_call_agent", "generator"),
    "reasoner": ("reasoning_generator", "reasoning_agent", "critic"),
    "planner": ("plan_agent", "critic"),
    "coder": ("code_generator", "generator"),
    "tester": ("test_generator", "critic"),
    "searcher": ("web_search_agent", "generator"),
}

# Roles by task and by name of agent; a role's own name is one of them.
AGENTS: dict[str, dict[str, str]] = {
    task: {SINGLE_AGENT: roles[-1]}
    | {name: role for role in roles for name in (role, *_NAMES_OF_ROLE[role])}
    for task, roles in TASK_ROLES.items()
}
