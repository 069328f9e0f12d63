"""A dataset file and a study for images of one's own, made from the folder they lie in."""

from __future__ import annotations

import re
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import yaml

from edc.config.files import WORKFLOW
from edc.config.registry import READERS
from edc.config.rows import Dataset
from edc.data.pictures import CentreCrop
from edc.data.roots import remember_root
from edc.data.source import Source
from edc.errors import EdcError
from edc.storage import write_text

SAMPLE = 1000
"""Images that mean and standard deviation are measured on, at most."""

DATASET_HEADER = """\
# yaml-language-server: $schema=../schema/datasets.json
# Written by `edc new {name}`; every value may be edited. Where the images lie is kept in .edc/, not here.
# flip: false where a mirrored image changes its class. observers: more and stronger ones give better images and labels.
"""
STUDY_HEADER = """\
# yaml-language-server: $schema=../schema/studies.json
# Written by `edc new {name}`: EDC against random real images. Next: `edc plan {name}`, then `dvc repro`.
"""


def new_dataset(name: str, root: Path, image_size: int) -> list[Path]:
    """Measure images of one's own and write ``workflow/datasets/NAME.yaml`` and ``workflow/studies/NAME.yaml``.

    ``root`` is an image folder (``train/CLASS/*`` and ``test/CLASS/*`` or ``val/CLASS/*``) or one of parquet files.

    Raises:
        EdcError: the name is taken or unfit, or the folder is not readable as a dataset.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", name):
        raise EdcError(f"name {name!r}: expected lower-case letters, digits and underscores")
    paths = [WORKFLOW / "datasets" / f"{name}.yaml", WORKFLOW / "studies" / f"{name}.yaml"]
    for path in paths:
        if path.exists():
            raise EdcError(f"{path}: exists already; choose another name or edit that file")
    if not any(root.glob("*.parquet")) and any(root.glob("data/*.parquet")):
        root = root / "data"  # where the Hugging Face hub keeps them
    kind = "parquet" if any(root.glob("*.parquet")) else "folder"
    values: dict[str, Any] = {"kind": kind, "image_size": image_size, "channels": 3, "classes": 2}
    # A name for which no other folder can be remembered.
    probe = Dataset(
        name=f"new {name}", family=f"new {name}", root=str(root.absolute()), mean=[0.5] * 3, std=[0.5] * 3, **values
    )
    source: Source = resolve_name(READERS[kind])(probe, "train")
    mean, std = measure(source, image_size)
    classes = max(len(source.classes), int(source.labels.max()) + 1)
    values |= {"family": name, "classes": classes, "mean": mean, "std": std}
    values |= {"pad": max(1, image_size // 8), "flip": True, "val_fraction": 0.1}
    large = len(source.labels) >= 20_000
    dataset = {
        "description": f"{len(source.labels):,} training images of {classes} classes",
        "title": name,
        "data": values,
        "observers": ["convnet_w128", "mobilenet_v2_half", "wrn_16_2"],
        "pretrain": {
            "epochs": 10 if large else 30,
            "batch": 64,
            "optimiser": {"name": "sgd", "lr": 0.05 if image_size <= 32 else 0.01, "momentum": 0.9},
            "schedule": {"name": "smoothing", "zeta": 1.0},
        },
        "statistics": {"patch": 4 if image_size < 128 else 16, "batch": 64},
    }
    study = {
        "description": f"EDC against random real images on {name}",
        "datasets": [name],
        "recipes": ["edc", "random"],
        "ipc": [10],
        "protocols": ["edc", "hard_label"],
        "students": ["convnet_w128"],
        "seeds": [0, 1, 2],
        "machine": {"device": "auto", "threads": 2},
        # Hours on a CPU at the paper's 2000 iterations and 1000 epochs; a first trial needs far less.
        "overrides": {
            "recipes": {"edc": {"synthesize": {"optimise": {"iterations": 200}}}},
            "protocols": {p: {"student": {"epochs": 200}} for p in ("edc", "hard_label")},
        },
    }
    for path, header, content in zip(paths, (DATASET_HEADER, STUDY_HEADER), (dataset, study), strict=True):
        body = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110)
        write_text(path, header.format(name=name) + body)
    remember_root(name, root)
    return paths


def measure(source: Source, image_size: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel, of pixels in [0, 1], over an evenly spread sample."""
    rows = np.unique(np.linspace(0, len(source.labels) - 1, min(SAMPLE, len(source.labels))).astype(np.int64))
    pixels = np.empty((len(rows), 3, image_size, image_size), np.uint8)
    bad = source.decode(rows, pixels, CentreCrop(3, image_size))
    if len(bad) == len(rows):
        raise EdcError(f"{source.where}: none of {len(rows)} images is readable; {next(iter(bad.values()))}")
    good = np.delete(pixels, sorted(bad), axis=0) / 255
    mean, std = good.mean(axis=(0, 2, 3)), good.std(axis=(0, 2, 3))
    # A channel that is the same in all images is divided by one grey level.
    return mean.round(4).tolist(), np.maximum(std, 1 / 255).round(4).tolist()
