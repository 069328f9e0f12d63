"""Values of small datasets and rows, with changes by keyword."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edc.config.rows import Dataset, EvaluateRow, RelabelRow, SynthesizeRow
from edc.data.sets import load_split
from edc.errors import EdcError


def dataset(**changes: Any) -> Dataset:
    """Three classes of colour images, 8 pixels a side."""
    values = {"name": "d", "family": "d", "kind": "digits", "image_size": 8, "classes": 3}
    channels = changes.get("channels", 3)
    return Dataset.model_validate(values | {"mean": [0.5] * channels, "std": [0.25] * channels} | changes)


def synthesize_row(iterations: int = 6, observers: int = 2, **changes: Any) -> SynthesizeRow:
    """Two images per class."""
    names = [f"o{i}" for i in range(observers)]
    values = {"dataset": "d", "recipe": "r", "ipc": 2, "seed": 0, "statistics": "s", "observers": names}
    optimise = {"iterations": iterations} | changes.pop("optimise", {})
    return SynthesizeRow.model_validate(values | {"optimise": optimise} | changes)


def relabel_row(**changes: Any) -> RelabelRow:
    """Five epochs in batches of four."""
    values = {"dataset": "d", "images": "i", "observers": ["o"], "flip": True, "epochs": 5, "batch": 4}
    return RelabelRow.model_validate(values | changes)


def student_row(student: str = "convnet_w32", **changes: Any) -> EvaluateRow:
    """EDC's protocol for four epochs in batches of four, two seeds."""
    values: dict[str, Any] = {"dataset": "d", "recipe": "r", "ipc": 2, "student": student, "protocol": "p"}
    values |= {"regime": "soft", "images": "i", "labels": "l", "seeds": [0, 1], "epochs": 4, "batch": 4, "ema": 0.9}
    values["optimiser"] = {"name": "adamw", "lr": 0.01, "weight_decay": 0.01}
    return EvaluateRow.model_validate(values | {"schedule": {"name": "smoothing", "zeta": 2.0}} | changes)


def source_config(kind: str, root: Path | None = None, **changes: Any) -> SimpleNamespace:
    """The parameters of a dataset as its readers use them."""
    values = {
        "name": "pets", "family": "pets", "kind": kind, "root": root and str(root), "image_size": 8, "channels": 3,
        "classes": 3, "val_fraction": 0.25, "split_seed": 0, "train_per_class": None, "test_per_class": None,
        "unreadable_limit": 0, "class_names": None, "streamed": False, "resize": None, "image_column": "img",
        "label_column": "label", "test_split": None, "files": None,
    }  # fmt: skip
    return SimpleNamespace(**values | changes)


def refusal(config: Any, split: Any = "train") -> str:
    """The one line with which a split is refused."""
    with pytest.raises(EdcError) as error:
        load_split(config, split)
    assert "\n" not in str(error.value)
    return str(error.value)
