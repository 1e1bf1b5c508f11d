"""Configuration faults, reported all at once with file, key, value and remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from heteromark.config.nested import overlap, value_at

COMMAND_LINE = "command line"  # the file of a fault until `naming_options` fills in the option
_KEY_VALUE_OPTIONS = ("--set", "--param", "--config")


@dataclass(frozen=True)
class Fault:
    """One error in a configuration. `key` and `value` are empty if the whole file is faulty."""

    file: str
    message: str
    key: str = ""
    value: Any = None
    kind: str = "ValueError"

    def __str__(self) -> str:
        value = "" if self.value is None else f" = {_shorten(self.value)}"
        parts = [
            self.kind,
            "" if self.file in self.message else self.file,
            f"{self.key}{value}" if self.key else value.removeprefix(" = "),
            self.message,
        ]
        return ": ".join(part for part in parts if part)


def fault_at(config: object, key: str, message: str) -> Fault:
    """Return a fault for the value at a dotted key of a config, without a file."""
    return Fault("", message, key, value_at(config, key))


class ConfigError(ValueError):
    """All faults of a configuration in one message."""

    def __init__(self, faults: Iterable[Fault]):
        self.faults = list({str(fault): fault for fault in faults}.values())
        count = len(self.faults)
        head = "1 error" if count == 1 else f"{count} errors"
        lines = "\n".join(f"  {fault}" for fault in self.faults)
        super().__init__(f"{head} in the configuration; nothing was run:\n{lines}")

    @classmethod
    def single(cls, file: str, message: str, value: Any = None, key: str = "") -> ConfigError:
        """Return the error for a single fault; `file` may also be a command-line option."""
        return cls([Fault(file, message, key, value)])


class ConfigFileNotFoundError(ConfigError, FileNotFoundError):
    """Raised if every fault is a missing file."""


def config_error(faults: Sequence[Fault]) -> ConfigError:
    """Return a `ConfigFileNotFoundError` if every fault is a missing file, else a `ConfigError`."""
    if all(fault.kind == "FileNotFoundError" for fault in faults):
        return ConfigFileNotFoundError(faults)
    return ConfigError(faults)


@contextmanager
def naming_options(options: Mapping[str, str]) -> Iterator[None]:
    """Report faults of values set by a command-line option under that option, not under a file.

    Args:
        options: maps the dotted key that an option sets to the option, e.g.
            {"smoke.total_frames": "--total-timesteps"}.

    Raises:
        ConfigError: the faults raised in the `with` block.
    """
    try:
        yield
    except ConfigError as error:
        raise config_error([_with_option(fault, options) for fault in error.faults]) from error


def _with_option(fault: Fault, options: Mapping[str, str]) -> Fault:
    key = fault.key.removeprefix("agent.")
    for given, option in options.items():
        if key and overlap(given, key):
            return replace(fault, file=option, key=key if option in _KEY_VALUE_OPTIONS else "")
        if re.search(rf"(?<![\w.])(agent\.)?{re.escape(given)}\)?, which", fault.message):
            fault = replace(fault, message=f"{fault.message} [{given} is from {option}]")
    return fault


def faults_of(error: ValidationError, model: type[BaseModel], file: str) -> list[Fault]:
    """Translate the pydantic errors of `model`, read from `file`, into faults."""
    schema = model.model_json_schema()
    return [_fault(item, schema, file) for item in error.errors()]


def description_of(model: type[BaseModel], key: str) -> str:
    """Return the schema's description of a dotted key; empty if it has none."""
    return _descend(model.model_json_schema(), key.split("."))[0].get("description", "")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean …?`; empty if no known word is similar."""
    known = list(known)
    last_parts = {key.rpartition(".")[2]: key for key in reversed(known)}
    close = difflib.get_close_matches(word, known, n=1) or [
        last_parts[part]
        for part in difflib.get_close_matches(word.rpartition(".")[2], last_parts, n=1)
    ]
    return f" Did you mean {close[0]}?" if close else ""


def _fault(item: ErrorDetails, schema: dict[str, Any], file: str) -> Fault:
    # For unions, pydantic appends the branch ("int", "list[str]"), which is no key of the file.
    location = [str(part) for part in item["loc"]]
    if item["type"] == "cross_field":
        context = item["ctx"]
        key = ".".join([*location, context["key"]])
        return Fault(file, context["message"], key, context["value"])
    node, key = _descend(schema, location)
    if item["type"] == "extra_forbidden":
        message = _unknown_key(schema, node, location, key)
        return Fault(file, message, ".".join(location), item["input"])
    if item["type"] == "missing":
        return Fault(file, "is required but missing", key)
    message = item["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    message = message.partition(" or instance of ")[0]
    allowed = _allowed(schema, node)
    if allowed and "one of" not in allowed:
        message += f" (allowed: {allowed})"
    return Fault(file, message, key, item["input"])


def _unknown_key(
    schema: dict[str, Any], node: dict[str, Any], location: list[str], section: str
) -> str:
    siblings = sorted(_properties(schema, node))
    prefix = f"{section}." if len(location) > 1 else ""
    known = list(_dotted_keys(schema, schema))
    known += [f"{prefix}{name}" for name in siblings if f"{prefix}{name}" not in known]
    written = ".".join(location)
    if written in known and "." in location[-1]:
        parent, _, last = written.rpartition(".")
        return f"must be written nested: {parent}: {{{last}: …}}"
    hint = nearest(written, known)
    if siblings and not hint:
        hint = f" Allowed here: {', '.join(siblings)}"
    return f"unknown key.{hint}"


def _resolve(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return node


def _branches(schema: dict[str, Any], node: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the alternatives of a union; for any other node, the node itself."""
    node = _resolve(schema, node)
    return [_resolve(schema, branch) for branch in node.get("anyOf", [node])]


def _properties(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for branch in _branches(schema, node):
        found |= branch.get("properties", {})
    return found


def _free_key(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any] | None:
    """Return the schema of values under user-defined keys, such as group names, if allowed."""
    values = (branch.get("additionalProperties") for branch in _branches(schema, node))
    return next((value for value in values if isinstance(value, dict)), None)


def _descend(schema: dict[str, Any], location: list[str]) -> tuple[dict[str, Any], str]:
    """Follow a location as deep as the schema allows; return that node and its dotted key."""
    node, key = schema, []
    for part in location:
        if part.isdigit():
            key.append(part)
            continue
        child = _properties(schema, node).get(part) or _free_key(schema, node)
        if child is None:
            break
        node = child
        key.append(part)
    return node, ".".join(key) or ".".join(location)


def _dotted_keys(schema: dict[str, Any], node: dict[str, Any], prefix: str = "") -> Iterable[str]:
    for name, child in _properties(schema, node).items():
        yield f"{prefix}{name}"
        yield from _dotted_keys(schema, child, f"{prefix}{name}.")


_BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}


def _allowed(schema: dict[str, Any], node: dict[str, Any]) -> str:
    """Return the allowed values of a field's JSON schema, e.g. `number > 0 and <= 1`."""
    texts = []
    for branch in _branches(schema, node):
        if "enum" in branch:
            texts.append("one of " + ", ".join(map(str, branch["enum"])))
        elif branch.get("type") == "array":
            texts.append(f"list of {_allowed(schema, branch.get('items', {})) or 'values'}")
        elif branch.get("type") in {"number", "integer", "string", "boolean", "null"}:
            bounds = [f"{sign} {branch[name]}" for name, sign in _BOUNDS.items() if name in branch]
            pattern = [f"matching {branch['pattern']}"] if "pattern" in branch else []
            texts.append(" ".join([branch["type"], *[" and ".join([*bounds, *pattern])]]).strip())
    return " or ".join(texts)


def _shorten(value: Any, width: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"
