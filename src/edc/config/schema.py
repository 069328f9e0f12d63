"""JSON schemas of the plan and of the files a person writes, for editors and for messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edc.config.compact import PlanFile
from edc.config.files import KINDS, WORKFLOW, in_checkout, written
from edc.storage import read_text, write_text


def schema(kind: str) -> dict[str, Any]:
    """The schema of one kind of file: ``params``, or a folder of ``workflow/``."""
    if kind == "params":
        return PlanFile.model_json_schema()
    required = [name for name, field in KINDS[kind].model_fields.items() if field.is_required()]
    return written(kind).model_json_schema() | {"anyOf": [{"required": ["inherits"]}, {"required": required}]}


def write_schemas(check: bool = False) -> list[Path]:
    """Write the schemas that differ from the files, or only name them."""
    in_checkout()
    texts = {
        WORKFLOW / "schema" / f"{kind}.json": json.dumps(schema(kind), indent=1) + "\n" for kind in ("params", *KINDS)
    }
    stale = [path for path, text in texts.items() if read_text(path) != text]
    for path in () if check else stale:
        write_text(path, texts[path])
    return stale
