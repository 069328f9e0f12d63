"""Whether a run has been done: its results are those the plan, the code and the inputs here would give."""

from __future__ import annotations

import json
from pathlib import Path

from edc.pipeline import dag
from edc.config.rows import Plan
from edc.storage import RESULTS, fingerprint


def current(plan: Plan, task: dag.Task) -> bool:
    """Whether a run's files are all here and its records name the plan's values, the code and the inputs here."""
    outputs = (output.path for output in task.outputs)
    if not all(Path(name).exists() for name in (*outputs, *task.inputs, *task.code)):
        return False
    folder = Path(dag.folder(task.stage, task.key))
    try:
        manifest, made = (json.loads((folder / name).read_text("utf-8")) for name in ("manifest.json", "run.json"))
        return bool(
            manifest["params"] == plan.resolved(task.stage, task.key)
            and made["code"] == dag.code_digest(task)
            and all(made_files(RESULTS / run) == files for run, files in manifest["inputs"].items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def made_files(folder: Path) -> str:
    """Fingerprint of what a run wrote, from the manifest in its folder."""
    return fingerprint(json.loads((folder / "manifest.json").read_text("utf-8"))["files"])
