"""Read YAML and JSON files safely, and write YAML.

YAML 1.1 reads `1e-3` and `1e-05` as strings; DVC writes the latter. Here both are numbers, as in
YAML 1.2. A duplicate key in a mapping is an error, not a silent overwrite. Tags, dates, very deep
nesting, very long numbers and exponentially expanding aliases are errors too: no config needs
them, and some could hang the parser.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import yaml

from heteromark.config.errors import ConfigError, Fault, config_error

SUFFIXES = (".yaml", ".yml", ".json")
MAX_DEPTH = 50  # nested lists and mappings
MAX_VALUES = 100_000  # in a file, with aliases expanded
MAX_DIGITS = 100  # of an integer

_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
_NOT_TEXT = yaml.reader.Reader.NON_PRINTABLE
_JSON_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|[][{}]')


class UnreadableError(ValueError):
    """Raised if a text is not valid YAML or JSON; the message gives the line and the reason."""

    def __init__(self, problem: str, line: int, column: int | None = None) -> None:
        position = f"line {line}" if column is None else f"line {line}, column {column}"
        super().__init__(f"{position}: {problem}")


if TYPE_CHECKING:
    _SafeLoader = yaml.SafeLoader
else:
    _SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_Mark = Any  # the type depends on PyYAML's parser, in C or Python


class _Loader(_SafeLoader):
    """Safe YAML loader with YAML 1.2 numbers, without dates and duplicate keys."""


def _refuse(problem: str, mark: _Mark) -> NoReturn:
    raise yaml.constructor.ConstructorError(None, None, problem, mark)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, (list, dict)):
            _refuse("a key must be a scalar", key_node.start_mark)
        if key in seen:
            _refuse(f"duplicate key {key!r}", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    if len(node.value) > MAX_DIGITS:
        _refuse(_too_long(node.value), node.start_mark)
    try:
        return loader.construct_yaml_int(node)
    except ValueError:  # `0x_`
        _refuse(f"{node.value} is not a number; quote it if it is a string", node.start_mark)


def _date(_: _Loader, node: yaml.ScalarNode) -> NoReturn:
    _refuse(f"YAML reads {node.value} as a date; quote it if it is a string", node.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _date)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def load_yaml(text: str) -> Any:
    """Parse a YAML text.

    Raises:
        UnreadableError: the text is not valid YAML or exceeds a limit.
    """
    if found := _NOT_TEXT.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise UnreadableError(f"contains the unprintable character {found[0]!r}", line)
    try:
        _check_structure(text)
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        assert mark is not None, "PyYAML's parser and `_refuse` give every error a mark"
        problem = ": ".join(filter(None, [error.context, error.problem]))
        raise UnreadableError(problem, mark.line + 1, mark.column + 1) from error


def _check_structure(text: str) -> None:
    """Refuse tags, deep nesting and too many values before any object is built."""
    total = 0
    anchors: dict[str, tuple[int, int]] = {}  # anchor → number of values, depth
    parents: list[list[Any]] = []  # per open collection: anchor, number of values before it, depth
    for event in yaml.parse(text, Loader=_Loader):
        depth = 0
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in anchors:
                _refuse(f"alias *{event.anchor} is undefined or recursive", event.start_mark)
            values, depth = anchors[event.anchor]
            total += values
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            if event.tag:
                tag = event.tag.replace("tag:yaml.org,2002:", "!!")
                _refuse(f"the tag {tag} is not supported; remove it", event.start_mark)
            if isinstance(event, yaml.ScalarEvent) and _NOT_TEXT.search(event.value):
                _refuse("contains an unprintable character", event.start_mark)
            total += 1
            if isinstance(event, yaml.CollectionStartEvent):
                parents.append([event.anchor, total, 0])
            elif event.anchor:
                anchors[event.anchor] = 1, 0
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before, inner = parents.pop()
            depth = inner + 1
            if anchor:
                anchors[anchor] = total - before + 1, depth
        if len(parents) + depth > MAX_DEPTH:
            _refuse(f"is nested more than {MAX_DEPTH} levels deep", event.start_mark)
        if total > MAX_VALUES:
            _refuse(f"contains more than {MAX_VALUES:,} values", event.start_mark)
        if parents:
            parents[-1][2] = max(parents[-1][2], depth)


def load_json(text: str) -> Any:
    """Parse a JSON text with the JSON parser, whose messages are clearer than those for YAML.

    Raises:
        UnreadableError: the text is not valid JSON or exceeds a limit.
    """

    def integer(digits: str) -> int:
        if len(digits) > MAX_DIGITS:
            raise json.JSONDecodeError(_too_long(digits), text, text.find(digits))
        return int(digits)

    def constant(name: str) -> NoReturn:
        raise json.JSONDecodeError(f"{name} is not JSON", text, text.find(name))

    try:
        try:
            data = json.loads(text, parse_int=integer, parse_constant=constant)
        except RecursionError:
            data = None  # `_check_json` raises with the position
        _check_json(text)
    except json.JSONDecodeError as error:
        raise UnreadableError(error.msg, error.lineno, error.colno) from error
    return data


def _check_json(text: str) -> None:
    """Refuse deep nesting, duplicate keys and unpaired surrogates in a text that parses."""
    keys: list[set[str]] = []  # per open object or list

    def refuse(problem: str) -> NoReturn:
        raise json.JSONDecodeError(problem, text, token.start())

    for token in _JSON_TOKEN.finditer(text):
        if token[1]:
            string = json.loads(token[1])
            if _NOT_TEXT.search(string):
                refuse("contains an unprintable character")
            if token[2] and keys:
                if string in keys[-1]:
                    refuse(f"duplicate key {string!r}")
                keys[-1].add(string)
        elif token[0] in "[{":
            keys.append(set())
            if len(keys) > MAX_DEPTH:
                refuse(f"is nested more than {MAX_DEPTH} levels deep")
        elif keys:
            keys.pop()


def _too_long(digits: str) -> str:
    return f"a number with {len(digits):,} digits is too long (at most {MAX_DIGITS})"


def parse_value(text: str, file: str = "command line") -> Any:
    """Parse the value of a `key=value` argument as YAML, so `1e-3` and `[64, 64]` work.

    Args:
        file: the option that passed the value, for the error message.

    Raises:
        ConfigError: the value does not parse.
    """
    try:
        return load_yaml(text)
    except UnreadableError as error:
        raise ConfigError([Fault(file, f"does not parse: {error}", "", text)]) from error


def retyped(data: Any) -> Any:
    """Parse strings in `data`: Snakemake's `--config` leaves nested numbers and nulls as text."""
    if isinstance(data, dict):
        return {key: retyped(value) for key, value in data.items()}
    if isinstance(data, list):
        return [retyped(value) for value in data]
    if isinstance(data, str):
        try:
            value = parse_value(data)
        except ConfigError:
            return data
        return data if isinstance(value, dict | list) else value
    return data


def read_mapping(path: Path, what: str = "Config") -> dict[str, Any]:
    """Read a YAML or JSON file whose root is a mapping.

    Raises:
        ConfigFileNotFoundError: the file does not exist.
        ConfigError: the file does not parse, or its root is not a mapping.
    """
    path = Path(path)
    data = _parsed(path, what)
    if not isinstance(data, dict):
        found = {list: "a list", type(None): "an empty file"}.get(type(data), type(data).__name__)
        message = (
            f"Config file must contain a dictionary/object: {path} contains {found}; "
            "write `key: value` lines at the top level"
        )
        raise config_error([Fault(str(path), message)])
    return data


def require_readable(path: Path) -> None:
    """Raise ConfigError if a YAML file does not parse; an empty file is fine."""
    _parsed(path, "Config")


def _parsed(path: Path, what: str) -> Any:
    try:
        text = _read_text(path, what)
        return load_json(text) if path.suffix == ".json" else load_yaml(text)
    except UnreadableError as error:
        message = f"{what} file does not parse: {path}, {error}"
        raise ConfigError.single(str(path), message) from error


def _read_text(path: Path, what: str) -> str:
    try:
        if path.is_file():
            return path.read_bytes().decode("utf-8-sig")
        hint = f"check the path; it must end in {', '.join(SUFFIXES)}"
        if path.is_dir():
            hint = "this is a folder; give a file in it"
        elif path.exists():
            hint = "this is not a regular file; save its content to one"
    except OSError as error:
        message = f"{what} file cannot be read: {error.strerror}"
        raise ConfigError.single(str(path), message) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        problem = f"byte 0x{error.object[error.start]:02x} is not UTF-8"
        raise UnreadableError(problem, line) from error
    message = f"{what} file not found: {path} ({hint})"
    raise config_error([Fault(str(path), message, kind="FileNotFoundError")])


def to_yaml(data: Any) -> str:
    """Return `data` as YAML text, keys in their given order."""
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
