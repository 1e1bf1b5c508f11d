"""Test supervised learning from demonstrations."""

from __future__ import annotations

import itertools

import torch
from scripted import make_request

from heteromark.config.models.llm import WarmUpConfig
from heteromark.config.models.tasks import MathConfig, PlanPathConfig
from heteromark.llm.policies.backbone import tiny_backbone
from heteromark.llm.policies.language_model import LanguageModelPolicy
from heteromark.llm.tasks.base import split_of
from heteromark.llm.tasks.math import MathTask
from heteromark.llm.tasks.plan_path import PlanPathTask
from heteromark.llm.warm_up import RECENT, Demonstration, demonstrations, warm_up


def templates_of(task) -> dict[str, str]:
    return {name: role.templates[0] for name, role in task.roles.items()}


def test_demonstrations_show_a_team():
    task = PlanPathTask(PlanPathConfig(size=3))
    shown = demonstrations(task, ("tool", "planner"), templates_of(task), seed=5)
    tool, planner, next_tool, _ = itertools.islice(shown, 4)
    problem = task.problem(5)
    assert split_of(problem) == "train"
    assert tool.prompt == problem.prompt("tool", templates_of(task)["tool"])
    assert tool.response == planner.response
    assert tool.response in planner.prompt
    assert next_tool.prompt == task.problem(6).prompt("tool", templates_of(task)["tool"])


def test_later_roles_see_mistakes_and_demonstrate_right_answers():
    task = PlanPathTask(PlanPathConfig())
    shown = demonstrations(task, ("tool", "planner"), templates_of(task), seed=5, mistakes=0.5)
    examples = list(itertools.islice(shown, 800))
    tools, planners = examples[::2], examples[1::2]
    wrong = 0
    for number, (tool, planner) in enumerate(zip(tools, planners, strict=True)):
        problem = task.problem(5 + number)
        assert tool.response == planner.response == problem.demonstration("tool")
        proposals = [tool.response, tools[number - 1].response if number else None]
        prompts = []
        for proposal in proposals:
            copied = problem.clone()
            copied.act("tool", proposal or "")
            prompts.append(copied.prompt("planner", templates_of(task)["planner"]))
        assert planner.prompt in prompts
        wrong += planner.prompt != prompts[0]
    assert 140 < wrong < 220  # half of 400, minus consecutive problems with the same path


def test_mistakes_come_from_another_problem_even_if_a_role_acts_twice():
    task = PlanPathTask(PlanPathConfig())
    order = ("tool", "tool", "planner")
    shown = demonstrations(task, order, templates_of(task), seed=5, mistakes=1.0)
    examples = list(itertools.islice(shown, 60))
    for number in range(1, 20):
        planner, problem = examples[3 * number + 2], task.problem(5 + number)
        problem.act("tool", examples[3 * number - 3].response)
        assert planner.prompt == problem.prompt("planner", templates_of(task)["planner"])


def test_demonstrations_are_learnt():
    backbone = tiny_backbone(hidden_size=64, num_layers=2)
    shown = [Demonstration("2+2=", "4"), Demonstration("a longer one: 3+4=", "7 or so")]
    losses = []
    last = warm_up(
        backbone,
        itertools.cycle(shown),
        WarmUpConfig(steps=60, batch_size=4, learning_rate=3e-3, ramp=0),
        on_step=lambda step, loss: losses.append(loss),
    )
    assert len(losses) == 60
    assert last == losses[-1] < 0.1 < losses[0]
    _, texts, *_ = LanguageModelPolicy(backbone).respond(
        [each.prompt for each in shown],
        make_request(samples=1, max_prompt_length=32, max_response_length=16, temperature=0.0),
    )
    assert texts == [each.response for each in shown]  # including their ends


def test_the_same_seed_gives_the_same_model():
    task = MathTask(MathConfig())
    weights = []
    for seed in (0, 0, 1):
        backbone = tiny_backbone(hidden_size=32, num_layers=1)
        shown = demonstrations(task, ("reasoner",), templates_of(task), seed)
        settings = WarmUpConfig(steps=3, batch_size=4, learning_rate=1e-3, ramp=0, seed=seed)
        warm_up(backbone, shown, settings)
        weights.append(backbone.model.get_input_embeddings().weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def losses_of(**settings) -> list[float]:
    losses: list[float] = []
    warm_up(
        tiny_backbone(hidden_size=32, num_layers=1),
        itertools.cycle([Demonstration("2+2=", "4")]),
        WarmUpConfig(batch_size=2, learning_rate=1e-2, **({"ramp": 0} | settings)),
        on_step=lambda step, loss: losses.append(loss),
    )
    return losses


def test_warm_up_stops_when_the_mean_recent_loss_reaches_the_target():
    whole = losses_of(steps=120)
    means = [sum(whole[end - RECENT : end]) / RECENT for end in range(RECENT, 121)]
    target = (means[0] + means[-1]) / 2
    first = next(number for number, mean in enumerate(means) if mean <= target)
    assert losses_of(steps=120, target_loss=target) == whole[: RECENT + first]
    assert losses_of(steps=RECENT, target_loss=1e-9) == losses_of(steps=RECENT)


def test_the_learning_rate_ramps_up_if_configured():
    at_once, slowly = losses_of(steps=10), losses_of(steps=10, ramp=10)
    assert at_once[0] == slowly[0]
    assert at_once[1] < slowly[1] < slowly[0]
