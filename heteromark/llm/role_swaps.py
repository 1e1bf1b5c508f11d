"""Whether policies have specialised: a team is evaluated with its roles filled otherwise.

Source: AT-GRPO ("Stronger-MAS", arXiv 2510.11062), the ablation that swaps trained roles.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from tensordict import TensorDict

from heteromark.llm.evaluation import EvaluationSettings, evaluate
from heteromark.llm.policies.language_model import TextPolicy
from heteromark.llm.rollout import Responder, Team
from heteromark.llm.sampling import Request
from heteromark.llm.tasks.base import Problem

# By role, whose policy fills it; None: the role's reference.
_Cast = dict[str, str | None]


class Reference:
    """Responds as a policy did before any training.

    Args:
        policy: a trained one, with a reference.
    """

    def __init__(self, policy: TextPolicy) -> None:
        self._policy = policy

    def respond(self, prompts: Sequence[str], request: Request) -> tuple[TensorDict, list[str]]:
        """As `TextPolicy.respond`, at the policy's own temperature unless told another."""
        policy = self._policy
        trained = policy.model
        with policy.as_reference() as model:
            policy.model = model  # an adapter's model is the same one, with its adapters off
            try:
                return policy.respond(prompts, request)
            finally:
                policy.model = trained


def swap_roles(
    team: Team,
    problems: Sequence[Problem],
    settings: EvaluationSettings,
    references: Mapping[str, Responder] | None = None,
) -> list[dict[str, Any]]:
    """Evaluate a team as it is, and with its roles filled otherwise, on the same problems.

    Prompts stay those of the roles; only who responds changes. Roles that share a policy have
    nothing to exchange.

    Args:
        team: trained, with a policy for each role.
        references: by role, what responds as if untrained, such as `Reference`.

    Returns:
        A table by rows: name; policies, by role the role whose policy filled it, or None for the
        reference; solve_rate and solve_rate_standard_error. First the team as trained, then each
        exchange of two roles, each role replaced by its reference, and all of them.

    Raises:
        ValueError: there is a reference for a role that does not act.
    """
    roles = list(dict.fromkeys(team.turn_order))
    references = references or {}
    if strange := [role for role in references if role not in roles]:
        raise ValueError(
            f"references for {', '.join(strange)}, but the roles that act are {', '.join(roles)}"
        )
    settings = replace(settings, num_transcripts=0)
    rows = []
    for name, cast in _casts(roles, team.policies, references):
        policies = {
            role: references[role] if whose is None else team.policies[whose]
            for role, whose in cast.items()
        }
        report = evaluate(replace(team, policies=policies), problems, settings)
        told = {key: report[key] for key in ("solve_rate", "solve_rate_standard_error")}
        rows.append({"name": name, "policies": cast, **told})
    return rows


def _casts(
    roles: Sequence[str], policies: Mapping[str, Responder], references: Mapping[str, Responder]
) -> Iterator[tuple[str, _Cast]]:
    """Ways to fill the roles, each with its name."""
    trained: _Cast = {role: role for role in roles}
    yield "trained", trained
    for first, second in combinations(roles, 2):
        if policies[first] is not policies[second]:
            yield f"{first} and {second} exchanged", trained | {first: second, second: first}
    for role in references:
        yield f"{role} untrained", trained | {role: None}
    if len(references) > 1:
        yield "all untrained", trained | dict.fromkeys(references)
