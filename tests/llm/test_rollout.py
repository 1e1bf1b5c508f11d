"""Test rollouts of teams with scripted policies."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
from tensordict import TensorDict

from heteromark.config.models.tasks import MathConfig, PlanPathConfig
from heteromark.llm.advantage import group_advantage
from heteromark.llm.policies.backbone import tiny_backbone
from heteromark.llm.policies.base import Replies
from heteromark.llm.policies.language_model import Lora, adapter_policies
from heteromark.llm.rollout import Rollout, Team, roll_out
from heteromark.llm.sampling import Request
from heteromark.llm.tasks.base import Task
from heteromark.llm.tasks.math import MathTask
from heteromark.llm.tasks.plan_path import PlanPathTask


class Script:
    """Responds with the result of a function of prompt and candidate; records the prompts."""

    def __init__(self, say: Callable[[str, int], str]) -> None:
        self.say = say
        self.prompts: list[str] = []

    def respond(self, prompts: Sequence[str], request: Request, system: str = "") -> Replies:
        self.prompts += prompts
        texts = [
            self.say(prompt, number) for prompt in prompts for number in range(request.samples)
        ]
        batch = TensorDict({"action": torch.zeros(len(texts), 1)}, [len(texts)])
        return Replies(batch, texts, list(prompts), texts)


PATHS = PlanPathTask(PlanPathConfig(size=4, min_distance=3))
ORDER = ("tool", "planner")


def team_of(task: Task, policies: dict, **changes) -> Team:
    settings = {
        "turn_order": ORDER,
        "policies": policies,
        "templates": {name: role.templates[0] for name, role in task.roles.items()},
        "max_turns": 2,
        "team_weight": 1.0,
        "max_prompt_length": 200,
        "max_response_length": 16,
    }
    return Team(**(settings | changes))


def solver(problem, role: str) -> Callable[[str, int], str]:
    return lambda prompt, number: problem.demonstration(role)


def members(rollout: Rollout) -> dict[int, list[tuple[int, str, str, float]]]:
    """Return turn, role, prompt and reward of the responses in each group."""
    found: dict[int, list[tuple[int, str, str, float]]] = {}
    for step in rollout.steps:
        for row, group in enumerate(step.batch["group_id"].tolist()):
            reward = step.batch["reward"][row].item()
            found.setdefault(group, []).append((step.turn, step.role, step.prompts[row], reward))
    return found


def test_a_team_that_knows_the_way_solves_in_one_round():
    problem = PATHS.problem(0)
    policies = {role: Script(solver(problem, role)) for role in ORDER}
    rollout = roll_out(team_of(PATHS, policies), [problem], samples=2, sampling="tree")
    (episode,) = rollout.episodes
    assert (episode.is_solved, episode.turns) == (True, 1)
    assert [(step.turn, step.role) for step in rollout.steps] == [(0, "tool"), (0, "planner")]
    assert not problem.is_done  # the team worked on a copy


def test_the_second_agent_sees_what_the_first_one_did_in_the_same_round():
    problem = PATHS.problem(0)
    way = problem.demonstration("tool")
    policies = {"tool": Script(lambda *_: way), "planner": Script(lambda *_: "")}
    roll_out(team_of(PATHS, policies), [problem], samples=2, sampling="tree")
    assert way not in policies["tool"].prompts[0]
    assert way in policies["planner"].prompts[0]


def test_a_tree_continues_from_the_best_candidate():
    problem = PATHS.problem(0)
    way = problem.demonstration("planner")
    replies = ("", way[:1], way[:2], "nonsense")
    policies = {"tool": Script(lambda *_: ""), "planner": Script(lambda _, number: replies[number])}
    rollout = roll_out(team_of(PATHS, policies), [problem], samples=4, sampling="tree")
    first, second = (step for step in rollout.steps if step.role == "planner")
    assert first.batch["reward"].argmax() == 2
    after = problem.clone()
    after.act("planner", way[:2])
    assert after.fields("planner")["grid"] in second.prompts[0]


def test_chain_attempts_are_independent():
    problem = PATHS.problem(0)
    way = problem.demonstration("planner")
    replies = itertools.cycle((way, "", way[:1]))
    policies = {"tool": Script(lambda *_: ""), "planner": Script(lambda *_: next(replies))}
    rollout = roll_out(
        team_of(PATHS, policies, max_turns=1), [problem], samples=3, sampling="chain"
    )
    assert [episode.is_solved for episode in rollout.episodes] == [True, False, False]
    assert [episode.problem for episode in rollout.episodes] == [0, 0, 0]


@pytest.mark.parametrize("sampling", ["tree", "chain"])
def test_a_group_shares_prompt_turn_role_and_problem(sampling):
    task = PlanPathTask(PlanPathConfig(size=3, walls=0.0))
    replies = itertools.cycle(("U", "D", "L", "R", "UL", "nonsense", ""))
    policies = {role: Script(lambda *_: next(replies)) for role in ORDER}
    problems = [task.problem(seed) for seed in (0, 0, 1, 2)]  # two of them the same
    rollout = roll_out(team_of(task, policies, max_turns=3), problems, samples=5, sampling=sampling)
    groups = members(rollout)
    assert len(groups) > len(problems)
    for rows in groups.values():
        assert len({row[:3] for row in rows}) == 1
    of_problem = [
        {
            number
            for step in rollout.steps
            for number, group in zip(step.problems, step.batch["group_id"].tolist(), strict=True)
            if group == wanted
        }
        for wanted in groups
    ]
    assert all(len(numbers) == 1 for numbers in of_problem)
    sizes = {len(rows) for rows in groups.values()}
    assert sizes == {5} if sampling == "tree" else max(sizes) == 5 > min(sizes)


def test_the_second_agents_advantages_are_not_all_zero():
    task = MathTask(MathConfig())
    problems = [task.problem(seed) for seed in range(4)]
    right = {problem.question.text: problem.demonstration("reasoner") for problem in problems}

    def answer(prompt: str, number: int) -> str:
        return right[prompt.partition(" ")[0]] if number == 1 else "0"

    policies = {"tool": Script(lambda *_: "1+1"), "reasoner": Script(answer)}
    team = team_of(task, policies, turn_order=("tool", "reasoner"), max_turns=1)
    rollout = roll_out(team, problems, samples=4, sampling="tree")
    for step in rollout.steps:
        advantage = group_advantage(step.batch["reward"], step.batch["group_id"]).advantage
        assert advantage.any() == (step.role == "reasoner")
        if step.role == "reasoner":
            assert (advantage.view(4, 4).argmax(-1) == 1).all()


@pytest.mark.parametrize("team_weight", [0.0, 0.5, 2.0])
def test_a_reward_is_the_weighted_team_reward_plus_the_local_one(team_weight):
    problem = PATHS.problem(0)
    replies = ("", problem.demonstration("planner"), "U")
    policies = {role: Script(lambda _, number: replies[number]) for role in ORDER}
    rollout = roll_out(
        team_of(PATHS, policies, team_weight=team_weight), [problem], samples=3, sampling="tree"
    )
    for step in rollout.steps:
        for row, (team, local) in enumerate(zip(step.team, step.local, strict=True)):
            expected = team_weight * team + local
            assert step.batch["reward"][row].item() == pytest.approx(expected)
    assert any(any(step.team) for step in rollout.steps)
    assert any(any(step.local) for step in rollout.steps)


def test_done_problems_are_skipped_in_later_rounds():
    problems = [PATHS.problem(seed) for seed in range(3)]
    way = problems[1].demonstration("planner")
    grid = problems[1].fields("tool")["grid"]
    planner = Script(lambda prompt, _: way if grid in prompt else "")
    policies = {"tool": Script(lambda *_: ""), "planner": planner}
    rollout = roll_out(team_of(PATHS, policies), problems, samples=2, sampling="tree")
    assert [episode.is_solved for episode in rollout.episodes] == [False, True, False]
    assert [set(step.problems) for step in rollout.steps] == [{0, 1, 2}] * 2 + [{0, 2}] * 2


def test_a_role_may_act_twice_in_a_round():
    problem = PATHS.problem(0)
    policies = {role: Script(lambda *_: "") for role in ORDER}
    team = team_of(PATHS, policies, turn_order=("tool", "planner", "tool", "planner"), max_turns=1)
    rollout = roll_out(team, [problem], samples=1, sampling="tree")
    assert [step.role for step in rollout.steps] == ["tool", "planner"] * 2


def test_rollouts_are_reproducible_with_the_same_seed():
    policies = adapter_policies(tiny_backbone(hidden_size=32, num_layers=1), ORDER, Lora(rank=2))
    problems = [PATHS.problem(seed) for seed in range(3)]
    first, again, other = (
        roll_out(
            team_of(PATHS, policies),
            problems,
            samples=4,
            sampling="tree",
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in (0, 0, 1)
    )
    assert [step.texts for step in first.steps] == [step.texts for step in again.steps]
    assert [step.texts for step in first.steps] != [step.texts for step in other.steps]
    assert first.episodes == again.episodes
