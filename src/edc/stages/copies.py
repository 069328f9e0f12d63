"""What people may want of runs that the record does not hold: courses of accuracy, and the small condensed sets.

Copied from the runs that are here to ``results/``; copies of other runs stay as they are.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from edc.config.rows import Plan
from edc.reporting import record
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

LEARNING = RESULTS / "histories" / "learning.csv"
LEARNING_COLUMNS: record.Columns = {
    "dataset": (record.TEXT, None), "recipe": (record.TEXT, None), "ipc": (record.INTEGER, record.COUNT),
    "student": (record.TEXT, None), "protocol": (record.TEXT, None), "run": (record.TEXT, None),
    "epoch": (record.INTEGER, record.COUNT), "accuracy": (record.NUMBER, record.PERCENT),
}  # fmt: skip
SHARED_RECIPES = ("edc", "edc_best", "edc_code", "rded", "random")
"""Recipes whose condensed sets are kept in Git, up to so many bytes each."""
SHARED_BYTES = 1_000_000


def learning(plan: Plan, frame: pd.DataFrame) -> pd.DataFrame:
    """Accuracy over epochs, mean over the seeds, of the record's runs: the plan's finished ones, others as it was."""
    courses = record.read_csv(LEARNING, LEARNING_COLUMNS, f"restore it with `git checkout {LEARNING}`")
    folders = {key: run_folder("evaluate", key) for key in plan.evaluate}
    folders = {key: folder for key, folder in folders.items() if (folder / "manifest.json").exists()}
    parts = [courses[~courses["run"].isin(folders)]]
    for key, folder in folders.items():
        history = pd.read_csv(checked(folder, manifest_in(folder), "history.csv"))
        accuracy = history.dropna(subset="accuracy").groupby("epoch")["accuracy"].mean().round(4)
        course = accuracy.reset_index().assign(run=key, **plan.evaluate[key].model_dump(include=set(LEARNING_COLUMNS)))
        parts.append(course.assign(epoch=course["epoch"] + 1)[list(LEARNING_COLUMNS)])
    runs = frame.loc[frame["stage"] == "evaluate", "run"]
    whole = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    return whole[whole["run"].isin(runs)].sort_values(["run", "epoch"], ignore_index=True)


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
