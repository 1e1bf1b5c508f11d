"""Generate the JSON schemas in config/schema/, with which editors complete and check the YAML.

`make generated` writes them from the models. A test fails if they are out of date.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from heteromark.config.models.agent import AgentFile
from heteromark.config.models.params import ProjectParams

FOLDER = Path("config/schema")
MODELS: dict[str, type[BaseModel]] = {
    "agent.schema.json": AgentFile,
    "params.schema.json": ProjectParams,
}


def schema_text(model: type[BaseModel]) -> str:
    """Return the content of a model's JSON schema file."""
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **model.model_json_schema(),
    }
    # A variant inherits missing keys, so no key is required in a file.
    schema.pop("required", None)
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write all schemas."""
    for name, model in MODELS.items():
        (FOLDER / name).write_text(schema_text(model), encoding="utf-8")
        print(FOLDER / name)


if __name__ == "__main__":
    main()
