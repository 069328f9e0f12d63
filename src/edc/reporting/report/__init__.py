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

import numpy as np
import pandas as pd

from edc.config.references import load_plan
from edc.config.rows import Plan
from edc.errors import EdcError
from edc.reporting import pages, record
from edc.reporting.applications import applications
from edc.reporting.evaluations import RANDOM, evaluations, with_baseline
from edc.reporting.report import pictures
from edc.reporting.report.answers import answer, costs, duration, method_of, summary
from edc.reporting.tables import SAME
from edc.storage import RESULTS, write_text

RESULT = [
    "dataset", "ipc", "student", "recipe", "variant", "protocol", "regime", "split", "seeds", "final_mean", "final_std",
    "best_mean", "best_std", "baseline_mean", "baseline_std", "improvement", "clear", "image_bytes", "label_bytes",
    "steps", "seconds", "seconds_total",
]  # fmt: skip
PROVENANCE = [
    "stage", "run", "seconds", "device", "threads", "peak_memory_mb", "peak_gpu_memory_mb", "commit", "dirty", "source",
    "version", "torch", "python",
]  # fmt: skip

NAMES = {
    "ipc": "IPC", "reported": "paper", "reported_imagenet1k": "paper, ImageNet-1k", "image_bytes": "image kB",
    "label_bytes": "label kB", "seconds": "s", "seconds_total": "s in all", "peak_memory_mb": "MB",
    "peak_gpu_memory_mb": "GPU MB",
}  # fmt: skip
HIDDEN = {"clear", "improvement_spread", "reported_student", "reported_std"}
FORMATS: dict[str, Callable[[Any], str]] = {
    "ipc": pages.images, "difference": pages.signed, "image_bytes": pages.kilobytes, "label_bytes": pages.kilobytes,
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
    cells = compared(plan, runs)
    method = method_of(cells)
    chosen = cells[cells["recipe"] == method]
    changed = (chosen["protocol"] != chosen["own_protocol"]) | (chosen["variant"] != "")
    main = chosen.assign(changed=changed).sort_values("changed", kind="stable").drop_duplicates(["dataset", "ipc"])
    usual = {"dataset": len(plan.datasets) == 1, "split": not (cells["split"] == "val").any()}
    applied = applications(runs)
    package = files("itables") / "html"
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"duration": duration, "signed": pages.signed, "spread": pages.spread, "title": pages.title}
    template = (files("edc.reporting.report") / "page.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        studies=list(plan.studies),
        method=method,
        summary=summary(chosen),
        answers=[answer(row, cells) for _, row in main.sort_index().iterrows()],
        comparison=pictures.comparison(chosen, cells),
        finished=len(once),
        earlier=int((once["source"] != "run").sum()),
        missing=[" ".join(run) for run in planned if run not in finished],
        results=grid(cells.reindex(columns=[name for name in RESULT if not usual.get(name)])),
        curves=pictures.learning_curves(cells, method),
        sheets=list(pictures.contact_sheets(plan, cells)),
        applications=[
            (pages.HEADINGS[name], pictures.application(name, applied), grid(table))
            for name, table in applied.items()
            if len(table)
        ],
        analyses=pictures.analyses(plan),
        tables=saved_tables(),
        provenance=grid(once[PROVENANCE]),
        style=(package / "dt_bundle.css").read_text(encoding="utf-8"),
        bundle=base64.b64encode((package / "dt_bundle.js").read_bytes()).decode(),
    )


def compared(plan: Plan, runs: pd.DataFrame) -> pd.DataFrame:
    """The plan's evaluations in its order, with baselines among them and what each took from the observers on."""
    lines = []
    for split in ("test", "val"):
        cells = evaluations(runs, split).assign(split=split)
        lines.append(with_baseline(cells, cells[cells["recipe"] == RANDOM], SAME))
    cells = pd.concat([part for part in lines if len(part)] or lines[:1], ignore_index=True)
    cells.loc[cells["recipe"] == RANDOM, ["baseline_mean", "baseline_std", "improvement"]] = np.nan
    taken = [costs(plan, runs, key) for key in cells["run"]]
    cells = pd.concat([cells, pd.DataFrame(taken, cells.index)], axis="columns")
    return cells.sort_values("run", key=lambda keys: keys.map(list(plan.evaluate).index), ignore_index=True)


def saved_tables() -> list[tuple[str, str, Grid, int]]:
    """``results/tables``: name, heading, the lines that ran here, and the number of the paper's cells that did not."""
    tables = []
    for path in sorted((RESULTS / "tables").glob("*.csv")):
        try:
            table = pd.read_csv(path, keep_default_na=False, na_values=[""])
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError):
            raise EdcError(f"{path}: damaged, expected a CSV table; run `edc tables`") from None
        ran = table[table["seeds"].notna()] if "seeds" in table else table
        if len(ran):
            tables.append((path.stem, pages.HEADINGS.get(path.stem, path.stem), grid(ran), len(table) - len(ran)))
    return tables


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
    elif name == "improvement":
        text = {"yes": pages.signed(value), "no": f"({pages.signed(value)})"}.get(row.get("clear", ""), "")
    elif name in FORMATS:
        text = FORMATS[name](value)
    else:
        text = f"{value:,.0f}" if value > 1000 or value == int(value) else f"{value:.4g}"
    return text, float(value)
