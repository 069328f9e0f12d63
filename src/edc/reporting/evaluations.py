"""Evaluations: one line per run, mean and standard deviation (n - 1) over its seeds, and its baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from edc.config.files import root
from edc.errors import EdcError
from edc.nets.titles import paper_name
from edc.reporting.intervals import NONE, Interval, bootstrap, from_spreads, paired, sampling
from edc.reporting.paper import DATASETS
from edc.reporting.record import PATH

RANDOM = "random"
"""The recipe that every method is compared with."""
FULL = "full"
"""The recipe that trains on the real dataset."""
CHANCE, IMPROVING = 1.5, 2.0
"""A student is near chance below so many times the accuracy of guessing, and improving above so many points."""
DECIMALS = 4
"""Of accuracies in tables, in percent: pages round them once more, to one, and it is the same one."""
SIDES = ("seeds", "pairs", "test_images", "test_digest", "right", "trained")
"""What an interval is made from besides mean and deviation; pairs: accuracies by what a baseline has in common."""
CELL = ["dataset", "recipe", "ipc", "student"]
STANDARD = {"static": "static_soft", "hard": "hard_label"}
"""The protocol that stands for a label regime where several of that regime ran."""
ONCE = [
    "dataset", "recipe", "variant", "changed", "protocol", "own_protocol", "regime", "ipc", "student", "image_bytes",
    "label_bytes", "steps", "training", "subset", "classes", "test_images", "test_digest", "seconds", "device",
    "threads", "precision", "commit", "source", "inputs",
]  # fmt: skip


def evaluations(
    record: pd.DataFrame,
    split: str = "test",
    right: Mapping[str, np.ndarray] | None = None,
    courses: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Finished evaluations on one split, in the order of the runs' names.

    Besides the record's columns: seeds; final_mean, final_std, best_mean and best_std; paper_dataset and
    paper_student ("" where the paper has no such one, or for a part of a dataset, whose accuracy is not the paper's
    quantity); own: whether the protocol is the recipe's own and unchanged, so that the paper's figure may stand
    beside it; teacher_bytes: of the labelling teachers' weights in half precision; right: which images each student
    gets right, bool (seeds, images), or None; trained: "no" where a student is not trained to the end
    (:func:`not_trained`), else "".

    Args:
        record: its rows.
        split: of the evaluations.
        right: :func:`edc.reporting.correctness.by_run`.
        courses: ``results/histories/learning.csv``, accuracy by run and epoch.

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
    cells["teacher_bytes"] = teacher_bytes(record, cells["inputs"])
    cells["right"] = pd.Series([(right or {}).get(run) for run in cells["run"]], cells.index, dtype=object)
    cells["trained"] = np.where(not_trained(cells, courses), "no", "")
    return cells


def not_trained(cells: pd.DataFrame, courses: pd.DataFrame | None) -> pd.Series:
    """Whether students are not trained to the end: still improving, or near chance.

    Still improving: at the last evaluated epoch the accuracy, mean over the seeds, is more than 2 points above that of
    the one before it, and more than the standard error of an accuracy over so many test images. Near chance: it is
    below 1.5 times that of guessing. What is not recorded, or evaluated once, counts as trained.
    """
    chance = CHANCE * 100 / cells["classes"].astype("float64")
    near = cells["final_mean"] < chance
    if courses is None or courses.empty:
        return near
    ordered = courses.sort_values("epoch", kind="stable").groupby("run")["accuracy"]
    last = ordered.apply(lambda accuracy: accuracy.diff().iloc[-1]).round(DECIMALS)
    share = cells["final_mean"] / 100
    error = 100 * np.sqrt(share * (1 - share) / cells["test_images"].astype("float64"))
    return near | (cells["run"].map(last) > np.fmax(error, IMPROVING))


def teacher_bytes(record: pd.DataFrame, inputs: pd.Series) -> pd.Series:
    """Bytes of the weights, two a parameter, of the teachers behind the labels among each evaluation's inputs."""
    runs = record[record["stage"].isin(["relabel", "pretrain"])].set_index(["stage", "run"])
    read, parameters = runs["inputs"].to_dict(), runs["parameters"].to_dict()

    def size(text: str) -> float:
        labels = [key for stage, key in _runs(text) if stage == "relabel"]
        teachers = [run for key in labels for run in _runs(read.get(("relabel", key), "")) if run[0] == "pretrain"]
        return 2 * sum(float(parameters.get(run, np.nan)) for run in teachers) if teachers else np.nan

    return inputs.map(size).astype("Float64").astype("Int64")


def _runs(inputs: str) -> list[tuple[str, str]]:
    """Stage and key of every run in a cell of the record's column ``inputs``."""
    return [(stage, key) for stage, _, key in (text.partition("=")[0].partition("/") for text in inputs.split())]


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


def by_regime(plain: pd.DataFrame, regime: str) -> pd.DataFrame:
    """The evaluation of every cell under static or hard labels, by the standard protocol where several ran."""
    rows = plain[plain["regime"] == regime]
    standard = rows["protocol"] == STANDARD[regime]
    rows = rows[standard | ~standard.groupby([rows[name] for name in CELL]).transform("any")]
    if alike := two_alike(rows, CELL):
        raise EdcError(
            f"{PATH}: run {alike[1]!r} is a second evaluation of the same images with {regime} labels beside "
            f"{alike[0]!r}; expected one of them under protocol {STANDARD[regime]!r}"
        )
    return rows


def with_baseline(rows: pd.DataFrame, random: pd.DataFrame, keys: list[str], score: str = "final") -> pd.DataFrame:
    """Lines beside their baseline: that of ``random`` with the same keys.

    Adds baseline_mean and baseline_std; improvement; improvement_low and improvement_high, its 95 % interval, empty
    with one seed; and clear: whether there is an interval and 0 is not in it ("yes" or "no").
    """
    compared = [name for name in (f"{score}_mean", f"{score}_std", *SIDES) if name in random]
    beside = random.drop_duplicates(keys)[[*keys, *compared]]
    both = rows[keys].merge(beside, how="left", on=keys).to_dict("records")
    rows = rows.reset_index(drop=True)
    for part in ("mean", "std"):
        rows[f"baseline_{part}"] = [line[f"{score}_{part}"] for line in both]
    lines = list(zip(rows.to_dict("records"), both, strict=True))
    rows["same_images"] = [same_images(*two) for two in lines]
    rows["baseline_trained"] = [line.get("trained") for line in both]
    rows["improvement"] = (rows[f"{score}_mean"] - rows["baseline_mean"]).round(DECIMALS)
    limits = [interval(*two, score) for two in lines]
    rows["improvement_low"], rows["improvement_high"] = np.array(limits, dtype=float).reshape(-1, 2).T.round(DECIMALS)
    away = (rows["improvement_low"] > 0) | (rows["improvement_high"] < 0)
    clear = pd.Series(np.where(away, "yes", "no"), rows.index)
    beside_it = rows["baseline_mean"].notna() & (rows["recipe"] != RANDOM)
    rows["clear"] = clear.where(beside_it, "")
    return rows


def same_images(first: Mapping[Any, Any], second: Mapping[Any, Any]) -> bool:
    """Whether both lines have which of the same images each student gets right."""
    stored = all(isinstance(line.get("right"), np.ndarray) for line in (first, second))
    return stored and first["test_digest"] == second["test_digest"]


def interval(first: Mapping[Any, Any], second: Mapping[Any, Any], score: str = "final") -> Interval:
    """95 % interval of one line's accuracy minus another's, in points; NaN where there is none.

    From the images that each student gets right where both lines have them, else from the differences of their pairs,
    else from spreads and sizes.
    """
    if same_images(first, second):
        return bootstrap(first["right"], second["right"])
    one, other = ((line[f"{score}_mean"], line[f"{score}_std"], line["seeds"]) for line in (first, second))
    sizes = (first["test_images"], second["test_images"])
    if pd.isna([*one, *other, *sizes]).any():
        return NONE
    mine, others = first.get("pairs"), second.get("pairs")
    if isinstance(mine, dict) and isinstance(others, dict) and mine.keys() == others.keys():
        differences = np.array([mine[name] - others[name] for name in mine])
        return paired(differences, sampling((one[0], other[0]), sizes))
    return from_spreads(one, other, sizes)


def finished(rows: pd.DataFrame, columns: tuple[str, ...], order: list[str]) -> pd.DataFrame:
    """A table: these columns, empty where missing, rounded, sorted by those of ``order`` with empty cells first."""
    table = rows.reindex(columns=list(columns))
    for name in table.select_dtypes("float64"):
        table[name] = table[name].round(6 if name == "share" else DECIMALS)
    for name in ("ipc", "seeds", "image_bytes", "label_bytes", "teacher_bytes", "steps"):
        if name in table:
            table[name] = table[name].astype("Int64")
    order = [name for name in order if name in columns]
    table = table.sort_values(order, na_position="first", kind="stable", ignore_index=True)
    text = table.select_dtypes(["object", "str"]).columns
    table[text] = table[text].fillna("")
    return table
