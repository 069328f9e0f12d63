"""JSON schemas of the plan and of the workflow files, for editors and for the drift test."""

from __future__ import annotations

import json
from pathlib import Path

from edc.config.rows import Plan
from edc.storage import write_text
from edc.config.files import KINDS, WORKFLOW
from edc.config.validation import Model


def schemas() -> dict[Path, str]:
    """Every schema file and its text."""
    folder = WORKFLOW / "schema"
    models: dict[str, type[Model]] = {"params": Plan, **KINDS}
    return {
        folder / f"{name}.json": json.dumps(model.model_json_schema(), indent=1) + "\n"
        for name, model in models.items()
    }


def write_schemas(check: bool = False) -> list[Path]:
    """Write the schemas that differ from the files, or only name them."""
    stale = [p for p, text in schemas().items() if not p.exists() or p.read_text(encoding="utf-8") != text]
    if not check:
        for path in stale:
            write_text(path, schemas()[path])
    return stale
