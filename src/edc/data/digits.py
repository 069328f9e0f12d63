"""scikit-learn's handwritten digits: 1,797 real images of 8 x 8 pixels that come with the package."""

from __future__ import annotations

import numpy as np
from PIL import Image

from edc.data.folder import fit
from edc.data.roots import DataConfig
from edc.data.sets import DIGITS_TEST, Part, Pixels, Rows, Source, draw

TEST_FRACTION = 0.2
"""Of every class; the set has no test part of its own, so this cut is fixed and no parameter moves it."""


def read(config: DataConfig, part: Part) -> Source:
    """The digits of one part; grey values 0..16 become 0..255, images grow from 8 pixels bilinearly."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    labels = raw.target.astype(np.int64)
    test = draw(labels, lambda n: round(TEST_FRACTION * n), 0, DIGITS_TEST)
    chosen = test if part == "test" else np.delete(np.arange(len(labels)), test)
    grey: Pixels = np.rint(raw.images[chosen] * (255 / 16)).astype(np.uint8)

    def decode(rows: Rows, out: Pixels) -> dict[int, str]:
        for position, row in enumerate(rows):
            out[position] = fit(Image.fromarray(grey[row]), out.shape[1], out.shape[2])
        return {}

    return Source(
        where=f"dataset {config.name}: scikit-learn digits, {part} part",
        classes=tuple(str(name) for name in raw.target_names),
        labels=labels[chosen],
        name=lambda row: f"digit {chosen[row]}",
        decode=decode,
    )
