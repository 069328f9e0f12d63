"""Streamed images: what a run needs at its peak does not grow with the number of pictures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edc.config.plan import write_plan
from edc.config.rows import Plan

SIDE, FEW, MANY = 224, 128, 1024
DECODED = 3 * SIDE**2 * (MANY - FEW) / 2**20
"""Megabytes the additional pictures take once they are decoded."""
NOISE = 90
"""Megabytes by which the peaks of two equal runs may differ: threads decode ahead, and memory is freed late."""


def fill(root, count):
    """An image folder; its pictures are links to a few files."""
    rng = np.random.default_rng(0)
    for i in range(count):
        for part in ("train", "test"):
            path = root / part / f"{i % 2}" / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            if i < 8:
                Image.fromarray(rng.integers(0, 256, (SIDE + 8 * i, SIDE, 3), dtype=np.uint8)).save(path)
            elif part == "train":
                os.link(root / part / f"{i % 2}" / f"{i % 8}.jpg", path)


def peak(root, streamed):
    """Megabytes a process takes to train an observer for an epoch."""
    dataset = {
        "name": "wide", "family": "wide", "kind": "folder", "image_size": SIDE, "classes": 2, "streamed": streamed,
        "crop_scale": [0.08, 1.0], "mean": [0.5] * 3, "std": [0.25] * 3, "val_fraction": 0.0, "root": root,
    }  # fmt: skip
    observer = {
        "dataset": "wide", "network": "torchvision:shufflenet_v2_x0_5", "epochs": 1, "batch": 8, "seed": 0,
        "optimiser": {"name": "sgd", "lr": 0.01}, "schedule": {"name": "smoothing"},
    }  # fmt: skip
    plan = {"studies": {}, "machine": {"device": "cpu", "threads": 1}, "datasets": {"wide": dataset}}
    write_plan(Plan.model_validate(plan | {"pretrain": {"observer": observer}}))
    environment = os.environ | {"EDC_TRACKING": "off"}
    subprocess.run([sys.executable, "-m", "edc.cli", "pretrain"], env=environment, check=True)
    return json.loads(Path("runs/pretrain/observer/run.json").read_text())["peak_memory_mb"]


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_number_of_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "few", FEW)
    fill(tmp_path / "many", MANY)
    few, many, in_memory = peak("few", streamed=True), peak("many", streamed=True), peak("many", streamed=False)
    assert many < few + NOISE
    assert in_memory > many + DECODED / 2
