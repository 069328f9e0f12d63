"""What the Snakefile needs of the plan: its runs by stage, and which of them are stale.

DVC and Snakemake share one set of results, so Snakemake's own memory of past parameters can't be trusted: DVC may have
run since, and Git sets the times of files as it likes. A run's manifest says what it was made from; times are set to
agree with that, and Snakemake's comparison of times does the rest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from edc import STAGES
from edc.pipeline import dag
from edc.pipeline.current import current
from edc.config.references import load_plan
from edc.storage import STATE, write_text
from edc.pipeline.warm import libraries


class Tasks:
    """The runs of the active plan for the Snakefile.

    Raises:
        EdcError: there is no plan, or ``dvc.yaml`` is of another one.
    """

    def __init__(self) -> None:
        self._open = ExitStack()
        self.plan = load_plan()
        dag.check_written(self.plan)
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
        """Make file times say what contents say.

        A run whose results were made with the plan's values, the code and the inputs that are here is current: its
        parameter file is old, and its outputs are made newer than its inputs if Git or DVC put those there later.
        For any other run the parameter file is new.
        """
        values = self.plan.resolved(task.stage, task.key)
        path, text = _parameter_file(task), json.dumps(values, indent=1) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
        if not current(self.plan, task):
            if path.stat().st_mtime == 0:
                os.utime(path)
            return
        os.utime(path, (0, 0))
        newest = max(Path(name).stat().st_mtime for name in (*task.inputs, *task.code))
        for path in map(Path, self.outputs(task)):
            if path.stat().st_mtime < newest:
                os.utime(path)

    def warm(self) -> None:
        """From here to the end of Snakemake, or of ``commit``, runs start with the libraries loaded."""
        self._open.enter_context(libraries(self.plan.machine.threads))

    def commit(self) -> None:
        """Tell DVC of every run that is up to date, in one call; jobs themselves never call it."""
        self._open.close()
        if done := [task.name for task in self.tasks if current(self.plan, task)]:
            # In a process of its own: Snakemake's has no room for DVC.
            record = "import sys; from edc.pipeline.locking import record; record(sys.argv[1:], {})"
            subprocess.run([sys.executable, "-c", record, *done], check=True)


def _parameter_file(task: dag.Task) -> Path:
    return STATE / "plan" / task.stage / f"{task.key}.json"
