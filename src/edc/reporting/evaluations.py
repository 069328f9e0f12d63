"""Evaluations: one line per run, mean and standard deviation (n - 1) over its seeds, and its baseline."""

from __future__ import annotations

import numpy as np
import pandas as pd

from edc.config.files import root
from edc.errors import EdcError
from edc.nets.titles import paper_name
from edc.reporting.paper import DATASETS
from edc.reporting.record import PATH

RANDOM = "random"
"""The recipe that every method is compared with."""
FULL = "full"
"""The recipe that trains on the real dataset."""
DECIMALS = 4
"""Of accuracies in tables, in percent: pages round them once more, to one, and it is the same one."""
CELL = ["dataset", "recipe", "ipc", "student"]
ONCE = [
    "dataset", "recipe", "variant", "changed", "protocol", "own_protocol", "regime", "ipc", "student", "image_bytes",
    "label_bytes", "steps", "training", "subset", "seconds", "device", "threads", "precision", "commit", "source",
]  # fmt: skip


def evaluations(record: pd.DataFrame, split: str = "test") -> pd.DataFrame:
    """Finished evaluations on one split, in the order of the runs' names.

    Besides the record's columns: seeds; final_mean, final_std, best_mean and best_std; paper_dataset and paper_student
    ("" where the paper has no such one, or for a part of a dataset, whose accuracy is not the paper's quantity); own:
    whether the protocol is the recipe's own and unchanged, so that the paper's figure may stand beside it.

    Raises:
        EdcError: two runs are the same cell.
    """
    rows = record[(record["stage"] == "evaluate") & (record["split"] == split)]
    by_run = rows.groupby("run", sort=False)
    cells = by_run[ONCE].first().assign(seeds=by_run.size())
    for name, column in (("final", "accuracy"), ("best", "best_accuracy")):
        cells[f"{name}_mean"], cells[f"{name}_std"] = by_run[column].mean(), by_run[column].std()
    cells = cells.reset_index()
    unique(cells, [*CELL, "variant", "protocol"])
    families = {name: root("datasets", name) for name in cells["dataset"].unique()}
    whole = cells["dataset"].map(families).mask(cells["subset"].astype(bool), "").astype(object)
    cells["paper_dataset"] = whole.where(whole.isin(DATASETS), "")
    cells["paper_student"] = [paper_name(name) or "" for name in cells["student"]]
    cells["own"] = (cells["protocol"] == cells["own_protocol"]) & ~cells["changed"].astype(bool)
    return cells


def unique(cells: pd.DataFrame, keys: list[str]) -> None:
    """Refuse two runs of the same cell with an :class:`EdcError` that names both."""
    if alike := two_alike(cells, keys):
        remedy = "delete the rows of the one that no longer counts"
        raise EdcError(f"{PATH}: run {alike[1]!r} is the same cell as {alike[0]!r}; {remedy}")


def two_alike(cells: pd.DataFrame, keys: list[str]) -> list[str]:
    """The first two runs with the same keys; empty where there are none."""
    runs = cells.drop_duplicates(["run", *keys])
    second = runs[runs.duplicated(keys)].head(1)
    return [] if second.empty else runs.merge(second[keys], on=keys)["run"].head(2).tolist()


def with_baseline(rows: pd.DataFrame, random: pd.DataFrame, keys: list[str], score: str = "final") -> pd.DataFrame:
    """Lines beside their baseline: that of ``random`` with the same keys.

    Adds baseline_mean and baseline_std; improvement; improvement_spread, the root of both variances over the seeds; and
    clear: whether the improvement is larger than that ("yes" or "no"; with one seed there is no spread, so "no").
    """
    mean, std = f"{score}_mean", f"{score}_std"
    beside = random.drop_duplicates(keys)[[*keys, mean, std]]
    beside = beside.rename(columns={mean: "baseline_mean", std: "baseline_std"})
    rows = rows.merge(beside, how="left", on=keys)
    rows["improvement"] = (rows[mean] - rows["baseline_mean"]).round(DECIMALS)
    rows["improvement_spread"] = np.sqrt(rows[std] ** 2 + rows["baseline_std"] ** 2).round(DECIMALS)
    clear = pd.Series(np.where(rows["improvement"].abs() > rows["improvement_spread"], "yes", "no"), rows.index)
    compared = rows["baseline_mean"].notna() & (rows["recipe"] != RANDOM)
    rows["clear"] = clear.where(compared, "")
    return rows


def finished(rows: pd.DataFrame, columns: tuple[str, ...], order: list[str]) -> pd.DataFrame:
    """A table: these columns, empty where missing, rounded, sorted by those of ``order`` with empty cells first."""
    table = rows.reindex(columns=list(columns))
    for name in table.select_dtypes("float64"):
        table[name] = table[name].round(DECIMALS)
    for name in ("ipc", "seeds", "image_bytes", "label_bytes", "steps"):
        if name in table:
            table[name] = table[name].astype("Int64")
    order = [name for name in order if name in columns]
    table = table.sort_values(order, na_position="first", kind="stable", ignore_index=True)
    text = table.select_dtypes(["object", "str"]).columns
    table[text] = table[text].fillna("")
    return table
