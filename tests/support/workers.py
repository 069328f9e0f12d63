"""A plan of two observers, statistics of both and random images, and a process that makes one of its runs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from edc.config.rows import Plan
from support import laboratory as lab

A, B, JOINED, IMAGES = ("pretrain", "a"), ("pretrain", "b"), ("statistics", "joined"), ("synthesize", "images")
RUNS = [A, B, JOINED, IMAGES]
CALL = """
import json, sys
from edc.config.rows import Plan
from edc.pipeline.workers import run_all
if __name__ == "__main__":
    run_all(Plan.model_validate(json.load(open("plan.json"))), [("pretrain", "b")], 1, minutes=float(sys.argv[1]))
    print(sorted({"torch", "pandas", "mlflow", "dvc"} & set(sys.modules)))
"""


def plan(**changes: Any) -> Plan:
    """The plan; ``changes`` are values of observer b."""
    values, observer = lab.plan().model_dump(), lab.OBSERVER | {"epochs": 1}
    values["pretrain"] = {"a": observer, "b": observer | {"seed": 1} | changes}
    values["statistics"] = {"joined": lab.STATISTICS | {"observers": ["a", "b"]}}
    return Plan.model_validate(values | {"relabel": {}, "evaluate": {}})


def call(plan: Plan, minutes: float = 10) -> subprocess.Popen[str]:
    """Make run b in another process, with a time limit."""
    Path("plan.json").write_text(json.dumps(plan.model_dump(mode="json")))
    Path("call.py").write_text(CALL)
    environment, pipe = os.environ | {"EDC_CHECKPOINT_SECONDS": "0"}, subprocess.PIPE
    command = [sys.executable, "call.py", str(minutes)]
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)
