"""Test the evaluation of teams with scripted policies and tiny language models."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch
from scripted import Scripted, make_request

from heteromark.config.models.tasks import MathConfig, PlanPathConfig
from heteromark.llm.evaluation import EvaluationSettings, evaluate, single_agent
from heteromark.llm.policies.backbone import tiny_backbone
from heteromark.llm.policies.language_model import LanguageModelPolicy, Lora, adapter_policies
from heteromark.llm.rollout import Team
from heteromark.llm.sampling import PRESETS, Generation
from heteromark.llm.tasks.math import MathTask
from heteromark.llm.tasks.plan_path import PlanPathTask

SUMS = MathTask(MathConfig())
ORDER = ("tool", "reasoner")
SAMPLED = EvaluationSettings(PRESETS["sampled"])


def different(count: int, task=SUMS) -> list:
    """Return `count` different problems, so that a prompt identifies its problem."""
    found = {}
    for seed in range(10 * count):
        problem = task.problem(seed)
        found.setdefault(problem.key, problem)
    return list(found.values())[:count]


PROBLEMS = different(200)


def sure(role: str, probability: float = 1.0, otherwise: str = "") -> Scripted:
    """Respond with the demonstration with some probability."""
    right = {problem.key: problem.demonstration(role) for problem in PROBLEMS}

    def say(prompt: str, drawn: float) -> str:
        return right[prompt.partition(" ")[0]] if drawn < probability else otherwise

    return Scripted(say)


def team_of(task=SUMS, order=ORDER, **changes) -> Team:
    settings = {
        "turn_order": order,
        "templates": {name: role.templates[0] for name, role in task.roles.items()},
        "max_turns": 1,
        "team_weight": 1.0,
        "max_prompt_length": 200,
        "max_response_length": 16,
    }
    return Team(**(settings | changes))


def alone(policy, **changes) -> Team:
    return team_of(order=("reasoner",), policies={"reasoner": policy}, **changes)


@pytest.mark.parametrize(("probability", "turns"), [(0.3, 1), (0.6, 1), (0.3, 2)])
def test_a_solver_by_chance_has_the_expected_rates(probability, turns):
    team = alone(sure("reasoner", probability), max_turns=turns)
    report = evaluate(team, PROBLEMS, replace(SAMPLED, num_passes=8))
    fails = (1 - probability) ** turns
    error = (fails * (1 - fails) / (8 * 200)) ** 0.5
    assert report["solve_rate"] == pytest.approx(1 - fails, abs=4 * error)
    # problems differ by chance only, so their spread estimates the error
    assert report["solve_rate_standard_error"] == pytest.approx(error, rel=0.2)
    assert list(report["pass_at_k"]) == ["1", "2", "4", "8"]
    for k, rate in report["pass_at_k"].items():
        assert rate == pytest.approx(1 - fails ** int(k), abs=0.06)
    assert report["judgement"]["exact"] == report["judgement"]["format"] == report["solve_rate"]
    rounds = sum((1 - probability) ** turn for turn in range(turns))
    assert report["turns"] == pytest.approx(rounds, abs=0.06)
    assert report["roles"]["reasoner"]["responses"] == report["turns"] * 8 * 200


def test_passes_are_independent_and_grouped_by_problem():
    solvable = PROBLEMS[1].key
    right = PROBLEMS[1].demonstration("reasoner")
    script = Scripted(lambda prompt, _: right if prompt.startswith(solvable + " ") else "0")
    report = evaluate(alone(script), PROBLEMS[:3], replace(SAMPLED, num_passes=4))
    assert report["solved_passes"] == [0, 4, 0]
    assert report["solve_rate"] == pytest.approx(1 / 3)
    assert list(report["pass_at_k"].values()) == pytest.approx([1 / 3] * 3)


def test_lengths_and_cut_off_shares_are_by_role():
    policies = {
        "tool": Scripted(lambda *_: "1+1"),  # three tokens and the end token
        "reasoner": Scripted(lambda _, drawn: "x" * (5 if drawn < 0.5 else 50)),
    }
    team = team_of(policies=policies, max_response_length=6)  # the shorter one just fits
    report = evaluate(team, PROBLEMS, replace(SAMPLED, num_passes=2))["roles"]
    assert report["tool"] == {"responses": 400, "response_length": 4, "cut_off": 0}
    assert report["reasoner"]["response_length"] == 6
    assert report["reasoner"]["cut_off"] == pytest.approx(0.5, abs=0.1)


def test_means_by_hand():
    right = PROBLEMS[0].demonstration("reasoner")
    near = str(int(right) + 1)
    assert int(right) > 10
    team = alone(Scripted(lambda prompt, _: right if PROBLEMS[0].key in prompt else "x"))
    report = evaluate(team, PROBLEMS[:2], SAMPLED)
    assert report["reward"] == pytest.approx((1 - 0.1) / 2)
    assert report["judgement"] == {"exact": 0.5, "within_10_percent": 0.5, "format": 0.5}
    report = evaluate(alone(Scripted(lambda *_: near)), PROBLEMS[:1], SAMPLED)
    assert report["judgement"] == {"exact": 0.0, "within_10_percent": 1.0, "format": 1.0}
    assert report["solve_rate"] == 0.0


def test_a_task_without_judgement_reports_none():
    paths = PlanPathTask(PlanPathConfig(size=3))
    policies = {role: Scripted(lambda *_: "U") for role in paths.roles}
    team = team_of(paths, tuple(paths.roles), policies=policies)
    assert evaluate(team, different(2, paths), SAMPLED)["judgement"] == {}


def test_a_role_that_never_acts_has_no_length():
    # the reasoner solves the problem first, so the tool never acts
    policies = {"tool": Scripted(lambda *_: ""), "reasoner": sure("reasoner")}
    team = team_of(order=("reasoner", "tool"), policies=policies)
    report = evaluate(team, PROBLEMS[:2], SAMPLED)
    assert report["roles"]["tool"] == {"responses": 0, "response_length": None, "cut_off": None}


def test_a_report_is_json_without_nan():
    report = evaluate(
        alone(sure("reasoner")), PROBLEMS[:1], replace(SAMPLED, num_passes=3, num_transcripts=4)
    )
    assert report["solve_rate_standard_error"] is None
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["generation"] == asdict(PRESETS["sampled"])


def test_transcripts_are_of_the_first_problems_first_pass():
    policies = {"tool": sure("tool", 0.5, "1+"), "reasoner": sure("reasoner", 0.5, "0")}
    team = team_of(policies=policies, max_turns=2, team_weight=0.5)
    settings = replace(SAMPLED, num_passes=3, chunk_size=2, num_transcripts=5)
    report = evaluate(team, PROBLEMS[:8], settings)["transcripts"]
    assert [each["key"] for each in report] == [problem.key for problem in PROBLEMS[:5]]
    assert len({len(each["steps"]) for each in report}) > 1  # done in one round, and in two
    for each, problem in zip(report, PROBLEMS, strict=False):
        again = problem.clone()
        places = [(step["turn"], step["role"]) for step in each["steps"]]
        assert places == [(0, "tool"), (0, "reasoner"), (1, "tool"), (1, "reasoner")][: len(places)]
        for step in each["steps"]:
            assert step["prompt"] == again.prompt(step["role"], team.templates[step["role"]])
            assert (step["team"], step["local"]) == again.act(step["role"], step["response"])
            assert step["reward"] == 0.5 * step["team"] + step["local"]
        assert again.is_done or places[-1] == (1, "reasoner")
        assert each["solved"] == again.is_solved
        assert each["reward"] == pytest.approx(sum(step["reward"] for step in each["steps"]))


def test_one_chunk_is_processed_at_a_time():
    script = sure("reasoner", 0.5)
    settings = replace(SAMPLED, num_passes=3, chunk_size=4)
    report = evaluate(alone(script), PROBLEMS[:10], settings)
    assert script.rows == [12, 12, 6]
    assert len(report["solved_passes"]) == 10


def test_a_chunk_does_not_depend_on_earlier_chunks():
    solver, settings = alone(sure("reasoner", 0.5)), replace(SAMPLED, num_passes=6, chunk_size=4)
    whole = evaluate(solver, PROBLEMS[:8], settings)["solved_passes"]
    first = evaluate(solver, PROBLEMS[:4], settings)["solved_passes"]
    assert whole[:4] == first
    # the same problems in a later chunk get other samples
    twice = evaluate(solver, PROBLEMS[:4] * 2, settings)["solved_passes"]
    assert twice[:4] == first != twice[4:]
    # and the same samples if an earlier chunk took more of them
    first_keys = {problem.key for problem in PROBLEMS[:4]}
    half = sure(
        "reasoner", 0.5, otherwise="0"
    )  # an answer, so that the problem ends after one round

    def say(prompt: str, drawn: float) -> str:
        return "" if prompt.partition(" ")[0] in first_keys else half.say(prompt, drawn)

    slower = evaluate(alone(Scripted(say), max_turns=3), PROBLEMS[:8], settings)
    assert slower["turns"] == 2
    assert slower["solved_passes"][4:] == whole[4:]


@pytest.fixture(scope="module")
def adapters():
    return adapter_policies(tiny_backbone(hidden_size=32, num_layers=1), ORDER, Lora(rank=2))


@pytest.mark.parametrize("preset", PRESETS)
def test_language_models_respond_the_same_with_the_same_seed(adapters, preset):
    team = team_of(policies=adapters)
    settings = EvaluationSettings(PRESETS[preset], num_passes=2, chunk_size=2, num_transcripts=3)
    state = torch.random.get_rng_state()
    first = evaluate(team, PROBLEMS[:3], settings)
    torch.rand(7)
    again = evaluate(team, PROBLEMS[:3], settings)
    other = evaluate(team, PROBLEMS[:3], replace(settings, seed=1))
    assert first == again
    assert (first["transcripts"] == other["transcripts"]) == (preset == "greedy")
    torch.random.set_rng_state(state)
    evaluate(team, PROBLEMS[:3], settings)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_greedy_does_not_depend_on_the_chunks(adapters):
    settings = EvaluationSettings(PRESETS["greedy"], num_transcripts=4)
    one, other = (
        evaluate(team_of(policies=adapters), PROBLEMS[:4], replace(settings, chunk_size=size))
        for size in (1, 4)
    )
    assert one["transcripts"] == other["transcripts"]


def test_presets_truncate_the_distribution():
    policy = LanguageModelPolicy(tiny_backbone(hidden_size=32, num_layers=1), temperature=0.9)
    with torch.no_grad():  # so that outputs are not uniform
        policy.model.get_input_embeddings().weight.mul_(4)
        logits = policy.model(torch.tensor([policy.tokenizer("7").input_ids])).logits[0, -1]
    likely_first = logits.argsort(descending=True)

    def first_tokens(preset: str) -> set[int]:
        """Return the first tokens of many responses."""
        batch, *_ = policy.respond(
            ["7"],
            make_request(
                samples=10_000,
                max_prompt_length=4,
                max_response_length=1,
                generator=torch.Generator().manual_seed(0),
                **asdict(PRESETS[preset]),
            ),
        )
        return set(batch["action"].flatten().tolist())

    assert first_tokens("greedy") == {likely_first[0].item()}
    share = (logits[likely_first[:50]] / 0.7).softmax(-1)
    kept = int((share.cumsum(0) - share < 0.95).sum())
    assert kept < 50
    assert first_tokens("standard") == set(likely_first[:kept].tolist())
    assert len(first_tokens("liberal")) == len(first_tokens("sampled")) == len(policy.tokenizer)


def test_the_sampled_preset_equals_training():
    policy = LanguageModelPolicy(tiny_backbone(hidden_size=32, num_layers=1), temperature=0.8)
    settings = {"samples": 4, "max_prompt_length": 9, "max_response_length": 9}
    report = [
        policy.respond(
            ["1+2="], make_request(**settings, **chosen, generator=torch.Generator().manual_seed(0))
        )
        for chosen in ({}, asdict(PRESETS["sampled"]), {"temperature": 0.8})
    ]
    assert report[0][1] == report[1][1] == report[2][1]
    assert torch.equal(report[0][0]["log_prob"], report[1][0]["log_prob"])


def test_a_single_agent_works_with_as_many_rounds_and_passes():
    policies = {"tool": sure("tool"), "reasoner": sure("reasoner", 0.0)}
    team = team_of(policies=policies, max_turns=3)
    baseline = single_agent(team, "reasoner")
    report = evaluate(baseline, PROBLEMS[:4], replace(SAMPLED, num_passes=2))
    assert list(report["roles"]) == ["reasoner"]
    assert (report["turns"], report["passes"]) == (3, 2)
    assert policies["tool"].rows == []
    with pytest.raises(ValueError, match="no role 'critic' in this team; its roles are tool, rea"):
        single_agent(team, "critic")


@pytest.mark.parametrize("name", ["num_passes", "chunk_size", "num_transcripts"])
def test_settings_out_of_range_are_named(name):
    with pytest.raises(ValueError, match=rf"{name} \(-1\) must be at least"):
        replace(SAMPLED, **{name: -1})


@pytest.mark.parametrize("chosen", [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}])
def test_generation_out_of_range_is_named(chosen):
    with pytest.raises(ValueError, match=rf"{next(iter(chosen))} \(.*\) must be "):
        Generation(**chosen)


def test_no_problems_are_refused():
    with pytest.raises(ValueError, match="no problems to evaluate: pass at least one"):
        evaluate(alone(sure("reasoner")), [], SAMPLED)
