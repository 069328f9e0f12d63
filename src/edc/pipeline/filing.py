"""Bring finished results to MLflow that it lacks: those of a clone, of another machine, or of an untracked run."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from edc.pipeline import dag
from edc.stages.context import tracked_params
from edc.config.references import load_plan
from edc.config.rows import Plan
from edc.storage import read_json
from edc.tracking import Run, drain, run_key
from edc.tracking.delivery import one_line
from edc.tracking.sender import store_uri
from edc.tracking.store import Store

# Columns of a history that say where a row belongs instead of what was measured.
PLACES = {"seed", "epoch", "group", "iteration", "observer"}


def bring() -> str:
    """Send what stages recorded, then file and send finished results the store lacks; what came of it, in one line."""
    if os.environ.get("EDC_TRACKING") == "off":
        return "tracking is off (EDC_TRACKING=off)"
    summary = drain(wait=120)
    if not summary.error and Path("params.yaml").exists():
        problem = file_results(load_plan())
        summary = drain(wait=120) if problem is None else replace(summary, error=problem)
    return str(summary)


def file_results(plan: Plan) -> str | None:
    """Spool every finished run of the plan that the tracking store does not know; they still have to be sent.

    Returns:
        Why the store could not be asked, in one line; None when it could.
    """
    try:
        known = Store(store_uri()).known_keys(plan.study)
    except Exception as error:  # whatever the store's client raises: a server that is down must not fail anything
        return one_line(error)
    before = os.environ.get("EDC_TRACKING")
    os.environ["EDC_TRACKING"] = "spool"
    try:
        for task in dag.tasks(plan):
            if task.stage != "tables":
                _file(plan, task, known)
    finally:
        os.environ.pop("EDC_TRACKING") if before is None else os.environ.update(EDC_TRACKING=before)
    return None


def _file(plan: Plan, task: dag.Task, known: set[str]) -> None:
    folder = Path(dag.folder(task.stage, task.key))
    if not (folder / "manifest.json").exists() or not (folder / "run.json").exists():
        return
    manifest, made = read_json(folder / "manifest.json"), read_json(folder / "run.json")
    if manifest["params"] != plan.resolved(task.stage, task.key):
        return
    params = tracked_params(manifest["params"][task.stage])
    tags = {"edc.commit": made["commit"], "edc.dirty": made["dirty"], "edc.device": made["device"], "edc.filed": "true"}
    several = task.stage == "evaluate"  # one tracked run a seed; the other stages are one each
    for seed in manifest["params"][task.stage]["seeds"] if several else [None]:
        if run_key(task.stage, task.key, params, seed) in known:
            continue
        about: dict[str, Any] = {"stage": task.stage, "row": task.key, "study": plan.study}
        about |= {"params": params, "seed": seed}
        with Run(**about, tags=tags) as run:
            run.dataset(params["dataset"], manifest["dataset_digest"])
            if "scores" in manifest and not several:
                for step, values in resolve_name(f"edc.{task.stage}:measured")(manifest["scores"]):
                    run.metrics(values, step)
            else:
                for step, values in _history(folder / "history.csv", seed, params):
                    run.metrics(values, step)
                run.metrics(_scores(manifest, seed), int(params.get("epochs", 0)))
            for picture in sorted(folder.glob("*.png")):
                run.artifact(picture)


def _history(path: Path, seed: int | None, params: dict[str, Any]) -> Iterator[tuple[int, dict[str, float]]]:
    """Steps and values of a history, of one seed where it has several."""
    if not path.exists():
        return
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if seed is not None and int(row["seed"]) != seed:
                continue
            step = int(row["epoch"]) if "epoch" in row else int(row["iteration"])
            if "group" in row:
                step += int(row["group"]) * params["optimise"]["iterations"]
            yield step, {name: float(value) for name, value in row.items() if name not in PLACES and value}


def _scores(manifest: dict[str, Any], seed: int | None) -> dict[str, float]:
    """What a manifest says of the whole run."""
    if "scores" in manifest:
        place = manifest["params"]["evaluate"]["seeds"].index(seed)
        return {f"{name}_accuracy": manifest["scores"][name][place] for name in ("final", "best")}
    held = manifest.get("val_accuracy")
    return {f"holdout_accuracy_{key}": value for key, value in held.items()} if isinstance(held, dict) else {}
