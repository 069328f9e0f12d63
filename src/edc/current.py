"""Whether a run has been done: its results are those the plan, the code and the inputs here would give."""

from __future__ import annotations

import json
from pathlib import Path

from edc import dag
from edc.params import Plan
from edc.storage import RESULTS, fingerprint


def current(plan: Plan, task: dag.Task) -> bool:
    """Whether a run's results are those the plan, the code and the inputs here would give."""
    outputs = (output.path for output in task.outputs)
    return all(Path(name).exists() for name in (*outputs, *task.inputs, *task.code)) and agrees(plan, task)


def agrees(plan: Plan, task: dag.Task) -> bool:
    """Whether a run's records name the plan's values, the code and the inputs here, wherever its large files are."""
    folder = Path(dag.folder(task.stage, task.key))
    try:
        manifest, made = (json.loads((folder / name).read_text()) for name in ("manifest.json", "run.json"))
        return (
            manifest["params"] == plan.resolved(task.stage, task.key)
            and made["code"] == dag.code_digest(task)
            and all(_files(run) == files for run, files in manifest["inputs"].items())
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _files(run: str) -> str:
    """Fingerprint of what an upstream run wrote."""
    return fingerprint(json.loads((RESULTS / run / "manifest.json").read_text())["files"])
