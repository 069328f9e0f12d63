"""``edc report``: one page on the active plan that needs nothing but a browser.

Everything comes from the record ``results/runs.csv`` and from ``results/tables/*.csv``; learning curves, condensed
images and analyses from ``runs/``, or, as far as they are kept there, from ``results/``.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from edc.config.references import load_plan
from edc.config.rows import Plan
from edc.errors import EdcError
from edc.reporting import correctness, pages, record
from edc.reporting.answer import answer_page, answers, compared, legend, method_of
from edc.reporting.applications import applications
from edc.reporting.evaluations import evaluations
from edc.reporting.figure2 import HISTORIES, figure2, kept, recorded
from edc.reporting.figures import accuracy_over_bytes, accuracy_over_ipc
from edc.reporting.paper import read_reported
from edc.reporting.quality import quality
from edc.reporting.report import pictures
from edc.reporting.tables import tables
from edc.storage import write_text

RESULT = [
    "dataset", "ipc", "student", "recipe", "variant", "protocol", "regime", "split", "seeds", "final_mean", "final_std",
    "best_mean", "best_std", "trained", "baseline_mean", "baseline_std", "improvement", "clear", "image_bytes",
    "label_bytes", "steps", "seconds", "seconds_total",
]  # fmt: skip
PROVENANCE = [
    "stage", "run", "seconds", "device", "threads", "peak_memory_mb", "peak_gpu_memory_mb", "commit", "dirty", "source",
    "version", "torch", "python",
]  # fmt: skip

NAMES = {
    "ipc": "IPC", "reported": "paper", "reported_imagenet1k": "paper, ImageNet-1k", "image_bytes": "image kB",
    "label_bytes": "label kB", "teacher_bytes": "teacher kB", "seconds": "s", "seconds_total": "s in all",
    "peak_memory_mb": "MB", "peak_gpu_memory_mb": "GPU MB",
}  # fmt: skip
HIDDEN = {
    *pages.CLEAR.values(), "trained", "change_low", "change_high", "improvement_low", "improvement_high",
    "relative_low", "relative_high", "with_choice_std", "without_choice_std",
    "reported_student", "reported_std", "reported_source",
}  # fmt: skip
FORMATS: dict[str, Callable[[Any], str]] = {
    "ipc": pages.images, "difference": pages.signed, "image_bytes": pages.kilobytes, "label_bytes": pages.kilobytes,
    "teacher_bytes": pages.kilobytes, "share": pages.fraction,
    "seconds": "{:,.1f}".format, "seconds_total": "{:,.1f}".format,
}  # fmt: skip
Cell = tuple[str, float | None]
Grid = tuple[list[tuple[str, bool]], list[tuple[Cell, ...]]]
"""Heads with whether their column holds numbers, and rows of text with the number to sort by."""


def write_report(to: Path) -> str:
    """Write the report as HTML, and say so in one line; an older one stays if that fails. Equal results, equal bytes.

    Raises:
        EdcError: there is no plan, no run of it is in the record, or a file is damaged.
    """
    text = page(load_plan(), record.comparable(record.read()))
    write_text(to, text)
    return f"wrote {to}: {len(text.encode()) / 1e6:.1f} MB"


def page(plan: Plan, runs: pd.DataFrame) -> str:
    """The page as HTML: only the plan's runs of the record are shown, except in the tables of everything."""
    from jinja2 import Environment

    planned = [(stage, key) for stage in record.STAGES for key in getattr(plan, stage)]
    runs = runs[pd.MultiIndex.from_frame(runs[["stage", "run"]]).isin(planned)]
    if runs.empty:
        studies = ", ".join(plan.studies)
        raise EdcError(f"{record.PATH}: no run of the plan's studies ({studies}); make them with `dvc repro`")
    once = runs.drop_duplicates(["stage", "run"])
    finished = set(once[["stage", "run"]].itertuples(index=False, name=None))
    courses = pictures.histories()
    right = correctness.by_run(correctness.read(), runs)
    cells = compared(plan, runs, right, courses)
    method = method_of(cells)
    answered = answers(plan, cells)
    usual = {"dataset": len(plan.datasets) == 1, "split": not (cells["split"] == "val").any()}
    applied = applications(runs)
    made = tables(evaluations(runs, "test", right, courses), read_reported())
    made["figure2"] = figure2(recorded({name: kept(name) for name in HISTORIES}, runs))
    pictured = [(name, pictures.application(name, applied), table) for name, table in applied.items() if len(table)]
    if len(stored := made["equal_bytes"]):
        pictured.append(("equal_bytes", pictures.drawn(accuracy_over_bytes(stored)), stored))
    package = files("itables") / "html"
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = (files("edc.reporting.report") / "page.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        studies=list(plan.studies),
        method=method,
        answers=[
            (a.heading, a.sentences, grid(a.verdicts), pictures.drawn(accuracy_over_ipc({a.heading: a.cells})))
            for a in answered
        ],
        legend=[meaning.replace("*", "") for meaning in legend([answer_page(answered)])],
        finished=len(once),
        earlier=int((once["source"] != "run").sum()),
        missing=[" ".join(run) for run in planned if run not in finished],
        results=grid(cells.reindex(columns=[name for name in RESULT if not usual.get(name)])),
        curves=pictures.learning_curves(cells, method),
        sheets=list(pictures.contact_sheets(plan, cells)),
        pictured=[(pages.HEADINGS[name], picture, grid(table)) for name, picture, table in pictured],
        analyses=pictures.analyses(plan),
        tables=shown_tables(made | applied | {"quality": quality(runs)}),
        provenance=grid(once[PROVENANCE]),
        style=(package / "dt_bundle.css").read_text(encoding="utf-8"),
        bundle=base64.b64encode((package / "dt_bundle.js").read_bytes()).decode(),
    )


def shown_tables(made: dict[str, pd.DataFrame]) -> list[tuple[str, str, Grid, int]]:
    """Name, heading, the lines that ran here, and the number of the paper's cells that did not."""
    shown = []
    for name, table in made.items():
        ran = table[table["seeds"].notna()] if "seeds" in table else table
        if len(ran):
            shown.append((name, pages.HEADINGS[name], grid(ran), len(table) - len(ran)))
    return shown


def grid(frame: pd.DataFrame) -> Grid:
    """A frame as a table to read: mean and deviation in one cell, bytes in kB, columns without values left out."""
    heads, columns = [], []
    for name in frame.columns:
        values, mean = frame[name], name.removesuffix("_mean")
        beside = name.endswith("_std") and f"{name.removesuffix('_std')}_mean" in frame
        if beside or name in HIDDEN or (values.isna() | (values == "")).all():
            continue
        numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        heads.append((NAMES.get(mean, mean.replace("_", " ")), numeric))
        columns.append([cell(row, name, numeric) for row in frame.to_dict("records")])
    return heads, list(zip(*columns, strict=True))


def cell(row: dict[Any, Any], name: str, numeric: bool) -> Cell:
    """Text and number of one cell."""
    value = row[name]
    if pd.isna(value) or value == "":
        return "", None
    if not numeric:
        return (str(value)[:7] if name == "commit" else str(value)), None
    if name.endswith("_mean") or name == "reported":
        text = pages.spread(value, row.get(f"{name.removesuffix('_mean')}_std", float("nan")))
        text += pages.untrained(row, " ({})") if name == "final_mean" and "trained" in row else ""
    elif name in ("with_choice", "without_choice"):
        text = pages.three_digits(value, row[f"{name}_std"])
    elif name in pages.CLEAR:
        text = {"yes": pages.signed(value), "no": f"({pages.signed(value)})"}.get(row.get(pages.CLEAR[name], ""), "")
    elif name in FORMATS:
        text = FORMATS[name](value)
    else:
        text = f"{value:,.0f}" if value > 1000 or value == int(value) else f"{value:.4g}"
    return text, float(value)
