"""Folders of small pictures for `edc new`, and what it found in them."""

from pathlib import Path

import numpy as np
from PIL import Image

from edc.config.files import read
from edc.config.rows import Dataset
from edc.data.new import NewDataset

PER_CLASS = 10


def pixels(seed: int, width: int = 12, height: int = 20) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def fill(folder: Path, first: int, count: int = PER_CLASS, suffix: str = ".png") -> None:
    """Pictures of different pixels, numbered from ``first``."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + count):
        Image.fromarray(pixels(i)).save(folder / f"{i}{suffix}")


def found(made: NewDataset, words: str) -> str:
    """The one line that starts with these words."""
    (line,) = [line for line in made.lines if line.startswith(words)]
    return line


def config(name: str = "pets") -> Dataset:
    return Dataset(name=name, **read("datasets", name).data)
