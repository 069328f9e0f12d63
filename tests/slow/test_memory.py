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

SIDE, FEW, TIMES, CLASSES = 224, 128, 8, ("left", "right")
DECODED = 3 * SIDE**2 * FEW * (TIMES - 1) / 2**20
"""Megabytes the additional pictures take once they are decoded."""
NOISE = 90
"""Megabytes by which the peaks of two equal runs may differ: threads decode ahead, and memory is freed late."""
NETWORK = "torchvision:shufflenet_v2_x0_5"


def fill(root, pictures, count):
    """An image folder; its pictures are links to a few files."""
    root.mkdir()
    for i, picture in enumerate(pictures):
        (root / f"{i}").write_bytes(picture)
    for part, number in (("train", count), ("test", 2 * len(CLASSES))):
        for i in range(number):
            path = root / part / CLASSES[i % len(CLASSES)] / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(root / f"{i % len(pictures)}", path)
    return root


def peak(root, streamed):
    """Megabytes a process takes to train an observer for an epoch."""
    dataset = {
        "name": "wide", "family": "wide", "kind": "folder", "image_size": SIDE, "classes": 2, "streamed": streamed,
        "crop_scale": [0.08, 1.0], "mean": [0.5] * 3, "std": [0.25] * 3, "val_fraction": 0.0,
    }  # fmt: skip
    observer = {
        "dataset": "wide", "network": NETWORK, "epochs": 1, "batch": 8, "seed": 0,
        "optimiser": {"name": "sgd", "lr": 0.01}, "schedule": {"name": "smoothing"},
    }  # fmt: skip
    machine = {"device": "cpu", "threads": 1}
    values = {
        "studies": {"s": {}},
        "machine": machine,
        "datasets": {"wide": dataset},
        "pretrain": {"observer": observer},
    }
    write_plan(Plan.model_validate(values))
    environment = os.environ | {"EDC_DATA_WIDE": str(root), "EDC_TRACKING": "off"}
    subprocess.run([sys.executable, "-m", "edc.cli", "pretrain"], env=environment, check=True)
    return int(json.loads(Path("runs/pretrain/observer/run.json").read_text())["peak_memory_mb"])


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_number_of_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures, rng = [], np.random.default_rng(0)
    for i in range(8):
        path = tmp_path / f"{i}.jpg"
        Image.fromarray(rng.integers(0, 256, (SIDE + 8 * i, SIDE, 3), dtype=np.uint8)).save(path)
        pictures.append(path.read_bytes())
    few, many = (fill(tmp_path / f"{count}", pictures, count) for count in (FEW, TIMES * FEW))
    peaks = {
        "streamed, few": peak(few, streamed=True),
        "streamed, many": peak(many, streamed=True),
        "in memory, many": peak(many, streamed=False),
    }
    assert peaks["streamed, many"] < peaks["streamed, few"] + NOISE, peaks
    assert peaks["in memory, many"] > peaks["streamed, many"] + DECODED / 2, peaks
