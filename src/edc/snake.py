"""What the Snakefile needs of the plan: its runs by stage, and which of them are stale.

DVC and Snakemake share one set of results, so Snakemake's own memory of past parameters can't be trusted: DVC may have
run since. A run's manifest says which values it was made with; where they differ from the plan, the run's parameter
file is made newer than its outputs, and Snakemake's comparison of times does the rest.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from edc import dag
from edc.errors import EdcError
from edc.params import STAGES, load_plan
from edc.storage import STATE, write_text


class Tasks:
    """The runs of the active plan for the Snakefile.

    Raises:
        EdcError: there is no plan, or ``dvc.yaml`` is of another one.
    """

    def __init__(self) -> None:
        self.plan = load_plan()
        if not Path("dvc.yaml").exists() or Path("dvc.yaml").read_text(encoding="utf-8") != dag.render(self.plan):
            raise EdcError("dvc.yaml does not belong to params.yaml; run `edc plan --sync`")
        self.tasks = list(dag.tasks(self.plan))
        for task in self.tasks:
            self._mark(task)

    def of(self, stage: str) -> Iterator[dag.Task]:
        """The runs of one stage."""
        return (task for task in self.tasks if task.stage == stage)

    @property
    def targets(self) -> list[str]:
        """The files of the last stage that has runs."""
        last = [stage for stage in STAGES if any(True for _ in self.of(stage))][-1]
        return [output.path for task in self.of(last) for output in task.outputs]

    @staticmethod
    def inputs(task: dag.Task) -> list[str]:
        """Everything a run reads: results, source files, and its parameters."""
        return [*task.inputs, *task.code, str(_parameter_file(task))]

    @staticmethod
    def outputs(task: dag.Task) -> list[str]:
        """Everything a run leaves."""
        return [output.path for output in task.outputs]

    def _mark(self, task: dag.Task) -> None:
        """Bring a run's parameter file up to date: old when its results were made with these values, new otherwise."""
        values = self.plan.resolved(task.stage, task.key)
        path, text = _parameter_file(task), json.dumps(values, indent=1) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
        if _made_with(task) == values:
            os.utime(path, (0, 0))
        elif path.stat().st_mtime == 0:
            os.utime(path)

    def commit(self) -> None:
        """Tell DVC of every run that is up to date, in one call; jobs themselves never call it."""
        current = [task.name for task in self.tasks if self._current(task)]
        if current:
            subprocess.run(["dvc", "commit", "--force", "--quiet", *current], check=True)

    def _current(self, task: dag.Task) -> bool:
        files = [Path(path) for path in self.outputs(task)]
        if not all(path.exists() for path in files) or _made_with(task) != self.plan.resolved(task.stage, task.key):
            return False
        sources = [Path(path) for path in (*task.inputs, *task.code)]
        if not all(path.exists() for path in sources):
            return False
        return max(path.stat().st_mtime for path in sources) <= min(path.stat().st_mtime for path in files)


def _parameter_file(task: dag.Task) -> Path:
    return STATE / "plan" / task.stage / f"{task.key}.json"


def _made_with(task: dag.Task) -> object:
    """The values a run's results were made with, from its manifest; None when there is none."""
    manifest = Path(dag.folder(task.stage, task.key)) / "manifest.json"
    try:
        return json.loads(manifest.read_text(encoding="utf-8"))["params"]
    except (OSError, ValueError, KeyError):
        return None
