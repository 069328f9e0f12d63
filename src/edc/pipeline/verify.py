"""Whether rows of ``results/runs.csv`` hold: their runs are executed again in a scratch folder and compared."""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from edc.config.references import load_plan
from edc.config.rows import Plan, StudyRuns
from edc.data.roots import resolve_root, variable
from edc.errors import EdcError, unknown_name
from edc.pipeline.status import Run, read, runs
from edc.pipeline.workers import run_all
from edc.reporting import record
from edc.reporting.collect import rows_of
from edc.reporting.intervals import from_spreads
from edc.storage import RESULTS, RUNS, STATE, run_folder
from edc.storage.planlock import hold_plan

SCRATCH = STATE / "verify"
APART = {".git", ".dvc", RUNS.name, RESULTS.name, STATE.name}
"""What the scratch folder does not share with the checkout."""
MACHINE = ["device", "threads", "torch"]
"""Where these are the same, and the inputs too, a run gives the same bytes."""
ACCURACIES = ["accuracy", "best_accuracy", "accuracy_before", "average_accuracy"]
GROUP = ["step", "ratio"]
"""Accuracies of the same of these are of students that differ in seed and order alone."""
VARYING = {*ACCURACIES, "forgetting", "digest", "inputs", "training", "image_bytes", "label_bytes", "channels"}
VARYING |= {"parameters", "macs"}
"""What another machine, or inputs made there, may change."""
SAME, SPREAD = "bit for bit", "within the spread"


def verify(keys: Sequence[str] | None = None, sample: int | None = None, jobs: int | None = None) -> pd.DataFrame:
    """Execute recorded runs again, from the inputs that are here, and compare them with the record.

    Made from the same inputs on a machine with the same device, threads and PyTorch, all values and digests must be
    equal. Else the 95 % interval of each difference of mean accuracies, over seeds and test images, must include 0.

    Args:
        keys: runs, as KEY or STAGE/KEY; None: all of the plan that have accuracies in the record.
        sample: only so many of them, drawn at random.
        jobs: how many at once; None: as many as the devices take.

    Returns:
        One row per run: stage, run, students, recorded and again (mean accuracy in percent, of the last step or the
        largest ratio), compared (how), holds ("yes", "no", or "one seed": there is no spread), remark.

    Raises:
        EdcError: a run is unknown or not in the record, or inputs are missing for all or a named one.
    """
    plan, recorded = load_plan(), record.read()
    hold_plan()
    todo = _with_inputs(plan, _chosen(plan, recorded, keys), named=bool(keys))
    if sample is not None and sample < len(todo):
        todo = sorted(random.sample(todo, sample), key=todo.index)
    with _scratch(plan, todo):
        run_all(plan, todo, jobs, force=True)
        again = {run: _rows(run) for run in todo}
    return pd.DataFrame([_verdict(run, _of(recorded, run), again[run]) for run in todo])


def _of(recorded: pd.DataFrame, run: Run) -> pd.DataFrame:
    return recorded[(recorded["stage"] == run[0]) & (recorded["run"] == run[1])].reset_index(drop=True)


def _rows(run: Run) -> pd.DataFrame:
    """The rows that a run would have in the record."""
    path = run_folder(*run) / "manifest.json"
    return record.sort(record.typed(pd.DataFrame(rows_of(path), dtype=object), record.COLUMNS, str(path)))


def _chosen(plan: Plan, recorded: pd.DataFrame, keys: Sequence[str] | None) -> list[Run]:
    """The plan's runs that have accuracies in the record, made by this version of their stage."""
    current = recorded[(recorded["source"] == "run") & recorded[ACCURACIES].notna().any(axis=1)]
    known = set(zip(current["stage"], current["run"], strict=True))
    found = [run for run in runs(plan) if run in known and run[0] in StudyRuns.model_fields]
    for key in keys or []:
        if not any(key in (run[1], "/".join(run)) for run in found):
            if not any(key in (run[1], "/".join(run)) for run in runs(plan)):
                raise unknown_name("run", key, {run[1] for run in runs(plan)}, "params.yaml")
            raise EdcError(
                f"--run {key}: expected a run of params.yaml with accuracies in {record.PATH}, made by this version"
            )
    found = [run for run in found if not keys or {run[1], "/".join(run)} & set(keys)]
    if not found:
        raise EdcError(f"{record.PATH}: no accuracies of this plan's runs, made by this version; run `edc run` first")
    return found


def _with_inputs(plan: Plan, todo: list[Run], named: bool) -> list[Run]:
    """The runs whose inputs are here; the others in one line, as an error if they are ``named`` or all."""
    lacks = {run: [up for up in plan.upstream(*run) if read(up) is None] for run in todo}
    if not any(lacks.values()):
        return todo
    missing = list(dict.fromkeys(up for of_run in lacks.values() for up in of_run))
    stages = " ".join(dict.fromkeys(stage for stage, _ in missing))
    here = [run for run in todo if not lacks[run]]
    problem = (
        f"inputs of {len(todo) - len(here)} of {len(todo)} runs are missing, {'/'.join(missing[0])} first; "
        f"bring them with `dvc pull`, or make them with `dvc repro {stages}`"
    )
    if named or not here:
        raise EdcError(problem)
    print(f"edc: {problem}", file=sys.stderr, flush=True)
    return here


@contextmanager
def _scratch(plan: Plan, todo: list[Run]) -> Iterator[None]:
    """A working directory with links to the checkout's files and to all runs but those that are executed again."""
    for name in {plan.row(*run).dataset for run in todo}:
        if (dataset := plan.datasets[name]).kind != "digits":  # its folder may be relative to the checkout
            os.environ[variable(name)] = str(resolve_root(dataset).absolute())
    path = STATE / "locks" / "verify.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise EdcError("another `edc verify` is running in this checkout; wait for its end") from None
    with lock:
        shutil.rmtree(SCRATCH, ignore_errors=True)  # of an attempt that was killed
        SCRATCH.mkdir(parents=True)
        shared = [path for path in Path().iterdir() if path.name not in APART]
        for path in [*shared, *(path for path in RUNS.glob("*/*") if path.parts[1:] not in todo)]:
            (SCRATCH / path).parent.mkdir(parents=True, exist_ok=True)
            (SCRATCH / path).symlink_to(path.absolute())
        try:
            with chdir(SCRATCH):
                yield
        finally:
            shutil.rmtree(SCRATCH, ignore_errors=True)


def _verdict(run: Run, old: pd.DataFrame, new: pd.DataFrame) -> dict[str, Any]:
    same = old.loc[:0, [*MACHINE, "inputs"]].equals(new.loc[:0, [*MACHINE, "inputs"]])
    problems = _differences(old, new, set() if same else VARYING)
    undecided = False
    if not same and not problems:
        problems, undecided = _outside(old, new)
    means = [frame.tail(1)[GROUP].merge(frame, on=GROUP)["accuracy"].mean() for frame in (old, new)]
    return {
        **dict(zip(("stage", "run"), run, strict=True)),
        "students": len(old.drop_duplicates(["seed", "order"])),
        "recorded": means[0],
        "again": means[1],
        "compared": SAME if same else SPREAD,
        "holds": "no" if problems else "one seed" if undecided else "yes",
        "remark": "; ".join(problems[:2]) + (f"; {len(problems) - 2} more" if len(problems) > 2 else ""),
    }


def _differences(old: pd.DataFrame, new: pd.DataFrame, varying: set[str]) -> list[str]:
    """Columns in which two frames of one run differ, with the first values that do."""
    if not old[record.KEYS].equals(new[record.KEYS]):
        return ["other seeds, orders, steps or ratios"]
    problems = []
    for name in record.COLUMNS.keys() - varying - {*record.ENVIRONMENT, "source"}:
        differ = ~((old[name] == new[name]).fillna(False) | (old[name].isna() & new[name].isna()))
        if differ.any():
            row = int(differ.to_numpy().argmax())
            problems.append(f"{name} {old[name][row]} is {new[name][row]}")
    return sorted(problems)


def _outside(old: pd.DataFrame, new: pd.DataFrame) -> tuple[list[str], bool]:
    """Mean accuracies whose difference is beyond the spread, and whether there is none: of a single seed."""
    problems, single = [], False
    for name in ACCURACIES:
        for _, part in old.groupby(GROUP, dropna=False):
            other = new.loc[part.index, name]
            sides = [(float(x.mean()), float(x.std()), len(x)) for x in (part[name], other) if x.notna().all()]
            if len(sides) < 2:
                continue
            images = float(part["test_images"].iloc[0])
            low, high = from_spreads(sides[0], sides[1], (images, images))
            single |= low != low  # NaN
            if low > 0 or high < 0:
                at = "".join(f" {key} {value}" for key, value in part[GROUP].iloc[0].dropna().items())
                problems.append(f"{name}{at} {sides[0][0]:.2f} is {sides[1][0]:.2f}")
    return problems, single
