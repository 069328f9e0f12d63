"""scikit-learn's handwritten digits: 1,797 real images of 8 x 8 pixels that come with the package."""

from __future__ import annotations

import gzip
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from edc.config.rows import Dataset
from edc.data.pictures import Pixels, Rows, decode_arrays
from edc.data.sets import DIGITS_TEST, draw
from edc.data.source import Part, Source
from edc.errors import EdcError

TEST_FRACTION = 0.2
"""Of every class; scikit-learn has no test part, so this split is fixed and independent of all parameters."""


def load_table() -> Rows:
    """The set as scikit-learn stores it, (1797, 65): 64 grey values 0..16 and the digit of every image.

    Read without importing scikit-learn, which takes longer than most runs on this set.
    """
    spec = find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise EdcError("dataset kind 'digits' needs the package scikit-learn, which is not installed")
    path = Path(spec.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    if not path.exists():
        from sklearn.datasets import load_digits

        raw = load_digits()
        return np.column_stack([raw.data, raw.target]).astype(np.int64)
    with gzip.open(path, "rt") as file:
        return np.loadtxt(file, delimiter=",").astype(np.int64)


def read(config: Dataset, part: Part) -> Source:
    """The digits of one part; grey values 0..16 become 0..255, images grow from 8 pixels bilinearly."""
    table = load_table()
    labels = table[:, -1].astype(np.int64)
    test = draw(labels, lambda n: round(TEST_FRACTION * n), 0, DIGITS_TEST)
    chosen = test if part == "test" else np.delete(np.arange(len(labels)), test)
    grey: Pixels = np.rint(table[chosen, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return Source(
        where=f"dataset {config.name}: scikit-learn digits, {part} part",
        classes=tuple("0123456789"),
        labels=labels[chosen],
        name=lambda row: f"digit {chosen[row]}",
        decode=partial(decode_arrays, grey),
        stamp=lambda row: grey[row].tobytes().hex(),
    )
