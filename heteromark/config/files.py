"""Reading YAML and JSON files safely, and writing YAML.

YAML 1.1 reads `1e-3` and `1e-05` as strings; DVC writes the latter. Here both are numbers, as in
YAML 1.2. A key that stands twice in one mapping is a fault rather than a silent overwrite.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from heteromark.config.errors import ConfigError, Fault, config_error

SUFFIXES = (".yaml", ".yml", ".json")

_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Safe YAML with the numbers of YAML 1.2 and no repeated keys."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict:
    seen = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, (list, dict)):
            raise yaml.constructor.ConstructorError(
                None, None, "a key must be a plain value", key_node.start_mark
            )
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} stands here twice", key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def parse_value(text: str) -> Any:
    """The value of a command line's `key=value`: YAML, so `1e-3` and `[64, 64]` work.

    Raises:
        ConfigError: it does not parse.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        detail = " ".join(str(error).split())
        raise ConfigError([Fault("command line", f"does not parse: {detail}", "", text)]) from error


def retyped(data: Any) -> Any:
    """Undo Snakemake's `--config`, which leaves numbers and null inside dictionaries as strings."""
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
        ConfigFileNotFoundError: there is no such file.
        ConfigError: it does not parse, or its root is something else.
    """
    path = Path(path)
    if not path.is_file():
        hint = f"check the path, and that it ends in {', '.join(SUFFIXES)}"
        if path.is_dir():
            hint = "this is a folder; name a file in it"
        message = f"{what} file not found: {path} ({hint})"
        raise config_error([Fault(str(path), message, kind="FileNotFoundError")])
    try:
        text = path.read_text(encoding="utf-8")
        # YAML 1.2 is a superset of JSON, but JSON's own parser gives better messages for it.
        data = json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, json.JSONDecodeError, UnicodeDecodeError) as error:
        detail = " ".join(str(error).split())
        message = f"{what} file does not parse: {path}: {detail}"
        raise config_error([Fault(str(path), message)]) from error
    if not isinstance(data, dict):
        found = {list: "a list", type(None): "an empty file"}.get(type(data), type(data).__name__)
        message = (
            f"Config file must contain a dictionary/object: {path} contains {found}; "
            "write `key: value` lines at the root"
        )
        raise config_error([Fault(str(path), message)])
    return data


def to_yaml(data: Any) -> str:
    """YAML text with keys in the given order."""
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
