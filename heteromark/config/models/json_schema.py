"""The JSON schemas in config/schema/, by which editors complete and check the YAML.

`make generated` writes them from the models; a test fails when they drift.
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
    """The JSON schema of a model, as the file holds it."""
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **model.model_json_schema(),
    }
    # A variant inherits whatever it leaves out, so no key is required in the file itself.
    schema.pop("required", None)
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    for name, model in MODELS.items():
        (FOLDER / name).write_text(schema_text(model), encoding="utf-8")
        print(FOLDER / name)


if __name__ == "__main__":
    main()
