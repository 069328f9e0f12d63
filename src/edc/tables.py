"""Stage tables: what the runs found, as tidy CSV and as Markdown to read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from edc import STAGES, dag, markdown
from edc.evaluations import evaluations
from edc.params import Plan
from edc.reported import TABLES, read_figures
from edc.storage import RESULTS, fingerprint, read_json, read_manifest, sha256, write_json, write_text
from edc.tabulate import tables

COST = (
    "stage", "run", "dataset", "seconds", "device", "peak_memory_mb", "peak_gpu_memory_mb", "commit", "dirty", "torch",
)  # fmt: skip


def run(plan: Plan, key: str) -> None:
    """Write every table from every finished evaluation, and beside them what carries times: ``cost.csv``, Markdown.

    Raises:
        EdcError: a result the plan names is missing or damaged, or one found here holds a value that is not allowed.
    """
    inputs = {}
    for stage in ("evaluate", "continual", "slimming"):
        for name in getattr(plan.tables[key], stage):
            inputs[f"{stage}/{name}"] = fingerprint(read_manifest(stage, name)["files"])
    found, cost = evaluations(), costs()
    folder = RESULTS / "tables"
    made = tables(found, read_figures())
    written = {}
    for name in TABLES:
        table, path = made[name], folder / f"{name}.csv"
        write_csv(path, table.columns, table.rows)
        written[name] = {"rows": len(table.rows), "sha256": sha256(path)}
        text = markdown.table1(table, found, cost) if name == "table1" else markdown.other(name, table)
        write_text(path.with_suffix(".md"), text)
    write_csv(folder / "cost.csv", COST, cost)
    manifest = {"stage": "tables", "run": key, "params": plan.resolved("tables", key), "inputs": inputs}
    write_json(folder / key / "manifest.json", manifest | {"tables": written})
    task = next(task for task in dag.tasks(plan) if (task.stage, task.key) == ("tables", key))
    write_json(folder / key / "run.json", {"code": dag.code_digest(task)})


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Write a table as CSV, whole or not at all; None becomes an empty cell, whole numbers stay whole."""
    table = pd.DataFrame(rows, columns=list(columns), dtype=object)
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def costs() -> list[dict[str, Any]]:
    """Time, device and memory of every run that left a record."""
    rows = []
    for stage in list(STAGES)[:-1]:
        for path in sorted((RESULTS / stage).glob("*/run.json")):
            manifest = path.with_name("manifest.json")
            if manifest.exists():
                params = read_json(manifest)["params"][stage]
                row = {"stage": stage, "run": path.parent.name, "dataset": params["dataset"], **read_json(path)}
                rows.append({name: row.get(name) for name in COST})
    return rows
