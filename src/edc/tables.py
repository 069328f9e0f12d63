"""Stage tables: what the runs found, as tidy CSV and as Markdown to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from edc import STAGES, dag
from edc.errors import EdcError
from edc.params import Plan
from edc.storage import RESULTS, fingerprint, read_json, read_manifest, sha256, write_json, write_text
from edc.studies import read

COLUMNS = [
    "dataset", "recipe", "protocol", "ipc", "student", "seeds", "last_mean", "last_std", "best_mean", "best_std",
    "fixed_mean", "fixed_std", "hard_mean", "hard_std", "reported", "reported_std", "difference", "image_bytes",
    "label_bytes", "steps",
]  # fmt: skip
KEY = ["dataset", "recipe", "ipc", "student"]
COST = [
    "stage",
    "run",
    "dataset",
    "seconds",
    "device",
    "peak_memory_mb",
    "peak_gpu_memory_mb",
    "commit",
    "dirty",
    "torch",
]


def run(plan: Plan, key: str) -> None:
    """Write ``table1.csv`` from every finished evaluation, and beside it what carries times: ``cost.csv``, Markdown."""
    inputs = {}
    for name in plan.tables[key].evaluate:
        inputs[f"evaluate/{name}"] = fingerprint(read_manifest("evaluate", name)["files"])
    folder = RESULTS / "tables"
    results = evaluations()
    table = table1(results)
    cost = costs()
    write_csv(folder / "table1.csv", table)
    write_csv(folder / "cost.csv", cost)
    write_text(folder / "table1.md", markdown(table, cost, results))
    manifest = {"stage": "tables", "run": key, "params": plan.resolved("tables", key), "inputs": inputs}
    write_json(folder / key / "manifest.json", manifest | {"rows": len(table), "sha256": sha256(folder / "table1.csv")})
    task = next(task for task in dag.tasks(plan) if (task.stage, task.key) == ("tables", key))
    write_json(folder / key / "run.json", {"code": dag.code_digest(task)})


def title(dataset: str) -> str:
    """How a dataset is called beside its numbers."""
    try:
        return str(read("datasets", dataset).title)
    except EdcError:
        return dataset  # its file is gone, its results are not


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, whole or not at all."""
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def evaluations() -> pd.DataFrame:
    """One row per finished evaluation, of every study that ran here.

    Raises:
        EdcError: a manifest is damaged or holds an accuracy outside 0 to 100.
    """
    rows = []
    for path in sorted((RESULTS / "evaluate").glob("*/manifest.json")):
        manifest = read_json(path)
        try:
            params, scores = manifest["params"]["evaluate"], manifest["scores"]
            row: dict[str, Any] = {name: params[name] for name in ("dataset", "recipe", "protocol", "ipc", "student")}
            row |= {name: scores[name] for name in ("last_mean", "last_std", "best_mean", "best_std")}
            row |= {name: manifest[name] for name in ("image_bytes", "label_bytes", "steps")}
        except (KeyError, TypeError) as error:
            raise EdcError(f"{path}: missing {error}; run `edc evaluate --run {path.parent.name}` again") from None
        for name in ("last_mean", "best_mean"):
            if not 0 <= row[name] <= 100:
                raise EdcError(f"{path}: scores.{name} = {row[name]}: expected a percentage, 0 to 100")
        row |= {"run": path.parent.name, "regime": params["regime"], "seeds": len(params["seeds"])}
        rows.append(row)
    if not rows:
        raise EdcError(f"{RESULTS / 'evaluate'}: no finished evaluation; run `edc evaluate` first")
    return pd.DataFrame(rows)


def table1(results: pd.DataFrame) -> pd.DataFrame:
    """Accuracy under soft labels renewed every epoch, with the other two label regimes of the same images beside it.

    Accuracies in percent, mean and standard deviation over seeds, rounded to two decimals.
    """
    soft = results["regime"] == "soft"
    cells = pd.MultiIndex.from_frame(results[KEY])
    # Images that no soft-label protocol judged have a row of their own, empty where nothing ran.
    alone = results[~soft & ~cells.isin(cells[soft])].drop_duplicates(KEY).copy()
    alone[["last_mean", "last_std", "best_mean", "best_std"]] = float("nan")
    table = pd.concat([results[soft], alone]) if len(alone) else results[soft]
    for regime in ("fixed", "hard"):
        other = results[results["regime"] == regime]
        repeated = other[other.duplicated(KEY)]
        if len(repeated):
            raise EdcError(
                f"results/evaluate/{repeated['run'].iloc[0]}: a second {regime}-label row for the same images"
            )
        names = {"last_mean": f"{regime}_mean", "last_std": f"{regime}_std"}
        table = table.merge(other[[*KEY, *names]].rename(columns=names), on=KEY, how="left")
    for column in ("reported", "reported_std", "difference"):
        table[column] = None
    table = table.sort_values(["dataset", "ipc", "student", "recipe", "protocol"])
    accuracies = [c for c in COLUMNS if c.endswith(("_mean", "_std"))]
    table[accuracies] = table[accuracies].astype(float).round(2)
    return table[COLUMNS]


def costs() -> pd.DataFrame:
    """Time, device and memory of every run that left a record."""
    rows = []
    for stage in list(STAGES)[:-1]:
        for path in sorted((RESULTS / stage).glob("*/run.json")):
            manifest = path.with_name("manifest.json")
            if manifest.exists():
                params = read_json(manifest)["params"][stage]
                rows.append({"stage": stage, "run": path.parent.name, "dataset": params["dataset"], **read_json(path)})
    return pd.DataFrame(rows, columns=COST)


def markdown(table: pd.DataFrame, cost: pd.DataFrame, results: pd.DataFrame) -> str:
    """The table for people: mean ± standard deviation, seconds and device beside it."""
    times = cost[cost["stage"] == "evaluate"].set_index("run")
    runs = results.set_index([*KEY, "protocol"])["run"]
    lines = ["# Accuracy of students trained on condensed sets", ""]
    for name, part in table.groupby("dataset", sort=True):
        lines += [f"## {title(str(name))}", ""]
        head = "| IPC | student | recipe | protocol | last | best | fixed labels | hard labels "
        head += "| image kB | label kB | steps | s |"
        lines += [head, "|" + " --- |" * (head.count("|") - 1)]
        devices: set[str] = set()
        for row in part.to_dict("records"):
            run_name = runs[(*(row[k] for k in KEY), row["protocol"])]
            seconds = ""
            if run_name in times.index:
                seconds = f"{times.loc[run_name, 'seconds']:.0f}"
                devices.add(str(times.loc[run_name, "device"]))
            cells = [row["ipc"], row["student"], row["recipe"], row["protocol"]]
            cells += [plus_minus(row[f"{r}_mean"], row[f"{r}_std"]) for r in ("last", "best", "fixed", "hard")]
            cells += [
                f"{row['image_bytes'] / 1000:.1f}",
                f"{row['label_bytes'] / 1000:.1f}",
                row["steps"],
                seconds,
            ]
            lines.append("| " + " | ".join(str(c) for c in cells) + " |")
        commits = sorted(set(cost[cost["dataset"] == name]["commit"].astype(str).str[:10]))
        seeds = ", ".join(str(s) for s in sorted(set(part["seeds"])))
        lines += [
            "",
            f"Top-1 test accuracy in percent, mean ± standard deviation over {seeds} seeds; last epoch, and the",
        ]
        lines += [
            "best of the epochs looked at. s: seconds of the whole evaluation, all seeds, "
            + "; ".join(sorted(devices))
            + "."
        ]
        lines += [f"Made at commit {', '.join(commits)}.", ""]
    return "\n".join(lines)


def plus_minus(mean: float, std: float) -> str:
    """ "12.3 ± 0.4", or nothing where nothing ran."""
    if pd.isna(mean):
        return ""
    return f"{mean:.1f}" if pd.isna(std) else f"{mean:.1f} ± {std:.1f}"
