"""Test reading questions from a file, and the errors for invalid files."""

from __future__ import annotations

import json
import random
from fractions import Fraction
from pathlib import Path

import pytest

from heteromark.config.models.tasks import MathConfig
from heteromark.llm.tasks.base import split_of
from heteromark.llm.tasks.math import MathTask
from heteromark.llm.tasks.math_questions import read_questions


def task_of(path: Path) -> MathTask:
    return MathTask(MathConfig(source="file", file=str(path)))


def write_lines(path: Path, *lines) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def test_questions_of_a_file(tmp_path: Path):
    lines = [
        {"question": "One?", "answer": 1},
        {"question": "Half?", "answer": 0.5},
        {"question": "Text?", "answer": "1,234"},
        {"question": "GSM8K?", "answer": "6*7=<<6*7=42>>42\n#### 42", "more": None},
        "",
        {"question": " Minus? ", "answer": "#### -7.0"},
        {"question": "One?", "answer": 1.0},
    ]
    path = write_lines(tmp_path / "questions.jsonl", *lines)
    found = {question.text: question.answer for question in read_questions(path)}
    assert found == {"One?": 1, "Half?": Fraction(1, 2), "Text?": 1234, "GSM8K?": 42, "Minus?": -7}
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert {question.text: question.answer for question in read_questions(path)} == found


def test_problems_of_a_file(tmp_path: Path):
    lines = [{"question": f"What is {n} \u00d7 2?", "answer": 2 * n} for n in range(100)]
    path = write_lines(tmp_path / "questions.jsonl", *lines)
    task = task_of(path)
    train = {task.problem(seed).key for seed in range(1_000)}
    validation = {task.problem(seed, "validation").key for seed in range(200)}
    assert not train & validation
    assert train | validation == {line["question"] for line in lines}
    for seed in range(100):
        problem = task.problem(seed)
        problem.act("tool", problem.demonstration("tool"))
        problem.act("reasoner", problem.demonstration("reasoner"))
        assert problem.is_solved
        assert problem.question.answer == 2 * int(problem.key.split()[2])
    one = task_of(write_lines(tmp_path / "one.jsonl", lines[0]))
    missing = "train" if split_of(one.draw(random.Random(0))) == "validation" else "validation"
    with pytest.raises(ValueError, match=f"math drew 10,000 .* none belongs to the {missing}"):
        one.problem(0, missing)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "is not valid JSON in UTF-8: Expecting"),
        ("[" * 100_000, "is not valid JSON in UTF-8"),
        ('{"question": "q", "answer": NaN}', "NaN is not a number"),
        ('{"question": "q", "answer": ' + "9" * 5000 + "}", "is not valid JSON"),
        ("[1, 2]", r"must be a JSON object with question and answer, not \[1, 2\]"),
        ('{"answer": 1}', "question must be a non-empty text, not None"),
        ('{"question": " ", "answer": 1}', "question must be a non-empty text, not ' '"),
        ('{"question": 5, "answer": 1}', "question must be a non-empty text, not 5"),
        ('{"question": "q"}', "answer must be a number .* not None"),
        ('{"question": "q", "answer": true}', "answer must be a number .* not True"),
        ('{"question": "q", "answer": "many"}', "answer must be a number .* not 'many'"),
        ('{"question": "q", "answer": "#### 4 6"}', "answer must be a number"),
        ('{"question": "q", "answer": "42 ####"}', "answer must be a number"),
        ('{"question": "q", "answer": 1e99}', "answer must be a number"),
        ('{"question": "q", "answer": "' + "x" * 999 + '"}', "not 'x{50,58}…$"),
        ('{"question": "Good?", "answer": 2}', "a different answer: 1 there, 2 here; keep one"),
    ],
)
def test_errors_in_a_file_name_the_line(tmp_path: Path, line, message):
    good = {"question": "Good?", "answer": 1}
    path = write_lines(tmp_path / "bad.jsonl", good, "", line, good)
    with pytest.raises(ValueError, match=rf"bad\.jsonl, line 3:? .*{message}"):
        task_of(path)


def test_missing_and_empty_files_are_reported(tmp_path: Path):
    path = tmp_path / "bad.jsonl"
    with pytest.raises(ValueError, match=r"file: .*bad\.jsonl does not exist; check the path"):
        task_of(path)
    path.write_text(" \n\n")
    with pytest.raises(ValueError, match=r"bad\.jsonl contains no questions"):
        task_of(path)
    path.write_bytes(b'{"question": "a", "answer": 1}\n{"question": "\xff", "answer": 1}\n')
    with pytest.raises(ValueError, match=r"bad\.jsonl, line 2 is not valid JSON in UTF-8"):
        task_of(path)
