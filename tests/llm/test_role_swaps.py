"""Test the evaluation of teams with swapped or untrained policies."""

from __future__ import annotations

import json

import pytest
import torch
from scripted import Scripted, make_request

from heteromark.config.models.tasks import MathConfig
from heteromark.llm.evaluation import EvaluationSettings
from heteromark.llm.policies.backbone import tiny_backbone
from heteromark.llm.policies.language_model import (
    LanguageModelPolicy,
    Lora,
    TextPolicy,
    adapter_policies,
)
from heteromark.llm.role_swaps import Reference, swap_roles
from heteromark.llm.rollout import Team
from heteromark.llm.sampling import PRESETS
from heteromark.llm.tasks.math import MathTask

SUMS = MathTask(MathConfig())
ORDER = ("tool", "reasoner")
SAMPLED = EvaluationSettings(PRESETS["sampled"])
PROBLEMS = [SUMS.problem(seed) for seed in range(6)]


def knows(role: str) -> Scripted:
    """Respond with one role's demonstration, in any role."""
    right = {problem.key: problem.demonstration(role) for problem in PROBLEMS}
    return Scripted(lambda prompt, _: right[prompt.partition(" ")[0]])


def team_of(policies, order=ORDER) -> Team:
    templates = {name: role.templates[0] for name, role in SUMS.roles.items()}
    return Team(order, policies, templates, 1, 1.0, 200, 16)


def rates(table) -> dict[str, float]:
    return {row["name"]: row["solve_rate"] for row in table}


def test_specialised_policies_fail_in_each_others_role():
    # the tool's expression is not an answer, and the reasoner's number needs the tool's agreement
    policies = {"tool": knows("tool"), "reasoner": knows("reasoner")}
    nothing = Scripted(lambda *_: "")
    table = swap_roles(team_of(policies), PROBLEMS, SAMPLED, {"tool": nothing, "reasoner": nothing})
    assert rates(table) == {
        "trained": 1.0,
        "tool and reasoner exchanged": 0.0,
        "tool untrained": 0.0,
        "reasoner untrained": 0.0,
        "all untrained": 0.0,
    }
    assert [row["policies"] for row in table] == [
        {"tool": "tool", "reasoner": "reasoner"},
        {"tool": "reasoner", "reasoner": "tool"},
        {"tool": None, "reasoner": "reasoner"},
        {"tool": "tool", "reasoner": None},
        {"tool": None, "reasoner": None},
    ]
    assert json.loads(json.dumps(table, allow_nan=False)) == table


def test_swaps_distinguish_important_from_unimportant_roles():
    # a number is also an expression, so one policy that knows it can act in both roles
    policies = {"tool": knows("reasoner"), "reasoner": knows("reasoner")}
    nothing, half = (
        Scripted(lambda *_: ""),
        Scripted(lambda prompt, drawn: policies["tool"].say(prompt, drawn) if drawn < 0.5 else ""),
    )
    settings = EvaluationSettings(PRESETS["sampled"], num_passes=100)
    solve_rates = rates(swap_roles(team_of(policies), PROBLEMS, settings, {"tool": half}))
    assert solve_rates["trained"] == solve_rates["tool and reasoner exchanged"] == 1.0
    assert solve_rates["tool untrained"] == pytest.approx(0.5, abs=0.1)
    assert "all untrained" not in solve_rates
    solve_rates = rates(swap_roles(team_of(policies), PROBLEMS, settings, {"reasoner": nothing}))
    assert solve_rates["reasoner untrained"] == 0.0


def test_every_pair_of_roles_is_swapped_unless_they_share_a_policy():
    shared = knows("reasoner")
    task_roles = {"tool": shared, "reasoner": shared}
    assert list(rates(swap_roles(team_of(task_roles), PROBLEMS, SAMPLED))) == ["trained"]
    order = ("tool", "reasoner", "tool", "reasoner")  # a role that acts twice counts once
    policies = {role: knows("reasoner") for role in ORDER}
    solve_rates = rates(swap_roles(team_of(policies, order), PROBLEMS, SAMPLED))
    assert list(solve_rates) == ["trained", "tool and reasoner exchanged"]


def test_references_of_unknown_roles_are_rejected():
    team = team_of({role: knows(role) for role in ORDER})
    with pytest.raises(
        ValueError, match="references contains critic, but the team's roles are tool"
    ):
        swap_roles(team, PROBLEMS, SAMPLED, {"critic": knows("tool")})


def changed(policy: TextPolicy) -> None:
    """Change the policy's weights, so that it responds differently."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in policy.trained_parameters().values():
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator))


def responses_of(responder, max_prompt_length: int = 8) -> list[str]:
    _, texts, *_ = responder.respond(
        ["1+2=", "3"],
        make_request(
            samples=8,
            max_prompt_length=max_prompt_length,
            max_response_length=8,
            generator=torch.Generator().manual_seed(0),
        ),
    )
    return texts


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_a_reference_responds_as_before_training(kind):
    backbone = tiny_backbone(hidden_size=32, num_layers=1)
    if kind == "adapter":
        policy = adapter_policies(backbone, ORDER, Lora(rank=2), temperature=0.8)["tool"]
    else:
        policy = LanguageModelPolicy(backbone, temperature=0.8, with_reference=True)
    before = responses_of(policy)
    changed(policy)
    after = responses_of(policy)
    assert before == responses_of(Reference(policy)) != after
    assert responses_of(policy) == after  # the policy is restored, also after an error
    with pytest.raises(ValueError, match="max_prompt_length"):
        responses_of(Reference(policy), max_prompt_length=2)
    assert responses_of(policy) == after


def test_adapters_are_swapped_and_replaced():
    policies = adapter_policies(tiny_backbone(hidden_size=32, num_layers=1), ORDER, Lora(rank=2))
    changed(policies["tool"])
    table = swap_roles(
        team_of(policies),
        PROBLEMS,
        SAMPLED,
        {role: Reference(policy) for role, policy in policies.items()},
    )
    assert len(table) == 5
    assert all(0 <= row["solve_rate"] <= 1 for row in table)


def test_a_missing_reference_is_reported():
    policy = LanguageModelPolicy(tiny_backbone(hidden_size=32, num_layers=1))
    with pytest.raises(ValueError, match="has no reference model"):
        responses_of(Reference(policy))
