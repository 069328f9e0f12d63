"""Tables of results as HTML that sorts: means with their deviations, the best in bold, the paper's cells apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from edc.reporting.markdown import Rows, bests, images, parted, plus_minus, shown, signed, title
from edc.reporting.report.gather import TEXTS
from edc.reporting.report.markup import Html, element, join
from edc.reporting.report.notes import Notes
from edc.reporting.reported import DATASETS
from edc.reporting.tabulate import RANDOM, Table

HEADS = {
    "ipc": "IPC", "final_mean": "final", "best_mean": "best", "static_mean": "fixed labels", "hard_mean": "hard labels",
    "random_mean": "random", "reported": "paper", "reported_imagenet1k": "IN-1k", "image_bytes": "image kB",
    "label_bytes": "label kB", "seconds": "s", "seconds_to_make": "s to make", "peak_memory_mb": "MB",
    "peak_gpu_memory_mb": "GPU MB", "real_hard": "real, hard", "condensed_hard": "condensed, hard",
    "condensed_own": "condensed, own", "random_own": "random, own", "run_id": "run id", "pruned_mean": "as cut",
    "finetuned_mean": "fine-tuned",
}  # fmt: skip
FRACTIONS = {"hlr", "ior", "lrs", "real_hard", "condensed_hard", "condensed_own", "random_own"}
RATED = {"final_mean", "best_mean", "static_mean", "hard_mean", "accuracy_mean", "average_mean", "finetuned_mean"}
"""Columns whose best is in bold."""
WITHIN = ("dataset", "ipc", "student")
APPLIED = ("regime", "steps", "step", "sparsity", "epochs", "finetune", "ratio")
"""Rows with the same of these compete for the bold type."""


@dataclass(frozen=True)
class Cell:
    """What stands in a cell, the number it is sorted by, and marks of footnotes."""

    shown: object
    value: float | None = None
    best: bool = False
    marks: Html | None = None


def sections(name: str, table: Table, notes: Notes) -> list[object]:
    """One table of results: a part for every dataset, and the paper's cells that did not run here."""
    if name == "cross":
        return crossed(table.rows)
    ran, not_run = parted(table.rows) if {"seeds", "final_mean"} <= set(table.columns) else (table.rows, [])
    apart = "dataset" in table.columns and name != "cost"
    columns = [column for column in merged(table.columns) if not (apart and column == "dataset")]
    columns = [column for column in columns if column != "variant" or any(row[column] for row in table.rows)]
    parts: list[object] = []
    for dataset, part in groupby(ran, key=lambda row: str(row["dataset"]) if apart else ""):
        rows = list(part)
        heading = title(dataset) if apart else ""
        parts.append(element("h4", heading) if heading else None)
        parts.append(table_of(f"{name} {heading}".strip(), columns, cells(columns, rows, notes)))
    if not ran:
        parts.append(element("p", "Nothing of this table ran here."))
    if not_run:
        parts.append(absent(name, not_run, notes))
    return parts


def merged(columns: Sequence[str]) -> list[str]:
    """The columns that are shown, in order: a deviation stands with its mean, a figure's student with the figure."""
    means = {column.removesuffix("_mean") for column in columns}
    columns = sorted(columns, key=rank)
    return [
        c for c in columns if not (c.endswith("_std") and c.removesuffix("_std") in means) and c != "reported_student"
    ]


def rank(column: str) -> int:
    """What a reader looks for first: which cell, its accuracies, random images and the paper beside it, its cost."""
    groups = (
        column in TEXTS or column == "ipc",
        column in ("step", "classes", "ratio"),
        column in RATED or column in ("pruned_mean", "forgetting_mean"),
        column in ("random_mean", "gain"),
        column in ("reported", "difference", "reported_imagenet1k"),
    )
    return groups.index(True) if True in groups else len(groups)


def cells(columns: Sequence[str], rows: Rows, notes: Notes) -> list[list[Cell]]:
    """Every row's cells."""
    winners = best(columns, rows)
    return [[cell(row, column, (id(row), column) in winners, notes) for column in columns] for row in rows]


def cell(row: Mapping[str, Any], column: str, is_best: bool, notes: Notes) -> Cell:
    """One cell as a reader sees it."""
    value = row[column]
    if value is None or (row.get("recipe") == RANDOM and column in ("random_mean", "gain")):
        return Cell("")
    if isinstance(value, str):
        return Cell(element("code", value[:10]) if column == "commit" else named(row, column))
    if column.endswith("_bytes"):
        return Cell(f"{value / 1000:,.1f}", value)
    if column in ("gain", "difference"):
        return Cell(signed(value), value)
    if column.startswith("seconds"):
        return Cell(f"{value:,.1f}", value)
    if column == "ratio":
        return Cell(f"{value:.0%}", value)
    if column in ("reported", "reported_imagenet1k", "ipc") or column.endswith("_mean"):
        return Cell(shown(row, column), value, is_best, notes.marks(row) if column == "reported" else None)
    return Cell(f"{value:.4f}" if column in FRACTIONS else f"{value:,}", value, is_best)


def named(row: Mapping[str, Any], column: str) -> str:
    """A name; a dataset by its title, which is the paper's where only the paper has the cell."""
    value = str(row[column])
    if column != "dataset":
        return value
    return DATASETS.get(value, value) if row.get("seeds", 0) is None else title(value)


def best(columns: Sequence[str], rows: Rows) -> set[tuple[int, str]]:
    """Identities of rows and columns that are best among rows of the same dataset, number of images and student."""
    groups = [*WITHIN, *(name for name in APPLIED if rows and name in rows[0] and "final_mean" not in columns)]
    rated = [column for column in columns if column in RATED]
    return {(row, column) for column in rated for row in bests(rows, column.removesuffix("_mean"), groups)}


def crossed(rows: Rows) -> list[object]:
    """A grid of recipes and protocols for every dataset, number of images and student."""
    parts: list[object] = []
    for (dataset, ipc, student), part in groupby(rows, key=lambda row: tuple(row[name] for name in WITHIN)):
        mine = list(part)
        found = {(row["recipe"], row["protocol"]): row for row in mine}
        recipes, protocols = (list(dict.fromkeys(names)) for names in zip(*found, strict=True))
        top = set().union(*(bests([row for row in mine if row["protocol"] == p], "final") for p in protocols))
        body = []
        for recipe in recipes:
            line = [Cell(recipe)]
            for protocol in protocols:
                row = found.get((recipe, protocol))
                line.append(
                    Cell("") if row is None else Cell(plus_minus(row, "final"), row["final_mean"], id(row) in top)
                )
            body.append(line)
        heading = f"{title(dataset)}, IPC {images(ipc)}, {student}"
        parts += [element("h4", heading), table_of(f"cross {heading}", ["recipe", *protocols], body)]
    return parts or [element("p", "Nothing was crossed here.")]


def absent(name: str, rows: Rows, notes: Notes) -> Html:
    """The paper's cells without anything of ours, folded."""
    columns = [c for c in ("dataset", "ipc", "student", "recipe", "variant", "final_mean", "reported") if c in rows[0]]
    columns = [column for column in columns if column != "variant" or any(row[column] for row in rows)]
    count = f"{len(rows)} cell{'s' if len(rows) > 1 else ''} of the paper that did not run here"
    inner = table_of(f"{name}, not run here", columns, cells(columns, rows, notes))
    return element("details", element("summary", count), inner)


def table_of(caption: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Html:
    """A table in a box it scrolls in.

    Args:
        caption: what a screen reader calls it.
        columns: names; sorting is by their cells' numbers, or by text where none has one.
        rows: their cells.
    """
    numeric = {i for i in range(len(columns)) if any(row[i].value is not None for row in rows)}
    classes = ["n" if i in numeric else None for i in range(len(columns))]
    top = [
        element("th", element("span", head(column)), scope="col", aria_sort="none", class_=classes[i])
        for i, column in enumerate(columns)
    ]
    name = next((i for i, column in enumerate(columns) if column in ("recipe", "run")), 0)
    body = []
    for row in rows:
        line = []
        for i, one in enumerate(row):
            inner = element("strong", one.shown) if one.best else one.shown
            given = {"class_": classes[i], "data_value": one.value}
            if i == name:
                line.append(element("th", inner, one.marks, scope="row", **given))
            else:
                line.append(element("td", inner, one.marks, **given))
        body.append(element("tr", *line))
    parts = (element("thead", element("tr", *top)), element("tbody", join(body)))
    made = element("table", *parts, class_="sortable", aria_label=caption)
    about = f"{caption}, scrolls sideways"
    return element("div", made, class_="scroll", tabindex="0", role="region", aria_label=about)


def head(column: str) -> str:
    """What stands above a column."""
    return HEADS.get(column, column.removesuffix("_mean"))
