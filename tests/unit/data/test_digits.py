"""The digits of scikit-learn: 8 x 8 pixels, fixed test part."""

from functools import partial

import numpy as np
import pytest
from sklearn.datasets import load_digits
from support.rows import source_config

from edc.data.sets import load_split

config = partial(source_config, "digits", channels=1, classes=10, val_fraction=0.1)


def test_the_parts_are_the_1797_images():
    parts = [load_split(config(), split) for split in ("train", "val", "test")]
    raw = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)
    result = np.concatenate([part.images[:, 0].numpy() for part in parts])
    assert [len(part) for part in parts] == [1293, 145, 359]
    assert sorted(image.tobytes() for image in result) == sorted(image.tobytes() for image in raw)
    assert parts[0].classes == tuple("0123456789")
    for part in parts:
        share = part.labels.bincount().numpy() / np.bincount(load_digits().target) * 1797 / len(part)
        assert ((share > 0.95) & (share < 1.05)).all()


def test_grey_values_fill_the_byte():
    images = load_split(config(), "test").images
    assert (int(images.min()), int(images.max())) == (0, 255)


def test_the_test_part_depends_on_no_parameter():
    one = load_split(config(), "test")
    assert load_split(config(split_seed=9, val_fraction=0.4, train_per_class=3), "test").digest == one.digest
    assert load_split(config(split_seed=9), "train").digest != load_split(config(), "train").digest


@pytest.mark.parametrize(("size", "channels"), [(16, 1), (32, 3)])
def test_size_and_channels(size, channels):
    images = load_split(config(image_size=size, channels=channels, train_per_class=4), "train").images
    assert images.shape == (30, channels, size, size)
    assert (images == images[:, :1]).all()
