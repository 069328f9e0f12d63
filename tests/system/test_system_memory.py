"""Streamed images: what a run needs at its peak does not grow with the number of pictures."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from checkout import Checkout
from PIL import Image

SIDE, FEW, TIMES, CLASSES = 224, 128, 8, ("left", "right")
HELD_IN_MEMORY = 3 * SIDE**2 * FEW * (TIMES - 1) / 2**20
"""Megabytes the additional pictures take once they are decoded."""
NOISE = 90
"""Megabytes by which the peaks of two equal runs may differ: threads decode ahead, and memory is freed late."""
NETWORK = "torchvision:shufflenet_v2_x0_5"
RUN = ("edc", "pretrain", "--run", "wide-torchvision_shufflenet_v2_x0_5")


def fill(root: Path, pictures: list[bytes], count: int) -> Path:
    """An image folder; a few pictures on the disk bear many names."""
    root.mkdir()
    for i, picture in enumerate(pictures):
        (root / f"{i}").write_bytes(picture)
    for part, number in (("train", count), ("test", 2 * len(CLASSES))):
        for i in range(number):
            path = root / part / CLASSES[i % len(CLASSES)] / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(root / f"{i % len(pictures)}", path)
    return root


def peak(checkout: Checkout, root: Path, streamed: bool) -> int:
    """Megabytes one process took to train an observer for an epoch."""
    checkout.edit("params.yaml", {"datasets.wide.streamed": streamed})
    checkout.ok(*RUN, EDC_DATA_WIDE=str(root))
    record = json.loads(checkout.path("results/pretrain", RUN[-1], "run.json").read_text())
    return int(record["peak_memory_mb"])


@pytest.mark.slow
@pytest.mark.early(4)
def test_peak_memory_does_not_grow_with_the_number_of_pictures(project, tmp_path):
    data = {"kind": "folder", "image_size": SIDE, "classes": 2, "streamed": True, "crop_scale": [0.08, 1.0]}
    data |= {"mean": [0.5] * 3, "std": [0.25] * 3, "val_fraction": 0.0}
    training = {"epochs": 1, "batch": 8, "optimiser": {"name": "sgd", "lr": 0.01}, "schedule": {"name": "smoothing"}}
    about = {"description": "many pictures", "title": "many pictures", "observers": [NETWORK]}
    about |= {"pretrain": training, "statistics": {"patch": 16, "batch": 32}}
    project.write("workflow/datasets/wide.yaml", about | {"data": data})
    study = {"description": "a network for many pictures", "datasets": ["wide"], "recipes": ["edc"], "ipc": [1]}
    study |= {"protocols": ["edc"], "students": [NETWORK], "machine": {"device": "cpu", "threads": 1}}
    project.write("workflow/studies/wide.yaml", study)
    project.ok("edc", "plan", "wide")

    pictures, rng = [], np.random.default_rng(0)
    for i in range(8):
        path = tmp_path / f"{i}.jpg"
        Image.fromarray(rng.integers(0, 256, (SIDE + 8 * i, SIDE, 3), dtype=np.uint8)).save(path)
        pictures.append(path.read_bytes())
    few, many = (fill(tmp_path / f"{count}", pictures, count) for count in (FEW, TIMES * FEW))
    found = {
        "streamed, few": peak(project, few, streamed=True),
        "streamed, many": peak(project, many, streamed=True),
        "in memory, many": peak(project, many, streamed=False),
    }
    print(f"\npeak memory, MB: {found}")
    assert found["streamed, many"] < found["streamed, few"] + NOISE, found
    assert found["in memory, many"] > found["streamed, many"] + HELD_IN_MEMORY / 2, found
