"""Test whether policies have specialised: evaluate a team with swapped or untrained policies.

Source: AT-GRPO ("Stronger-MAS", arXiv 2510.11062), the ablation that swaps trained roles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from heteromark.llm.evaluation import EvaluationSettings, evaluate
from heteromark.llm.policies.base import Replies, TextPolicy
from heteromark.llm.rollout import Responder, Team
from heteromark.llm.sampling import Request
from heteromark.llm.tasks.base import Problem

# Maps each role to the role whose policy acts in it, or to None for its untrained reference.
_Cast = dict[str, str | None]


class Reference:
    """Responds as a policy did before training.

    Args:
        policy: a trained policy with a reference.
    """

    def __init__(self, policy: TextPolicy) -> None:
        self._policy = policy

    def respond(self, prompts: Sequence[str], request: Request, system: str = "") -> Replies:
        """Respond as `TextPolicy.respond` does; the default temperature is the policy's."""
        policy = self._policy
        trained = policy.model
        with policy.as_reference() as model:
            policy.model = model  # for an adapter: the same model with its adapters disabled
            try:
                return policy.respond(prompts, request, system)
            finally:
                policy.model = trained


def swap_roles(
    team: Team,
    problems: Sequence[Problem],
    settings: EvaluationSettings,
    references: Mapping[str, Responder] | None = None,
) -> list[dict[str, Any]]:
    """Evaluate a team as trained, with swapped policies and with untrained ones.

    All variants get the same problems. Each role keeps its prompt; only the responding policy
    changes. Roles that share a policy are not swapped.

    Args:
        team: a trained team.
        problems: the problems to evaluate.
        settings: how to evaluate; no transcripts are recorded.
        references: untrained responder of each role, such as `Reference`.

    Returns:
        Rows with name; policies, which maps each role to the role whose policy acted, or to None
        for the reference; solve_rate and solve_rate_standard_error. The order is: the trained
        team, each swap of two roles, each role replaced by its reference, all roles replaced.

    Raises:
        ValueError: There is a reference for a role that does not act.
    """
    roles = list(dict.fromkeys(team.turn_order))
    references = references or {}
    if unknown := [role for role in references if role not in roles]:
        raise ValueError(
            f"references contains {', '.join(unknown)}, but the team's roles are {', '.join(roles)}"
        )
    settings = replace(settings, num_transcripts=0)
    rows = []
    for name, cast in _casts(roles, team.policies, references):
        policies = {
            role: references[role] if source is None else team.policies[source]
            for role, source in cast.items()
        }
        report = evaluate(replace(team, policies=policies), problems, settings)
        rates = {key: report[key] for key in ("solve_rate", "solve_rate_standard_error")}
        rows.append({"name": name, "policies": cast, **rates})
    return rows


def _casts(
    roles: Sequence[str], policies: Mapping[str, Responder], references: Mapping[str, Responder]
) -> Iterator[tuple[str, _Cast]]:
    """Yield the name and role assignment of each variant."""
    trained: _Cast = {role: role for role in roles}
    yield "trained", trained
    for first, second in combinations(roles, 2):
        if policies[first] is not policies[second]:
            yield f"{first} and {second} exchanged", trained | {first: second, second: first}
    for role in references:
        yield f"{role} untrained", trained | {role: None}
    if len(references) > 1:
        yield "all untrained", trained | dict.fromkeys(references)
