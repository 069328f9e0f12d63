"""``results/runs.csv``, the record of runs: one row per run and seed. Every table and figure is made from it.

Continual learning has a row per order, seed and step, slimming one per seed and ratio. Rows of runs that are not on
this machine stay, so a fresh clone makes every table without any run folder. Accuracies are in percent.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from edc.errors import EdcError
from edc.storage import MADE_FROM, RESULTS, read_text, write_text

PATH = RESULTS / "runs.csv"

TEXT, FLAG, INTEGER, NUMBER = "text", "True or False", "a whole number", "a number"
DTYPES: dict[str, Any] = {TEXT: "object", FLAG: "boolean", INTEGER: "Int64", NUMBER: "float64"}
PERCENT, DIFFERENCE, COUNT = (0, 100), (-100, 100), (0, np.inf)
STAGES = ("pretrain", "statistics", "synthesize", "relabel", "evaluate", "continual", "slimming", "analysis")
SOURCES = ("run", "earlier", "other data")
DECIMALS = 6

Columns = dict[str, tuple[str, Any]]
"""Name of a column -> its kind, and the range or the values it may have."""

COLUMNS: Columns = {
    "stage": (TEXT, STAGES), "run": (TEXT, None), "dataset": (TEXT, None), "family": (TEXT, None),
    "subset": (FLAG, None), "recipe": (TEXT, None), "variant": (TEXT, None), "changed": (FLAG, None),
    "protocol": (TEXT, None), "own_protocol": (TEXT, None), "regime": (TEXT, ("", "soft", "static", "hard")),
    "ipc": (INTEGER, COUNT), "student": (TEXT, None), "split": (TEXT, ("", "test", "val")), "seed": (INTEGER, COUNT),
    "order": (INTEGER, COUNT), "step": (INTEGER, COUNT), "classes": (INTEGER, COUNT), "ratio": (NUMBER, (0, 1)),
    "accuracy": (NUMBER, PERCENT), "best_accuracy": (NUMBER, PERCENT), "accuracy_before": (NUMBER, PERCENT),
    "forgetting": (NUMBER, DIFFERENCE), "average_accuracy": (NUMBER, PERCENT), "val_accuracy": (NUMBER, PERCENT),
    "agreement": (NUMBER, PERCENT), "test_images": (INTEGER, COUNT), "epochs": (INTEGER, COUNT),
    "batch": (INTEGER, COUNT), "precision": (TEXT, None), "steps": (INTEGER, COUNT), "image_bytes": (INTEGER, COUNT),
    "label_bytes": (INTEGER, COUNT), "channels": (INTEGER, COUNT), "parameters": (INTEGER, COUNT),
    "macs": (INTEGER, COUNT), "within_cosine": (NUMBER, (-1, 1)), "density": (NUMBER, COUNT),
    "coverage": (NUMBER, (0, 1)), "nearest": (NUMBER, COUNT), "sparsity": (NUMBER, COUNT),
    "finetune": (INTEGER, COUNT), "keep": (NUMBER, (0, 1)), "pretrained": (FLAG, None), "training": (TEXT, None),
    "dataset_digest": (TEXT, None), "test_digest": (TEXT, None), "digest": (TEXT, None), "inputs": (TEXT, None),
    "version": (INTEGER, COUNT), "seconds": (NUMBER, COUNT), "device": (TEXT, None), "threads": (INTEGER, COUNT),
    "peak_memory_mb": (INTEGER, COUNT), "peak_gpu_memory_mb": (INTEGER, COUNT), "commit": (TEXT, None),
    "dirty": (FLAG, None), "torch": (TEXT, None), "python": (TEXT, None), "source": (TEXT, SOURCES),
}  # fmt: skip
QUALITY = ("within_cosine", "density", "coverage", "nearest")
"""Columns of condensed sets' quality."""
NEWER = (*QUALITY, "keep", "pretrained")
"""Columns that records of earlier versions do not have."""
KEYS = ["stage", "run", "seed", "order", "step", "ratio"]
"""What tells rows apart, in the order they are sorted by."""
ENVIRONMENT = [
    "seconds", "device", "threads", "peak_memory_mb", "peak_gpu_memory_mb", "commit", "dirty", "torch", "python",
]  # fmt: skip
"""Columns of ``run.json``, which DVC does not carry."""


def read() -> pd.DataFrame:
    """The record, empty where there is none. Text is "" where it is missing, numbers and flags are NaN or NA.

    Raises:
        EdcError: a column is missing, or a value is not what its column holds.
    """
    return sort(read_csv(PATH, COLUMNS, restoring(PATH), NEWER, kept=True))


def seconds() -> dict[tuple[str, str], float]:
    """Seconds that each run took, by stage and key."""
    runs = read().drop_duplicates(["stage", "run"]).dropna(subset="seconds")
    return {(stage, run): float(value) for stage, run, value in runs[["stage", "run", "seconds"]].to_numpy()}


def write(frame: pd.DataFrame) -> None:
    """Write the record: equal rows give equal bytes."""
    write_text(PATH, sort(frame)[list(COLUMNS)].to_csv(index=False, lineterminator="\n"))


def merge(old: pd.DataFrame, new: pd.DataFrame, versions: Mapping[str, int] | None = None) -> pd.DataFrame:
    """The record with the runs that are on this machine.

    A run's new rows replace all its old ones, unless they are of an earlier version than these. Where ``run.json`` is
    missing and the files are the same as the record's, the record's device, commit and versions stay. Rows of an
    earlier version of their stage become ``earlier``, those of other images of a dataset than its current ones
    (:func:`_current_data`) ``other data``.

    Args:
        old: the record.
        new: of :func:`edc.reporting.collect.collect`, in the order of the pipeline.
        versions: of the stages' numerics now, by stage.
    """
    run = ["stage", "run"]
    recorded = old.groupby(run, as_index=False)["version"].max()
    known = new[run].merge(recorded, how="left", on=run)["version"].set_axis(new.index)
    new = new[~(new["version"] < known).fillna(False)]
    others = old[~pd.MultiIndex.from_frame(old[run]).isin(pd.MultiIndex.from_frame(new[run]))]
    columns = [*ENVIRONMENT, "training"]
    rows = new.merge(old[[*KEYS, "digest", *columns]], how="left", on=[*KEYS, "digest"], suffixes=("", "_old"))
    for name in columns:
        rows[name] = rows[name].where(rows[name].notna() & (rows[name] != ""), rows[f"{name}_old"])
    frame = pd.concat([part for part in (others, rows[list(COLUMNS)]) if len(part)] or [new], ignore_index=True)
    current = frame["stage"].map(versions or {}).astype("Int64")
    frame.loc[(frame["source"] == "run") & (frame["version"] < current).fillna(False), "source"] = "earlier"
    return sort(typed(_other_data(frame, old, new), COLUMNS, str(PATH)))


def _other_data(frame: pd.DataFrame, old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Mark the rows of other images than the current ones; unmark those whose images came back."""
    known = other = pd.Series(False, frame.index)
    for column, groups in (("dataset_digest", ["dataset"]), ("test_digest", ["dataset", "split"])):
        digests = _current_data(old[old[column] != ""], new[new[column] != ""], [*groups, column])
        current = frame[groups].merge(digests, how="left", on=groups)[column].set_axis(frame.index)
        compared = current.notna() & (frame[column] != "")
        known, other = known | compared, other | (compared & (frame[column] != current))
    frame.loc[known & ~other & (frame["source"] == "other data"), "source"] = "earlier"
    frame.loc[other, "source"] = "other data"
    return frame


def _current_data(old: pd.DataFrame, new: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Which images of a dataset are the current ones: one row of ``columns`` for each, the last of which has digests.

    Those of a run made since the record was written, if they are not the record's; else the record's; in an empty
    record those of the run that is first in the pipeline, for changed images are read there first. Times of files play
    no part, for Git and DVC do not keep them.
    """
    recorded = old.loc[old["source"] != "other data", columns].drop_duplicates()
    run = ["stage", "run", columns[-1]]
    made = new.loc[~pd.MultiIndex.from_frame(new[run]).isin(pd.MultiIndex.from_frame(old[run])), columns]
    changed = made[~pd.MultiIndex.from_frame(made).isin(pd.MultiIndex.from_frame(recorded))]
    return pd.concat([changed, recorded, new[columns]]).drop_duplicates(columns[:-1])


def comparable(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of one version of each dataset; a line on standard error names the others, which are left out."""
    other = frame["source"] == "other data"
    for dataset, rows in frame[other].groupby("dataset"):
        names = rows["run"].drop_duplicates()
        print(
            f"edc: {PATH}: {len(names)} run(s) of other images of dataset {dataset!r} than the current ones are left "
            f"out of the tables, {names.iloc[0]} first; run them again",
            file=sys.stderr,
        )
    return frame[~other]


def sort(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows in the order of the pipeline, then of the keys; no key twice.

    Raises:
        EdcError: two rows have the same keys.
    """
    if (twice := frame.duplicated(KEYS)).any():
        row = frame[twice].iloc[0]
        keys = ", ".join(f"{name} {row[name]}" for name in KEYS[2:] if pd.notna(row[name]))
        raise EdcError(f"{PATH}: {row['stage']} {row['run']}: two rows for {keys or 'the run'}; delete one")
    order = frame["stage"].map(STAGES.index)
    frame = frame.assign(_order=order).sort_values(["_order", *KEYS[1:]], kind="stable", ignore_index=True)
    return frame.drop(columns="_order")


def history(name: str) -> Path:
    """The file of one of the histories that are kept beside the record."""
    return RESULTS / "histories" / f"{name}.csv"


def restoring(path: Path) -> str:
    """What to do about a damaged file of ``results/`` that is kept in Git."""
    return f"repair it, or restore it as it was committed with `git checkout {path}`, then `edc tables`"


def read_csv(path: Path, columns: Columns, remedy: str, newer: Sequence[str] = (), kept: bool = False) -> pd.DataFrame:
    """A CSV file with checked columns, empty where there is none; ``newer`` ones may be missing.

    Raises:
        EdcError: a column is missing, or a value is not what its column holds; ``remedy`` says what to do about it. Or
            a file with rows of other plans, ``kept``, is missing although the tables here were made from one.
    """
    text = read_text(path)
    if text is None and kept and MADE_FROM.exists():
        raise EdcError(
            f"{path}: no such file, but {MADE_FROM.parent} was made from one; restore it as it was committed with "
            f"`git checkout {path}`, or delete {MADE_FROM} to begin a new one"
        )
    if text is None:
        return typed(pd.DataFrame(columns=list(columns), dtype=object), columns, str(path))
    header, *rows = list(csv.reader(io.StringIO(text))) or [[]]
    if missing := [name for name in columns if name not in (*header, *newer)]:
        raise EdcError(f"{path}: damaged, no column {missing[0]!r}; {remedy}")
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise EdcError(f"{path}: line {number}: {len(row)} values for {len(header)} columns; {remedy}")
    return typed(pd.DataFrame(rows, columns=header), columns, str(path), lambda i: f"line {i + 2}")


def typed(frame: pd.DataFrame, columns: Columns, where: str, place: Callable[[int], str] | None = None) -> pd.DataFrame:
    """A frame with these columns, each checked and of its type; a missing column or value is empty.

    Raises:
        EdcError: a value is not what its column holds; ``place`` says in which row, else its first two values do.
    """
    frame = frame.reindex(columns=list(columns)).astype(object).reset_index(drop=True)
    typed_columns = {}
    for name, (kind, allowed) in columns.items():
        typed_columns[name], wrong, expected = _typed(frame[name], kind, allowed)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            at = place(row) if place else " ".join(map(str, frame.iloc[row, :2]))
            raise EdcError(f"{where}: {at}: {name} = {frame[name][row]!r}: expected {expected}")
    return pd.DataFrame(typed_columns)


def _typed(values: pd.Series, kind: str, allowed: Sequence[Any] | None) -> tuple[pd.Series, pd.Series, str]:
    """A column in its type, which of its values are wrong, and what was expected instead."""
    missing = values.isna() | (values == "")
    if kind == TEXT:
        values = values.mask(missing, "")
        if allowed is not None:
            return values, ~values.isin(allowed), "one of: " + ", ".join(filter(None, allowed))
        return values, ~values.map(lambda value: isinstance(value, str)), kind
    if kind == FLAG:
        values = values.map({True: True, False: False, "True": True, "False": False})
        return values.astype(DTYPES[kind]), values.isna() & ~missing, kind
    assert allowed is not None
    numbers = pd.to_numeric(values.mask(missing, None), errors="coerce").astype("float64").round(DECIMALS)
    wrong = ~missing & ~(numbers.between(*allowed) & np.isfinite(numbers))
    if kind == INTEGER:
        wrong |= ~missing & (numbers % 1 != 0)
        numbers = numbers.where(~wrong)
    upper = f" to {allowed[1]}" if np.isfinite(allowed[1]) else " on"
    return numbers.astype(DTYPES[kind]), wrong, f"{kind} from {allowed[0]}{upper}"
