"""Students evaluated on held-out training images: the test set is not opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import laboratory

from edc.config.rows import Dataset
from edc.data import sets
from edc.stages import context


def test_students_are_evaluated_on_held_out_images(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    load = sets.load_split

    def record(config: Any, split: sets.Split) -> sets.Images:
        opened.append(split)
        return load(config, split)

    monkeypatch.setattr(context, "load_split", record)
    laboratory.run("evaluate", split="val", seeds=[0])
    manifest, val = laboratory.manifest("evaluate"), load(Dataset.model_validate(laboratory.DATA), "val")
    assert "test" not in opened
    assert (manifest["test_digest"], manifest["test_images"]) == (val.digest, len(val))
    assert manifest["params"]["evaluate"]["split"] == "val"
    correct = manifest["scores"]["final"][0] * len(val) / 100
    assert correct == pytest.approx(round(correct))
