"""What people may want of runs that the record does not hold: courses of accuracy, measurements, small condensed sets.

Copied from the runs that are here to ``results/``; copies of other runs stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from edc.config.rows import Plan
from edc.reporting import record
from edc.reporting.figure2 import HISTORIES, RUN, as_measured, kept
from edc.stages.versions import VERSIONS
from edc.storage import (
    RESULTS,
    checked,
    manifest_in,
    read_array,
    read_manifest,
    read_tensors,
    replacing,
    run_folder,
    write_tensors,
)

LEARNING = record.history("learning")
COURSES: record.Columns = RUN | {"epoch": (record.INTEGER, record.COUNT), "accuracy": (record.NUMBER, record.PERCENT)}
SHARED_RECIPES = ("edc", "edc_best", "edc_code", "rded", "random")
"""Recipes whose condensed sets are kept in Git, up to so many bytes each."""
SHARED_BYTES = 1_000_000


def learning(plan: Plan, frame: pd.DataFrame) -> pd.DataFrame:
    """Accuracy over epochs, mean over the seeds, of the record's evaluations."""

    def course(history: pd.DataFrame, _: Any) -> pd.DataFrame:
        accuracy = history.dropna(subset="accuracy").groupby("epoch")["accuracy"].mean().round(4).reset_index()
        return accuracy.assign(epoch=accuracy["epoch"] + 1)

    old = record.read_csv(LEARNING, COURSES, record.restoring(LEARNING))
    return _history(old, COURSES, "history.csv", ("evaluate", [*plan.evaluate]), frame, course)


def measurements(plan: Plan, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What the record's analyses of kind ``figure2`` measured, by the names of ``HISTORIES``."""
    runs = [key for key in plan.analysis if _measured(key)]
    return {
        name: _history(kept(name), columns, f"{name}.csv", ("analysis", runs), frame, partial(as_measured, name))
        for name, columns in HISTORIES.items()
    }


def _measured(key: str) -> bool:
    """Whether a run is a finished analysis of kind ``figure2`` by this version, whose files have these columns."""
    folder = run_folder("analysis", key)
    made = manifest_in(folder) if (folder / "manifest.json").exists() else {}
    return made.get("version") == VERSIONS["analysis"] and made["params"]["analysis"]["kind"] == "figure2"


def _history(
    old: pd.DataFrame,
    columns: record.Columns,
    file: str,
    runs: tuple[str, list[str]],
    frame: pd.DataFrame,
    lines: Callable[[pd.DataFrame, Mapping[str, Any]], pd.DataFrame],
) -> pd.DataFrame:
    """One of ``results/histories/``: the lines of the plan's finished runs anew, of others in the record as they were.

    Args:
        old: its lines until now.
        file: of a run, which its lines are made from.
        runs: stage, and keys of its runs.
        lines: from a run's file and the values it was made with, the columns that are not among these values.
    """
    stage, keys = runs
    parts, finished = [], []
    for key in keys:
        if not ((folder := run_folder(stage, key)) / "manifest.json").exists():
            continue
        manifest = manifest_in(folder)
        values = manifest["params"][stage]
        made = lines(pd.read_csv(checked(folder, manifest, file)), values)
        made = made.assign(run=key, **{name: values[name] for name in columns.keys() - {*made, "run"}})
        parts.append(record.typed(made, columns, str(folder / file)))
        finished.append(key)
    whole = pd.concat([old[~old["run"].isin(finished)], *parts], ignore_index=True)
    known = whole["run"].isin(frame.loc[frame["stage"] == stage, "run"])
    return whole[known].sort_values("run", kind="stable", ignore_index=True)


def share_condensed_sets(plan: Plan) -> None:
    """Copy the small condensed sets of a few recipes to ``results/condensed/``, each as one safetensors file.

    It holds ``images`` (uint8, (N, C, S, S)), ``labels`` (N,) and, where the set was relabelled, ``static``: the logits
    of its teachers (fp16, (N, K)). Its metadata, JSON under ``edc``, name recipe, dataset, classes, mean and std. The
    contact sheet lies beside it.
    """
    from torch import from_numpy

    for key, row in plan.synthesize.items():
        if row.recipe not in SHARED_RECIPES or not (run_folder("synthesize", key) / "manifest.json").exists():
            continue
        manifest = read_manifest("synthesize", key)
        if manifest["image_bytes"] > SHARED_BYTES:
            continue
        tensors = read_tensors(run_folder("synthesize", key) / "images.safetensors")
        facts: dict[str, Any] = {"recipe": row.recipe, "dataset": row.dataset, "ipc": row.ipc, "seed": row.seed}
        dataset = manifest["params"]["dataset"]
        facts |= {"classes": manifest["classes"], "mean": dataset["mean"], "std": dataset["std"]}
        labels = [name for name, label in plan.relabel.items() if label.images == key]
        labels = [name for name in labels if (run_folder("relabel", name) / "manifest.json").exists()]
        if labels:
            facts["teachers"] = read_manifest("relabel", labels[0])["params"]["relabel"]["observers"]
            tensors["static"] = from_numpy(np.array(read_array(run_folder("relabel", labels[0]) / "static.npy")))
        metadata = {"edc": json.dumps(facts)}  # one key, for the order of several is not fixed
        write_tensors(RESULTS / "condensed" / f"{key}.safetensors", tensors, metadata)
        sheet = run_folder("synthesize", key) / "contact_sheet.png"
        if sheet.exists():
            with replacing(RESULTS / "condensed" / f"{key}.png") as temporary:
                temporary.write_bytes(sheet.read_bytes())
