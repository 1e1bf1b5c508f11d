"""Test `heteromark evaluate` for runs of language-model agents."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import get_args

import pytest
import torch
from engine_config import make_config
from rich.console import Console
from scripted import make_request
from text_config import make_text_config

from heteromark.commands.evaluate_run import EvaluationError, EvaluationRequest, evaluate_run
from heteromark.config.errors import ConfigError
from heteromark.config.models.components import Preset
from heteromark.llm.evaluate_team import format_transcript, references_of
from heteromark.llm.sampling import PRESETS
from heteromark.llm.team import load_team, untrained_team
from heteromark.training import loop
from heteromark.training.loaded_policy import load_policy

# Warmed up, because there is nothing to learn from malformed responses only.
WARM_UP = {"steps": 30, "batch_size": 16, "learning_rate": 1e-2, "ramp": 0}
PLAN_PATH = {
    "environment__text": {"task": "plan_path", "plan_path": {"size": 3}, "max_turns": 2},
    "model__warm_up": WARM_UP,
    "algorithm": "AT-GRPO",
    "evaluation__passes": 2,
    "evaluation__preset": "sampled",
}
ADAPTERS = PLAN_PATH | {
    "model__specialization": "lora",
    "model__policies": "role",
    "model__lora_rank": 2,
}
WHOLE = PLAN_PATH | {"model__policies": "role"}
MIXED = WHOLE | {"model__by_policy": {"tool": {"kind": "mlp", "hidden_sizes": [8]}}}
SINGLE = {"model__warm_up": WARM_UP, "grpo__beta": 0.1}
PROMPT = PLAN_PATH | {
    "model__specialization": "prompt",
    "model__tiny__max_length": 512,
    "generation__max_prompt_length": 400,
    "training__total_frames": 160,
}
TEXT_RUNS = {
    "adapters": ADAPTERS,
    "whole": WHOLE,
    "mixed": MIXED,
    "single": SINGLE,
    "prompt": PROMPT,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a trained run of each kind of text policy, and one without text policies.

    Its own run store holds the initial models.
    """
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HETEROMARK_STORE", str(folder / "store"))
        for name, overrides in TEXT_RUNS.items():
            loop.train(make_text_config(**overrides), folder / name)
        loop.train(make_config(training__total_frames=64), folder / "mlp")
    return folder


@pytest.fixture(autouse=True)
def stored(trained, monkeypatch):
    monkeypatch.setenv("HETEROMARK_STORE", str(trained / "store"))


def evaluated(folder, tmp_path, **options):
    """Return the printed lines and the written report."""
    output = tmp_path / "figures.json"
    request = EvaluationRequest(str(folder), device="cpu", output=output, **options)
    lines = evaluate_run(request)
    return lines, json.loads(output.read_text())


@pytest.mark.parametrize("run", TEXT_RUNS)
def test_the_runs_own_evaluation_is_reproduced(trained, tmp_path, run):
    """Check, with the run's seed and settings, that the loaded policies are exactly the trained."""
    own = json.loads((trained / run / "evaluation.json").read_text())
    _, report = evaluated(trained / run, tmp_path, episodes=5, seed=0)
    assert report.pop("iteration") == (10 if run == "prompt" else 2)
    assert report.pop("single_agent") is None
    assert report == own


def test_the_policies_of_a_checkpoint_are_the_trained_ones(trained):
    saved = torch.load(trained / "adapters" / "checkpoint.pt", weights_only=True)["actors"]
    loaded = load_team(trained / "adapters" / "checkpoint.pt")
    assert list(loaded.policies) == list(saved) == ["tool", "planner"]
    for name, policy in loaded.policies.items():
        for key, weight in policy.trained_parameters().items():
            [where] = [each for each in saved[name] if each.endswith(key)]
            assert torch.equal(weight, saved[name][where])
            assert weight.any()
        assert not policy.model.training


def test_the_results_are_printed(trained, tmp_path):
    lines, report = evaluated(trained / "adapters", tmp_path, episodes=4, passes=4)
    output_text, text = "\n".join(lines), report["text"]
    assert lines[0] == (
        "test_v1, seed 0, on math, after iteration 2: 4 problems, 4 passes each, preset sampled"
    )
    error = text["solve_rate_standard_error"]
    assert f"solve rate:       {text['solve_rate']:.1%} ± {error:.1%} (standard error)" in lines
    assert f"pass@1 {text['pass_at_k']['1']:.1%}, pass@2" in output_text
    assert f"pass@4 {text['pass_at_k']['4']:.1%}" in output_text
    assert f"reward:           {text['reward']:.2f}" in lines
    assert f"rounds:           {text['turns']:.2f} of 2" in lines
    for role, responses in text["roles"].items():
        assert f"{responses['response_length']:.1f} tokens per response" in output_text
        assert any(
            line.startswith(f"{role}:") and f"{responses['cut_off']:.1%} cut off at 6" in line
            for line in lines
        )
    assert "judgement" not in output_text  # this task has no judgement


def test_math_reports_the_accuracy_of_answers(trained, tmp_path):
    lines, report = evaluated(trained / "single", tmp_path, episodes=3)
    judged = report["text"]["judgement"]
    assert lines[-1] == (
        f"judgement:        exact {judged['exact']:.1%}, within 10 % "
        f"{judged['within_10_percent']:.1%}, format {judged['format']:.1%}"
    )
    assert "pass@k" not in "\n".join(lines)


@pytest.mark.parametrize(
    ("options", "preset", "passes"),
    [
        ({}, "sampled", 2),
        ({"deterministic": False}, "sampled", 2),
        ({"deterministic": True}, "greedy", 1),
        ({"preset": "greedy"}, "greedy", 1),
        ({"preset": "standard", "passes": 3}, "standard", 3),
        ({"preset": "liberal"}, "liberal", 2),
    ],
)
def test_the_preset_decides_how_responses_are_sampled(trained, tmp_path, options, preset, passes):
    lines, report = evaluated(trained / "adapters", tmp_path, episodes=2, **options)
    text = report["text"]
    assert (text["preset"], text["passes"]) == (preset, passes)
    assert text["generation"]["top_k"] == PRESETS[preset].top_k
    assert report["deterministic"] == (preset == "greedy")
    assert f"preset {preset}" in lines[0]


def test_every_preset_can_be_requested():
    assert set(get_args(Preset)) == set(PRESETS)


@pytest.mark.parametrize("run", ["adapters", "whole", "mixed"])
def test_roles_can_be_swapped(trained, tmp_path, run):
    lines, report = evaluated(trained / run, tmp_path, episodes=6, swap_roles=True)
    rows = {row["name"]: row for row in report["role_swaps"]}
    assert list(rows) == [
        "trained",
        "tool and planner exchanged",
        "tool untrained",
        "planner untrained",
        "all untrained",
    ]
    assert rows["trained"]["solve_rate"] == report["text"]["solve_rate"]
    console = Console(width=100)
    with console.capture() as captured:
        console.print(lines[-1])
    table = captured.get()
    for name, row in rows.items():
        assert name in table
        assert f"{row['solve_rate']:.1%} ±" in table


@pytest.mark.parametrize("run", ["adapters", "whole", "mixed", "single"])
def test_references_respond_as_before_training(trained, run):
    loaded = load_team(trained / run / "checkpoint.pt")
    before, _ = untrained_team(loaded.config, loaded.task, "cpu")
    references = references_of(loaded, loaded.team, torch.device("cpu"))
    problems = [loaded.task.problem(seed) for seed in range(20)]
    for policy in loaded.policies.values():  # the run may have learned very little
        for weight in policy.trained_parameters().values():
            weight.data += 0.1

    def log_probs(responder, role):
        prompts = [each.prompt(role, loaded.team.templates[role]) for each in problems]
        batch, *_ = responder.respond(
            prompts,
            make_request(
                samples=1,
                max_prompt_length=96,
                max_response_length=6,
                generator=torch.Generator().manual_seed(0),
            ),
        )
        return batch["log_prob"]

    assert list(references) == list(dict.fromkeys(loaded.team.turn_order))
    for role, reference in references.items():
        untrained = log_probs(before.policies[role], role)
        torch.testing.assert_close(log_probs(reference, role), untrained, atol=1e-5, rtol=0)
        changed = log_probs(loaded.team.policies[role], role) - untrained
        assert changed.abs().max() > 1e-3, role


def test_the_last_role_can_work_alone(trained, tmp_path):
    lines, report = evaluated(trained / "adapters", tmp_path, episodes=3, single_agent=True)
    assert lines[0].endswith("; planner works alone")
    assert report["single_agent"] == "planner"
    assert list(report["text"]["roles"]) == ["planner"]
    assert max(report["lengths"]) == 2  # as many rounds as the team had
    steps = [step for each in report["text"]["transcripts"] for step in each["steps"]]
    assert {step["role"] for step in steps} == {"planner"}


def test_transcripts_are_printed_verbatim(trained, tmp_path):
    lines, report = evaluated(trained / "adapters", tmp_path, episodes=10, transcripts=9)
    written = report["text"]["transcripts"]
    assert len(written) == 9
    for number, (shown, transcript) in enumerate(zip(lines, written, strict=False), start=1):
        assert shown.plain.startswith(f"problem {number}: ")
        for step in transcript["steps"]:
            assert all(line in shown.plain for line in step["prompt"].split("\n"))
    assert lines[9].startswith("test_v1")


def test_a_transcript_is_printed_without_markup_or_control_characters():
    text = "[bold]x[/bold] [/nope] :smile: \x1b[31mred\r\n1 + 2"
    step = {"turn": 1, "role": "tool", "prompt": text, "response": text}
    step |= {"reward": 0.5, "team": 0.25, "local": 0.25}
    transcript = {"key": "k", "solved": False, "reward": 0.5, "steps": [step]}
    console = Console(width=30, force_terminal=False)
    with console.capture() as captured:
        console.print(format_transcript(3, transcript), soft_wrap=True)
    assert captured.get() == (
        "problem 3: not solved, reward 0.50\n"
        "  round 2, tool: reward 0.50 (team 0.25, local 0.25)\n"
        "    prompt\n"
        "    │ [bold]x[/bold] [/nope] :smile: \\x1b[31mred\\r\n"
        "    │ 1 + 2\n"
        "    response\n"
        "    │ [bold]x[/bold] [/nope] :smile: \\x1b[31mred\\r\n"
        "    │ 1 + 2\n"
        "\n"
    )


@pytest.mark.parametrize(
    ("run", "options", "message"),
    [
        ("adapters", {"opponent": "random"}, "--opponent: 'random': does not apply to a run of l"),
        ("adapters", {"seat": "first"}, "--seat: 'first': does not apply to a run of"),
        ("adapters", {"max_steps": 3}, "--max-steps: 3: .*environment.text.max_turns rounds"),
        ("adapters", {"fps": 5}, "--fps: 5: .*--transcripts to see"),
        ("adapters", {"preset": "greedy", "passes": 2}, "--passes: 2: must be 1 with preset gree"),
        (
            "adapters",
            {"preset": "liberal", "deterministic": False},
            "--preset: 'liberal': conflicts with --sampled, which means preset sampled",
        ),
        ("single", {"single_agent": True}, "--single-agent: has no effect: only reasoner acts"),
        (
            "mlp",
            {"preset": "greedy"},
            "--preset: 'greedy': does not apply to a run of environment test",
        ),
        ("mlp", {"passes": 2}, "--passes: 2: does not apply"),
        ("mlp", {"transcripts": 2}, "--transcripts: 2: does not apply .*use --gif"),
        ("mlp", {"swap_roles": True}, "--swap-roles: does not apply to a run of"),
        ("mlp", {"single_agent": True}, "--single-agent: does not apply to a run of"),
    ],
)
def test_options_that_do_not_fit_a_run(trained, run, options, message):
    with pytest.raises(ConfigError, match=message):
        evaluate_run(EvaluationRequest(str(trained / run), episodes=1, **options))


def test_all_invalid_options_are_reported_at_once(trained, tmp_path):
    request = EvaluationRequest(str(trained / "whole"), gif=tmp_path / "a.gif", seat="first")
    with pytest.raises(ConfigError, match=r"2 errors[\s\S]*--seat[\s\S]*--gif"):
        evaluate_run(request)


def test_roles_without_trained_weights_are_not_swapped(trained):
    with pytest.raises(
        ConfigError, match="--swap-roles: has no effect: this run trained no weights"
    ):
        evaluate_run(EvaluationRequest(str(trained / "prompt"), episodes=1, swap_roles=True))


def test_the_best_wordings_are_used(trained):
    path = trained / "prompt" / "checkpoint.pt"
    loaded = load_team(path)
    [policy] = set(loaded.policies.values())
    assert {role: policy.best(role) for role in policy.wordings} == {
        role: loaded.team.templates[role] for role in policy.wordings
    }
    # another wording has the highest reward
    saved = torch.load(path, weights_only=True)
    best = policy.means("planner").index(max(policy.means("planner")))
    saved["actors"]["team"]["rewards.planner"][0, best] = -1e6
    torch.save(saved, path.with_name("other.pt"))
    other = load_team(path.with_name("other.pt"))
    assert other.team.templates["planner"] != loaded.team.templates["planner"]


def test_a_team_cannot_be_loaded_as_an_environment_policy(trained):
    with pytest.raises(ValueError, match="holds language-model agents for the task math"):
        load_policy(trained / "single" / "checkpoint.pt")


def test_a_checkpoint_of_other_policies_is_reported(trained, tmp_path):
    saved = torch.load(trained / "adapters" / "checkpoint.pt", weights_only=True)
    saved["actors"]["ghost"] = saved["actors"].pop("tool")
    torch.save(saved, tmp_path / "other.pt")
    with pytest.raises(EvaluationError, match=r"has actors for .*planner, ghost, but"):
        evaluate_run(EvaluationRequest(str(tmp_path / "other.pt"), episodes=1))


def test_loading_leaves_threads_and_random_streams_alone(trained):
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    load_team(trained / "whole" / "checkpoint.pt")
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_the_command(trained, tmp_path):
    """Run the command: transcripts, lines, a table and a file."""
    options = ("--episodes", "3", "--passes", "2", "--transcripts", "1", "--swap-roles")
    result = subprocess.run(
        [
            *(sys.executable, "-m", "heteromark", "evaluate", str(trained / "adapters"), *options),
            *("--device", "cpu", "--output", "out.json"),
        ],
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("problem 1: ")
    for word in ("round 1, tool: reward", "solve rate:", "pass@2", "all untrained", "±"):
        assert word in result.stdout, word
    assert json.loads((tmp_path / "out.json").read_text())["text"]["passes"] == 2
