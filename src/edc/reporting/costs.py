"""What an evaluation cost, with what it depends on."""

from __future__ import annotations

import numpy as np
import pandas as pd

from edc.config.rows import Plan

PARTS = {"pretrain": "observers", "statistics": "observers", "synthesize": "images", "relabel": "labels"}
"""Stages that an evaluation depends on -> the part of its cost that they are counted in."""


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


def duration(seconds: float) -> str:
    """Seconds as they are read."""
    return "not recorded" if pd.isna(seconds) else f"{seconds:,.{0 if seconds >= 10 else 1}f} s"
