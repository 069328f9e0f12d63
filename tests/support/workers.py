"""A plan of two observers, statistics of both and random images, and a process that makes one of its runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from edc.config.rows import Plan
from edc.pipeline.status import Run
from edc.storage import run_folder
from support import laboratory as lab

A, B, JOINED, IMAGES = ("pretrain", "a"), ("pretrain", "b"), ("statistics", "joined"), ("synthesize", "images")
RUNS: list[Run] = [A, B, JOINED, IMAGES]
CALL = """
import json, sys
from edc.config.rows import Plan
from edc.pipeline.workers import run_all
def main():
    plan = Plan.model_validate(json.load(open("plan.json")))
    run_all(plan, [("pretrain", "b")], jobs=1, minutes=float(sys.argv[1]))
    print(sorted({"torch", "pandas", "mlflow", "dvc"} & set(sys.modules)))
if __name__ == "__main__":
    main()
"""


def plan(**changes: Any) -> Plan:
    """The plan.

    Args:
        changes: values of observer b.
    """
    observer = lab.OBSERVER | {"epochs": 1}
    return Plan.model_validate(
        {
            "studies": {"s": {}},
            "machine": {"device": "cpu", "threads": 1},
            "datasets": {"tiny": lab.DATA},
            "pretrain": {"a": observer, "b": observer | {"seed": 1} | changes},
            "statistics": {"joined": lab.STATISTICS | {"observers": ["a", "b"]}},
            "synthesize": {"images": lab.RANDOM},
        }
    )


def times() -> dict[Run, int]:
    """When each finished run's manifest was written."""
    return {run: (run_folder(*run) / "manifest.json").stat().st_mtime_ns for run in RUNS if run_folder(*run).exists()}


def call(plan: Plan, minutes: float = 10) -> subprocess.Popen[str]:
    """Make run b in another process, with a time limit."""
    Path("plan.json").write_text(json.dumps(plan.model_dump(mode="json")))
    Path("call.py").write_text(CALL)
    pipe = subprocess.PIPE
    environment = os.environ | {"EDC_CHECKPOINT_SECONDS": "0"}
    return subprocess.Popen(
        [sys.executable, "call.py", str(minutes)], env=environment, stdout=pipe, stderr=pipe, text=True
    )
