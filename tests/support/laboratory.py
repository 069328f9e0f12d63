"""A plan of a few digits with one observer, and its first stages: what the tests of both applications start from."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from edc.config.rows import Plan
from edc.stages.context import Job

DATA: dict[str, Any] = {
    "name": "tiny", "family": "digits", "kind": "digits", "image_size": 8, "channels": 1, "classes": 10,
    "mean": [0.306], "std": [0.342], "pad": 1, "flip": False, "val_fraction": 0.25, "train_per_class": 20,
    "test_per_class": 5,
}  # fmt: skip
OPTIMISER = {"name": "adamw", "lr": 0.02, "weight_decay": 0.01}
SCHEDULE = {"name": "smoothing", "zeta": 2.0}
STUDENT: dict[str, Any] = {
    "dataset": "tiny", "recipe": "random", "ipc": 2, "student": "convnet_w32", "protocol": "edc", "regime": "soft",
    "images": "images", "labels": "labels", "seeds": [0, 1], "epochs": 3, "batch": 5, "loss": {"name": "mse_ce"},
    "optimiser": OPTIMISER, "schedule": SCHEDULE, "ema": 0.5,
}  # fmt: skip
FULL = {"recipe": "full", "ipc": 0, "images": None, "labels": None, "regime": "hard", "batch": 50, "epochs": 2}
PLAN: dict[str, Any] = {
    "study": "s",
    "machine": {"device": "cpu", "threads": 1},
    "datasets": {"tiny": DATA},
    "pretrain": {
        "observer": {
            "dataset": "tiny", "network": "convnet_w32", "epochs": 3, "batch": 20, "seed": 0,
            "optimiser": {"name": "sgd", "lr": 0.05}, "schedule": SCHEDULE,
        }
    },
    "synthesize": {
        "images": {
            "dataset": "tiny", "recipe": "random", "ipc": 2, "seed": 0, "initialise": {"method": "real"},
            "optimise": {"iterations": 0},
        }
    },
    "relabel": {
        "labels": {
            "dataset": "tiny", "images": "images", "observers": ["observer"], "flip": False, "epochs": 3, "batch": 5,
            "crop_scale": [0.5, 1.0], "mix": "cutmix", "min_accuracy": 0.0,
        }
    },
}  # fmt: skip


def plan(stage: str, **row: Any) -> Plan:
    """The plan with one row of an application, called ``row``."""
    return Plan.model_validate({**PLAN, stage: {"row": STUDENT | row}})


def prepare() -> None:
    """Run what comes before, in the current directory."""
    values = Plan.model_validate(PLAN)
    for stage, key in (("pretrain", "observer"), ("synthesize", "images"), ("relabel", "labels")):
        importlib.import_module(f"edc.{stage}").run(Job(stage, key, values, "cpu"))


def job(stage: str, **row: Any) -> Job:
    """A run of an application that is yet to begin."""
    return Job(stage, "row", plan(stage, **row), "cpu")


def run(stage: str, **row: Any) -> dict[str, bytes]:
    """Run an application; what it left but for its times."""
    importlib.import_module(f"edc.{stage}").run(job(stage, **row))
    folder = Path("results", stage, "row")
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "run.json"}


def scores(files: dict[str, bytes]) -> dict[str, Any]:
    """The scores in a manifest."""
    found: dict[str, Any] = json.loads(files["manifest.json"])["scores"]
    return found
