"""The answer of the first screen: is the method better than random images, by how much, and at what cost?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from edc.config.rows import Plan
from edc.reporting.evaluations import FULL, RANDOM
from edc.reporting.tables import SAME

METHOD = "edc"
PARTS = {"pretrain": "observers", "statistics": "observers", "synthesize": "images", "relabel": "labels"}
"""Stages that an evaluation depends on -> the part of its cost that they are counted in."""


def method_of(cells: pd.DataFrame) -> str:
    """The recipe that is compared with random images: EDC, or the plan's first with a baseline; "" without any."""
    recipes = [*cells.loc[cells["baseline_mean"].notna(), "recipe"], ""]
    return METHOD if METHOD in {*cells["recipe"]} else str(recipes[0])


def costs(plan: Plan, runs: pd.DataFrame, key: str) -> dict[str, float]:
    """Seconds of what an evaluation depends on, by part, and of all with its own; NaN where not recorded."""
    recorded = runs.drop_duplicates(["stage", "run"]).set_index(["stage", "run"])["seconds"]
    upstream: set[tuple[str, str]] = set()
    waiting = plan.upstream("evaluate", key)
    while waiting:
        run = waiting.pop()
        waiting += plan.upstream(*run) if run not in upstream else []
        upstream.add(run)
    seconds = dict.fromkeys(PARTS.values(), 0.0)
    for run in sorted(upstream):
        seconds[PARTS[run[0]]] += float(recorded.get(run, np.nan))
    seconds["total"] = sum(seconds.values()) + float(recorded.get(("evaluate", key), np.nan))
    return {f"seconds_{part}": value for part, value in seconds.items()}


def verdict(row: Any) -> str:
    """``better``, ``worse``, ``no difference shown``, ``no verdict`` (one seed) or ``no baseline``."""
    if pd.isna(row["improvement"]):
        return "no baseline"
    if pd.isna(row["improvement_spread"]):
        return "no verdict"
    if row["clear"] != "yes":
        return "no difference shown"
    return "better" if row["improvement"] > 0 else "worse"


def summary(chosen: pd.DataFrame) -> str:
    """Verdicts on a method's evaluations, "better in 2 (by 1.0 to 2.5 points), no difference shown in 1", or ""."""
    compared = chosen[chosen["improvement"].notna()]
    verdicts = compared.apply(verdict, axis="columns") if len(compared) else pd.Series(dtype=object)
    texts = []
    for name in ("better", "worse", "no difference shown", "no verdict"):
        points = compared.loc[verdicts == name, "improvement"].abs()
        ends = dict.fromkeys(f"{value:.1f}" for value in (points.min(), points.max()))
        by = f" (by {' to '.join(ends)} points)" if name in ("better", "worse") else ""
        texts += [f"{name} in {len(points)}{by}"] if len(points) else []
    return ", ".join(texts)


def answer(row: Any, cells: pd.DataFrame) -> dict[str, Any]:
    """An evaluation, its verdict, and the lines of its baseline and of the whole dataset among ``cells``, if any."""
    alike = (cells[[*SAME, "split"]] == row[[*SAME, "split"]]).all(axis="columns")
    whole = (cells[["dataset", "student", "split"]] == row[["dataset", "student", "split"]]).all(axis="columns")
    beside = {"random": alike & (cells["recipe"] == RANDOM), "full": whole & (cells["recipe"] == FULL)}
    lines = {name: next(iter(cells[mask].to_dict("records")), None) for name, mask in beside.items()}
    return {"row": row.to_dict(), "verdict": verdict(row), **lines}


def duration(seconds: float) -> str:
    """Seconds as they are read."""
    return "not recorded" if pd.isna(seconds) else f"{seconds:,.{0 if seconds >= 10 else 1}f} s"
