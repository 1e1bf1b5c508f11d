"""Test the search task: questions, passages and answers, with agents that read the prompt."""

from __future__ import annotations

import re
import statistics
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from problem_properties import (
    ANY_TEXT,
    HUGE_TEXTS,
    check_any_text,
    check_clones,
    check_drawing,
    check_prompts,
    check_refusals,
    play,
)
from pydantic import ValidationError

from heteromark.config.models.tasks import SearchConfig
from heteromark.llm.tasks.search import SearchProblem, SearchTask
from heteromark.llm.tasks.search_knowledge import Knowledge, Question

FACTS = {
    "Bor": {"capital": "Tuz", "ruler": "Mira"},
    "Kel": {"capital": "Oko", "ruler": "Sten"},
    "Tuz": {"founder": "Sten", "port": "Oko"},
    "Oko": {"founder": "Mira", "port": "Tuz"},
    "Mira": {"birthplace": "Oko", "teacher": "Sten"},
    "Sten": {"birthplace": "Tuz", "teacher": "Mira"},
}
PATH = ("Bor", "Tuz")
QUESTION = "Who or what is the founder of the capital of Bor?"
SETTINGS = [
    {},
    {"entities": 4, "hops": 1, "passages": 1},
    {"entities": 5, "hops": 4, "passages": 1},
    {"entities": 60, "hops": 3},
    {"entities": 200, "hops": 4, "passages": 5},
]


def task(**settings):
    return SearchTask(SearchConfig(**settings))


def made(n_passages=1):
    return SearchProblem(Knowledge(FACTS), Question(QUESTION, PATH, "Sten"), n_passages)


def facts_in(text):
    """Return (relation, entity) -> entity for all sentences of a text."""
    return {(a, b): c for a, b, c in re.findall(r"The (\w+) of (\w+) is (\w+)\.", text)}


def follow(fields):
    """Follow the shown passages; return the last entity and whether it is the answer."""
    facts = facts_in(fields["passages"])
    *relations, entity = re.findall(r"(\w+) of(?= )|(\w+)\?", fields["question"])
    entity, relations = entity[1], [relation for relation, _ in relations]
    while relations and (relations[-1], entity) in facts:
        entity = facts[relations.pop(), entity]
    return entity, not relations


def answer_by_the_key(problem):
    """Return the answer according to all passages."""
    question, _, passages = problem.key.partition("\n")
    entity, is_answer = follow({"question": question, "passages": passages})
    assert is_answer
    return entity


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("roles", [("searcher", "reasoner"), ("reasoner",)])
def test_demonstrations_solve_in_one_round(settings, roles):
    for seed in range(100 if settings.get("entities", 20) < 100 else 10):
        problem = task(**settings).problem(seed)
        assert not problem.is_done
        assert play(problem, roles, 1) == 1
        assert problem.is_solved


@pytest.mark.parametrize("settings", SETTINGS)
def test_only_the_answer_that_the_passages_give_is_right(settings):
    for seed in range(50 if settings.get("entities", 20) < 100 else 5):
        problem = task(**settings).problem(seed)
        right = answer_by_the_key(problem)
        names = {entity for _, entity in facts_in(problem.key)}
        assert len(names) == SearchConfig(**settings).entities
        for name in sorted(names):
            answered = problem.clone()
            assert answered.act("reasoner", name) == (name == right, 0)
            assert answered.is_solved == answered.is_done == (name == right)


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_searchers_demonstrations_find_one_needed_passage_each(settings):
    hops = SearchConfig(**settings).hops
    for seed in range(50 if settings.get("entities", 20) < 100 else 5):
        problem, rewards = task(**settings).problem(seed), []
        for _ in range(hops + 1):
            rewards.append(problem.act("searcher", problem.demonstration("searcher")).team)
        assert sum(rewards) == pytest.approx(1)
        assert rewards[0] >= 1 / hops - 1e-9
        assert rewards[-1] == 0
        assert follow(problem.fields("reasoner")) == (answer_by_the_key(problem), True)


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_team_that_reads_finds_the_answer_in_as_many_rounds_as_hops(settings):
    for seed in range(20 if settings.get("entities", 20) < 100 else 5):
        problem = task(**settings).problem(seed)
        for _ in range(SearchConfig(**settings).hops):
            entity, _ = follow(problem.fields("searcher"))
            problem.act("searcher", entity)
            entity, is_answer = follow(problem.fields("reasoner"))
            if is_answer:
                assert problem.act("reasoner", entity) == (1, 0)
                break
            assert problem.act("reasoner", entity) == (0, 0)
        assert problem.is_solved


def test_a_reasoner_alone_can_search():
    for seed in range(50):
        problem = task().problem(seed)
        earned = 0.0
        for _ in range(3):
            entity, is_answer = follow(problem.fields("reasoner"))
            reward = problem.act("reasoner", entity if is_answer else f"Hm.\nSearch: {entity}")
            earned += reward.team
            if is_answer:
                break
        assert problem.is_solved
        assert earned == pytest.approx(2)


@pytest.mark.parametrize("answer", ["Sten", "sten", " STEN \n\n", "By Bor's passage:\nSten"])
def test_right_answers(answer):
    problem = made()
    assert problem.act("reasoner", answer) == (1, 0)
    assert problem.is_solved


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " ".join(FACTS),
        ", ".join(FACTS),
        "\n".join(["Sten", *FACTS][:-1]),  # all names, the right one not last
        "Sten Sten",
        "Sten or Mira",
        "Sten.",
        "Ste",
        "en",
        "Stenn",
        "The founder of Tuz is Sten.",
        "The founder of Tuz is Sten. The port of Tuz is Oko.",
        QUESTION,
        "Sten\nor so",
        "S\u0442en",
        "search:",
    ],
)
def test_exploits_earn_no_more_than_silence(answer):
    problem = made()
    assert sum(problem.act("reasoner", answer)) <= 0
    assert not problem.is_done


def test_a_wrong_answer_leaves_the_problem_open():
    problem = made()
    for name in ("Mira", "Bor", "Mira"):
        assert problem.act("reasoner", name) == (0, 0)
    assert problem.fields("searcher")["wrong"] == "Mira, Bor"
    assert problem.act("reasoner", "Sten").team == 1
    assert problem.is_done


def test_each_passage_pays_once():
    problem = made()
    assert problem.act("searcher", "Bor") == (0.5, 0)
    assert problem.act("searcher", "Bor") == (0, 0)
    assert problem.act("searcher", "Kel") == (0, 0)
    assert problem.act("searcher", "tell me of tuz!") == (0.5, 0)
    assert problem.act("searcher", "Tuz Bor") == (0, 0)
    shown = problem.fields("reasoner")["passages"].split("\n")
    assert [line.split()[3] for line in shown] == ["Bor", "Kel", "Tuz"]
    assert not problem.is_done


def test_only_found_passages_are_shown():
    problem = made(n_passages=2)
    problem.act("searcher", " ".join(FACTS))
    assert len(problem.fields("reasoner")["passages"].split("\n")) == 2
    for query in ("the of is", "nothing known", "?!", "\u0411\u043e\u0440"):
        before = problem.fields("reasoner")
        assert problem.act("searcher", query) == (0, 0)
        assert problem.fields("reasoner") == before


def test_ties_go_to_the_first_passages():
    knowledge = Knowledge(FACTS)
    assert knowledge.search("capital", 2) == [0, 1]
    assert knowledge.search("founder capital birthplace", 4) == [0, 1, 2, 3]
    assert knowledge.search("tuz tuz tuz capital", 1) == knowledge.search("Capital, TUZ", 1)
    # the passage about an entity ranks before passages that only mention it
    for number, name in enumerate(FACTS):
        assert knowledge.search(name, 6)[0] == number


def test_the_question_as_the_query_does_not_find_everything():
    found = []
    for seed in range(200):
        problem = task().problem(seed)
        found.append(problem.act("searcher", problem.fields("searcher")["question"]).team)
    # the first passage is found by its name, others by luck
    assert min(found) == 0.5
    assert statistics.mean(reward == 1 for reward in found) < 0.3


def test_the_answers_position_is_not_predictable():
    """Check that the answer has no special position in the knowledge base."""
    n_first = sum(
        answer_by_the_key(problem) == next(entity for _, entity in facts_in(problem.key))
        for problem in map(task().problem, range(300))
    )
    assert n_first < 0.12 * 300


@given(ANY_TEXT, st.sampled_from(["searcher", "reasoner"]))
def test_any_text_is_a_response(text, role):
    check_any_text(made(), role, text)


@pytest.mark.parametrize("text", [*HUGE_TEXTS, "Bor " * 100_000, "search:" + "x" * 500_000])
@pytest.mark.parametrize("role", ["searcher", "reasoner"])
def test_huge_text_is_read_quickly(text, role):
    start = time.process_time()
    check_any_text(made(), role, text)
    assert time.process_time() - start < 0.5


def test_clones_are_independent():
    check_clones(made(), [("searcher", "Bor"), ("reasoner", "Mira"), ("searcher", "Tuz")])


def test_refusals():
    done = made()
    done.act("reasoner", "Sten")
    check_refusals(made(), done)


@pytest.mark.parametrize("settings", SETTINGS)
def test_drawing(settings):
    check_drawing(task(**settings), n_seeds=10 if settings.get("entities") == 200 else 50)


@pytest.mark.parametrize("settings", SETTINGS[:4])
def test_prompts(settings):
    problem = task(**settings).problem(0)
    check_prompts(problem, SearchTask.roles, longest=320)
    problem.act("searcher", problem.demonstration("searcher"))
    problem.act("reasoner", problem.demonstration("searcher"))
    check_prompts(problem, SearchTask.roles, longest=500)


@pytest.mark.parametrize("settings", [{"entities": 4, "hops": 4}, {"passages": 20}])
def test_settings_without_anything_to_search_are_rejected(settings):
    with pytest.raises(ValidationError, match="must be less than entities"):
        SearchConfig(**settings)
