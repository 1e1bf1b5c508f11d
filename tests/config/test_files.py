"""Malformed and malicious files: each is one fault with file and line, found quickly."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from heteromark.config.compose.composition import load_params, parse_overrides
from heteromark.config.errors import ConfigError
from heteromark.config.files import load_yaml, read_mapping

DEEP = "[" * 3000 + "]" * 3000
LAUGHS = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
CHAIN = "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 3000))

YAML = {
    "an invalid date": ("a: 1\nb: 2024-13-45", "line 2, column 4: YAML reads 2024-13-45"),
    "a date": ("b: 2024-01-05", "line 1, column 4: YAML reads 2024-01-05 as a date; quote it"),
    "a date as a key": ("2024-01-05: 1", "line 1, column 1"),
    "nesting": (f"a: 1\nb: {DEEP}", "line 2, column 53: is nested more than 50 levels deep"),
    "nesting that overflows the stack": ("a: " + "[" * 300_000, "line 1, column 53"),
    "nesting by aliases": (CHAIN, "line 50, column 12: is nested more than 50 levels deep"),
    "digits": (
        f"a: 1\nb: {'9' * 5000}",
        "line 2, column 4: a number with 5,000 digits is too long",
    ),
    "hexadecimal digits": (f"b: 0x{'f' * 5000}", "line 1, column 4: a number with 5,002 digits"),
    "an invalid number": ("b: 0x_", "line 1, column 4: 0x_ is not a number"),
    "billion laughs": (LAUGHS, "line 5, column 45: contains more than 100,000 values"),
    "a recursive alias": ("a: &x [*x]", "line 1, column 8: alias *x is undefined or recursive"),
    "an undefined alias": ("a: *x", "line 1, column 4: alias *x is undefined or recursive"),
    "a tag that runs code": (
        "a: !!python/object/apply:os.system [true]",
        "line 1, column 4: the tag !!python/object/apply:os.system is not supported",
    ),
    "an invalid value for a tag": ("a: !!bool maybe", "line 1, column 4: the tag !!bool"),
    "NUL": ("a: 1\nb: x\0y", "line 2: contains the unprintable character '\\x00'"),
    "NUL in quotes": ('a: 1\nb: "\\0"', "line 2, column 4: contains an unprintable character"),
    "half a character": ('a: 1\nb: "\\ud800"', "line 2, column 7"),
    "a tab": ("a: 1\nb:\n\tc: 1", "line 3, column 1"),
    "two documents": ("a: 1\n---\nb: 1", "line 2, column 1"),
    "a list as a key": ("? [1]\n: 2", "line 1, column 3: a key must be a scalar"),
}
JSON = {
    "a duplicate key": (
        '{"a": 1,\n "b": {"c": 1,\n  "c": 2}}',
        "line 3, column 3: duplicate key 'c'",
    ),
    "NaN": ('{"a": 1,\n "b": NaN}', "line 2, column 7: NaN is not JSON"),
    "nesting": (f'{{"a":\n{DEEP}}}', "line 2, column 50: is nested more than 50 levels deep"),
    "digits": (f'{{"a":\n{"9" * 5000}}}', "line 2, column 1: a number with 5,000 digits"),
    "half a character": (
        '{"a":\n"\\ud800"}',
        "line 2, column 1: contains an unprintable character",
    ),
    "NUL": ('{"a":\n"\\u0000"}', "line 2, column 1: contains an unprintable character"),
    "an empty file": ("", "line 1, column 1"),
}


def fault_of(call) -> str:
    with pytest.raises(ConfigError) as caught:
        call()
    assert len(caught.value.faults) == 1
    return str(caught.value)


@pytest.mark.parametrize(("text", "expected"), YAML.values(), ids=YAML)
def test_unreadable_yaml_is_one_fault_with_its_line(tmp_path: Path, text, expected):
    path = tmp_path / "params.yaml"
    path.write_bytes(text.encode())
    assert f"params.yaml, {expected}" in fault_of(lambda: load_params(tmp_path))
    value = text.replace("\n", " ") if text.startswith("a: 1\n") else text
    message = fault_of(lambda: parse_overrides([f"key={{{value}}}"], "--param"))
    assert "ValueError: --param: " in message


@pytest.mark.parametrize(("text", "expected"), JSON.values(), ids=JSON)
def test_unreadable_json_is_one_fault_with_its_line(tmp_path: Path, text, expected):
    path = tmp_path / "agent.json"
    path.write_text(text)
    assert f"agent.json, {expected}" in fault_of(lambda: read_mapping(path))


def test_files_that_are_not_text(tmp_path: Path):
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe9\n")
    message = fault_of(lambda: read_mapping(tmp_path / "latin.yaml"))
    assert "latin.yaml, line 2: byte 0xe9 is not UTF-8" in message
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "not a regular file" in fault_of(lambda: read_mapping(tmp_path / "pipe.yaml"))
    assert "this is a folder" in fault_of(lambda: read_mapping(tmp_path))
    assert "cannot be read" in fault_of(lambda: read_mapping(tmp_path / ("x" * 5000)))


def test_valid_files_are_read(tmp_path: Path):
    assert load_yaml("x: &x {a: 1}\ny: {<<: *x, b: 1e-3}\nz: [*x, *x]") == {
        "x": {"a": 1},
        "y": {"a": 1, "b": 1e-3},
        "z": [{"a": 1}, {"a": 1}],
    }
    path = tmp_path / "agent.json"
    path.write_bytes(b'\xef\xbb\xbf{"name": "\\ud83d\\ude00",\n\t"list": [{"a": 1}, {"a": 2}]}')
    assert read_mapping(path) == {"name": "😀", "list": [{"a": 1}, {"a": 2}]}


def test_a_key_of_a_thousand_parts(tmp_path: Path):
    message = fault_of(lambda: parse_overrides([f"{'.'.join('a' * 1000)}=1"]))
    assert "is nested more than 50 levels deep" in message
