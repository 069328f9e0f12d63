"""Stage tables: what the runs found, as tidy CSV, as plots, and to read as Markdown, LaTeX and HTML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from edc import STAGES, dag, figure4, markdown, render
from edc.config.plan import make_plan
from edc.config.references import load_plan
from edc.config.rows import Plan
from edc.errors import EdcError
from edc.reporting.applications import applications
from edc.reporting.evaluations import evaluations, finished
from edc.reporting.reported import FIGURES, TABLES, read_figures
from edc.reporting.tabulate import tables
from edc.storage import RESULTS, fingerprint, read_json, read_manifest, sha256, write_json, write_text

COST = (
    "stage", "run", "dataset", "seconds", "device", "peak_memory_mb", "peak_gpu_memory_mb", "commit", "dirty", "torch",
)  # fmt: skip


def run(plan: Plan, key: str) -> None:
    """Write every table and plot from every finished run, and beside them what carries times: ``cost.csv``, pages.

    Raises:
        EdcError: a result the plan names is missing or damaged, or one found here holds a value that is not allowed.
    """
    inputs = {
        f"{stage}/{name}": fingerprint(read_manifest(stage, name)["files"])
        for stage, names in plan.tables[key].model_dump().items()
        for name in names
    }
    found, cost = evaluations(), costs()
    folder = RESULTS / "tables"
    made = tables(found, read_figures()) | applications()
    # All texts are made before the first is written: bad input overwrites nothing.
    texts: dict[str, str] = {}
    for name in TABLES:
        timed, plain = page(name, made, found, cost), page(name, made, found, None)
        texts |= {f"{name}.csv": as_csv(made[name].columns, made[name].rows), f"{name}.md": render.markdown(timed)}
        texts |= {f"{name}.html": render.html(timed), f"{name}.tex": render.latex(plain)}
    texts["cost.csv"] = as_csv(COST, cost)
    for name, text in texts.items():
        write_text(folder / name, text)
    figure4.draw(folder, made)
    written = {name: {"rows": len(made[name].rows), "sha256": sha256(folder / f"{name}.csv")} for name in TABLES}
    drawn = {name: {"sha256": sha256(folder / f"{name}.png")} for name in FIGURES}
    manifest = {"stage": "tables", "run": key, "params": plan.resolved("tables", key), "inputs": inputs}
    write_json(folder / key / "manifest.json", manifest | {"tables": written, "figures": drawn})
    task = next(task for task in dag.tasks(plan) if (task.stage, task.key) == ("tables", key))
    write_json(folder / key / "run.json", {"code": dag.code_digest(task)})


def run_study(study: str) -> None:
    """The stage for a study, whichever plan is active: of ``params.yaml`` if it is that study's, else of its file.

    Raises:
        EdcError: the study is unknown, or judges its students on held-out images; or see :func:`run`.
    """
    plan = load_plan() if Path("params.yaml").exists() else None
    if plan is None or study not in plan.tables:
        plan = make_plan(study)
    if study not in plan.tables:
        raise EdcError(f"study {study!r} judges its students on held-out training images, which stand in no table")
    run(plan, study)


def page(name: str, made: dict[str, Any], found: list[Any], cost: list[dict[str, Any]] | None) -> render.Page:
    """One table to read; see :func:`edc.reporting.markdown.page`."""
    if name == "continual":
        return figure4.continual_page(made[name])
    if name == "slimming":
        return figure4.slimming_page(made[name])
    return markdown.page(name, made[name], found, cost)


def as_csv(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    """A table as CSV; None becomes an empty cell, whole numbers stay whole."""
    table = pd.DataFrame(rows, columns=list(columns), dtype=object)
    return str(table.to_csv(index=False, lineterminator="\n"))


def costs() -> list[dict[str, Any]]:
    """Time, device and memory of every run that left a record."""
    rows = []
    for stage in list(STAGES)[:-1]:
        for manifest in finished(stage):
            path = manifest.with_name("run.json")
            if path.exists():
                params = read_json(manifest)["params"][stage]
                row = {"stage": stage, "run": path.parent.name, "dataset": params["dataset"], **read_json(path)}
                if missing := [name for name in ("seconds", "device", "commit") if row.get(name) is None]:
                    raise EdcError(
                        f"{path}: damaged, no {missing[0]!r} in it; run `edc {stage} --run {row['run']}` again"
                    )
                rows.append({name: row.get(name) for name in COST})
    return rows
