"""A plan of a few digits with one observer, and its first stages: what the tests of the stages start from."""

import csv
import importlib
from typing import Any

import pytest
import torch

from edc.config.rows import Plan
from edc.stages.context import Context
from edc.storage import Checkpoint, manifest_in, run_folder

DATA: dict[str, Any] = {
    "name": "tiny", "family": "digits", "kind": "digits", "image_size": 8, "channels": 1, "classes": 10,
    "mean": [0.306], "std": [0.342], "pad": 1, "flip": False, "val_fraction": 0.25, "train_per_class": 20,
    "test_per_class": 20,
}  # fmt: skip
OPTIMISER = {"name": "adamw", "lr": 0.02, "weight_decay": 0.01}
SCHEDULE = {"name": "smoothing", "zeta": 2.0}
OBSERVER: dict[str, Any] = {
    "dataset": "tiny", "network": "convnet_d1", "epochs": 4, "batch": 20, "seed": 0,
    "optimiser": {"name": "sgd", "lr": 0.05}, "schedule": SCHEDULE,
}  # fmt: skip
STATISTICS = {"dataset": "tiny", "observers": ["observer"], "patch": 4, "batch": 20, "seed": 0}
RANDOM: dict[str, Any] = {
    "dataset": "tiny", "recipe": "random", "ipc": 2, "seed": 0, "initialise": {"method": "real"},
    "optimise": {"iterations": 0},
}  # fmt: skip
EDC: dict[str, Any] = RANDOM | {
    "recipe": "edc", "statistics": "statistics", "observers": ["observer"], "augment": {"flip": False},
    "optimise": {"iterations": 4, "group": 10}, "regularise": {"method": "logits"},
}  # fmt: skip
LABELS: dict[str, Any] = {
    "dataset": "tiny", "images": "images", "observers": ["observer"], "flip": False, "epochs": 3, "batch": 5,
    "crop_scale": [0.5, 1.0], "mix": "cutmix", "min_accuracy": 0.0,
}  # fmt: skip
STUDENT: dict[str, Any] = {
    "dataset": "tiny", "recipe": "random", "ipc": 2, "student": "convnet_d1", "protocol": "edc", "regime": "soft",
    "images": "images", "labels": "labels", "seeds": [0, 1], "epochs": 3, "batch": 5, "loss": {"name": "mse_ce"},
    "optimiser": OPTIMISER, "schedule": SCHEDULE, "ema": 0.5,
}  # fmt: skip
FULL = {"recipe": "full", "ipc": 0, "images": None, "labels": None, "regime": "hard", "batch": 50, "epochs": 2}
SLIM: dict[str, Any] = {
    "student": "vgg11_bn", "sparsity": 0.01, "ratios": [0.2, 0.4], "finetune": 2, "min_accuracy": 0.0, "ema": None,
    "optimiser": OPTIMISER | {"lr": 0.005},
}  # fmt: skip
ROWS: dict[str, dict[str, Any]] = {
    "pretrain": OBSERVER,
    "statistics": STATISTICS,
    "synthesize": EDC,
    "relabel": LABELS,
    "evaluate": STUDENT,
    "continual": STUDENT | {"steps": 2, "orders": [0, 1]},
    "slimming": STUDENT | SLIM,
    "analysis": STUDENT,
}
"""Values of the run ``row`` of each stage; tests change some of them."""
PREPARED = {"pretrain": "observer", "statistics": "statistics", "synthesize": "images", "relabel": "labels"}
"""The runs that stages with a student build on."""


def plan(stage: str = "evaluate", upstream: dict[str, dict[str, Any]] | None = None, **changes: Any) -> Plan:
    """The plan with one run, called ``row``, of a stage.

    Args:
        stage: which.
        upstream: values changed in ``dataset``, ``observer``, ``images`` or ``labels``.
        changes: values of the run.
    """
    other: dict[str, Any] = {"dataset": {}, "observer": {}, "images": {}, "labels": {}} | (upstream or {})
    values: dict[str, Any] = {
        "studies": {"s": {}},
        "machine": {"device": "cpu", "threads": 1},
        "datasets": {"tiny": DATA | other["dataset"]},
        "pretrain": {"observer": OBSERVER | other["observer"]},
        "statistics": {"statistics": STATISTICS},
        "synthesize": {"images": RANDOM | other["images"]},
        "relabel": {"labels": LABELS | other["labels"]},
    }
    values[stage] = values.get(stage, {}) | {"row": ROWS[stage] | changes}
    return Plan.model_validate(values)


def execute(plan: Plan, stage: str, key: str) -> None:
    """Execute a run in this process."""
    importlib.import_module(f"edc.stages.{stage}").run(Context(plan, stage, key, torch.device("cpu")))


def run(stage: str, upstream: dict[str, dict[str, Any]] | None = None, **changes: Any) -> dict[str, bytes]:
    """Execute the run ``row`` of a stage; the files it left, without ``run.json``."""
    execute(plan(stage, upstream, **changes), stage, "row")
    return files(stage)


def files(stage: str) -> dict[str, bytes]:
    """Content of the files of the run ``row`` of a stage."""
    return {path.name: path.read_bytes() for path in run_folder(stage, "row").glob("*") if path.name != "run.json"}


def manifest(stage: str, key: str = "row") -> dict[str, Any]:
    """The manifest of a run."""
    return manifest_in(run_folder(stage, key))


def history(stage: str) -> list[dict[str, str]]:
    """The history of the run ``row`` of a stage."""
    return list(csv.DictReader((run_folder(stage, "row") / "history.csv").read_text().splitlines()))


class KilledError(Exception):
    """Stands for whatever ends a process in the middle of a run."""


def interrupt(stage: str, saves: int, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Save a checkpoint at every opportunity, and raise :class:`KilledError` after so many of them."""
    save, left = Checkpoint.save, iter(range(saves - 1))

    def save_and_raise(self: Checkpoint, state: Any) -> None:
        save(self, state)
        if next(left, None) is None:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setenv("EDC_CHECKPOINT_SECONDS", "0")
        patch.setattr(Checkpoint, "save", save_and_raise)
        with pytest.raises(KilledError):
            run(stage, **changes)


def prepare() -> None:
    """Execute what stages with a student build on, in the current directory."""
    for run in PREPARED.items():
        execute(plan(), *run)
