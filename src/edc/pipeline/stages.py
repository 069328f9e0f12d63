"""What the commands do: a stage of the plan, or all of them, and what follows when runs are finished."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

from edc import STAGES, tracking
from edc.config.references import load_plan
from edc.config.rows import Plan
from edc.errors import EdcError
from edc.nets.processes import processes, rank
from edc.pipeline.status import Run, runs, tables_made
from edc.pipeline.together import run_together
from edc.pipeline.workers import run_all
from edc.storage import RUNS
from edc.storage.planlock import hold_plan
from edc.storage.provenance import provenance

MEASURING = ("evaluate", "continual", "slimming", "analysis")
"""The stages after which MLflow is synchronised: their runs have results, and it takes some seconds."""


def run_stage(
    stage: str, keys: Sequence[str] | None = None, jobs: int | None = None, force: bool = False, tracked: bool = True
) -> None:
    """Make the runs of one stage that are not up to date.

    Args:
        stage: which.
        keys: runs of it; None: all.
        jobs: how many at once; None: as many as the devices take.
        force: make them again even if they are up to date.
        tracked: synchronise with MLflow afterwards.

    Processes that torchrun started share each run.

    Raises:
        EdcError: the plan has no such run, or runs failed.
    """
    _todo(stage, keys)
    tracking.enabled()  # refuses a bad EDC_TRACKING before hours of work, not after
    hold_plan()
    plan, todo = _todo(stage, keys)  # again, now that nobody can replace the plan
    (RUNS / stage).mkdir(parents=True, exist_ok=True)  # DVC expects it also where the plan has no run of the stage
    make = run_together if processes() > 1 else partial(run_all, jobs=jobs, seconds=durations())
    made = make(plan, todo, force=force)
    if todo and not made and rank() == 0:
        print(f"edc: {stage}: up to date, {len(todo)} run(s)", file=sys.stderr, flush=True)
    if made and tracked and rank() == 0 and stage in MEASURING:
        track(plan)


def _todo(stage: str, keys: Sequence[str] | None) -> tuple[Plan, list[Run]]:
    """The plan and the runs of one stage; refuses unknown ones."""
    plan = load_plan()
    todo = [(stage, key) for key in (keys if keys is not None else getattr(plan, stage))]
    for run in todo:
        plan.row(*run)
    return plan, todo


def run_plan(jobs: int | None = None, minutes: float | None = None, force: bool = False) -> None:
    """Make every run of the plan that is not up to date, then the tables; nothing but this package is needed.

    Raises:
        EdcError: runs failed.
    """
    load_plan()  # refuses a bad one before anything is written
    tracking.enabled()
    hold_plan()
    plan = load_plan()
    try:
        run_all(plan, runs(plan), jobs, force, minutes, durations())
    except EdcError:
        track(plan)  # the runs that did finish
        raise
    run_tables(tracked=False)
    finish(plan)


def run_tables(tracked: bool = True) -> None:
    """Add the finished runs to the record and make every table and figure from it."""
    from edc.stages import tables

    load_plan()
    hold_plan()
    plan = load_plan()
    tables.run(plan)
    tables_made(plan)
    if tracked:
        track(plan)


def durations() -> Callable[[Run], float]:
    """Seconds a run took before, by the record; unknown ones count as long, so that they start first."""

    @cache
    def known() -> dict[Run, float]:  # pandas is imported once there is something to do
        from edc.reporting import record

        return record.seconds()

    return lambda run: known().get(run, float("inf"))


def finish(plan: Plan | None = None) -> None:
    """After runs were made outside ``dvc repro``: commit them to DVC in one call, where it is in use, and to MLflow."""
    for stage in STAGES:
        if stage != "tables":
            (RUNS / stage).mkdir(parents=True, exist_ok=True)
    if Path(".dvc").is_dir() and Path("dvc.yaml").exists() and find_spec("dvc") and provenance()["dirty"] is not None:
        command = [sys.executable, "-m", "dvc", "commit", "--force", "--quiet"]
        code = subprocess.run(command, check=False).returncode
        if code:
            raise EdcError(f"`dvc commit --force` failed with exit code {code}; the runs are finished, call it again")
    track(plan or load_plan())


def track(plan: Plan) -> None:
    """Synchronise the finished runs with MLflow; a store that is down costs one line, nothing else."""
    if message := tracking.sync(plan):
        print(f"edc: {message}", file=sys.stderr)
