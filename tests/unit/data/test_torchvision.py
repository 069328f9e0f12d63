"""Sets that libraries bring: scikit-learn's digits, and torchvision's CIFAR from small batches made here.

torchvision compares the files with the MD5 sums of the official ones. The tests keep that check and give it
the sums of their own files, by a subclass of the torchvision class.
"""

import hashlib
import pickle
from functools import partial

import numpy as np
import pytest
from sklearn.datasets import load_digits
from support.rows import refusal, source_config
from torchvision import datasets

from edc.data.sets import load_split


def dump(path, content) -> str:
    path.write_bytes(pickle.dumps(content))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture(params=["CIFAR10", "CIFAR100"])
def small(request, tmp_path, monkeypatch):
    """A root with 2 training files of 6 and a test file of 3 images, in 3 classes."""
    kind = getattr(datasets, request.param)
    folder = tmp_path / kind.base_folder
    folder.mkdir()
    key = "fine_labels" if request.param == "CIFAR100" else "labels"
    sums = {}
    for name, n in (("first", 6), ("second", 6), ("test", 3)):
        pixels = np.random.default_rng(n).integers(0, 256, (n, 3 * 32 * 32), dtype=np.uint8)
        sums[name] = dump(folder / name, {"data": pixels, key: [i % 3 for i in range(n)]})
    meta = dict(kind.meta, md5=dump(folder / kind.meta["filename"], {kind.meta["key"]: ["a", "b", "c"]}))
    lists = {"train_list": [[n, sums[n]] for n in ("first", "second")], "test_list": [["test", sums["test"]]]}
    monkeypatch.setattr(datasets, request.param, type("Small", (kind,), lists | {"meta": meta}))
    return source_config("torchvision", tmp_path, name="cifar", source=request.param, image_size=32)


def test_parts(small):
    train, held, test = (load_split(small, split) for split in ("train", "val", "test"))
    assert train.classes == ("a", "b", "c")
    assert [len(part) for part in (train, held, test)] == [9, 3, 3]
    pixels = np.random.default_rng(3).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    np.testing.assert_array_equal(test.images.numpy(), pixels)
    assert test.labels.tolist() == [0, 1, 2]


def test_the_folder_of_the_files_is_a_root_too(small):
    one = load_split(small, "test").digest
    small.root += "/" + getattr(datasets, small.source).base_folder
    assert load_split(small, "test").digest == one


def test_images_are_brought_to_the_wanted_size(small):
    small.image_size, small.channels = 16, 1
    assert load_split(small, "test").images.shape == (3, 1, 16, 16)


def test_damaged_files_are_refused_before_they_are_unpickled(small, tmp_path):
    place = tmp_path / getattr(datasets, small.source).base_folder
    (place / "second").write_bytes(pickle.dumps({"data": [], "labels": []}))
    expected = f"{place}: files missing or damaged; expected the official ones of {small.source}"
    assert refusal(small) == refusal(small, "test") == expected
    (place / "second").unlink()
    assert refusal(small) == expected


def test_absent_data_and_unknown_sources_are_refused(small, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").touch()
    small.root = str(tmp_path / "elsewhere")
    base = getattr(datasets, small.source).base_folder
    assert refusal(small) == f"{small.root}: no folder {base!r}; expected the files of torchvision's {small.source}"
    small.source = "CIFAR01"
    assert refusal(small) == "dataset cifar: unknown torchvision source 'CIFAR01'; did you mean 'CIFAR10'?"
    small.source = None
    assert refusal(small).startswith("dataset cifar: unknown torchvision source 'None'; ")


digits = partial(source_config, "digits", channels=1, classes=10, val_fraction=0.1)


def test_the_parts_are_the_1797_images():
    parts = [load_split(digits(), split) for split in ("train", "val", "test")]
    raw = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)
    result = np.concatenate([part.images[:, 0].numpy() for part in parts])
    assert [len(part) for part in parts] == [1293, 145, 359]
    assert sorted(image.tobytes() for image in result) == sorted(image.tobytes() for image in raw)
    assert parts[0].classes == tuple("0123456789")
    for part in parts:
        share = part.labels.bincount().numpy() / np.bincount(load_digits().target) * 1797 / len(part)
        assert ((share > 0.95) & (share < 1.05)).all()


def test_grey_values_fill_the_byte():
    images = load_split(digits(), "test").images
    assert (int(images.min()), int(images.max())) == (0, 255)


def test_the_test_part_depends_on_no_parameter():
    one = load_split(digits(), "test")
    assert load_split(digits(split_seed=9, val_fraction=0.4, train_per_class=3), "test").digest == one.digest
    assert load_split(digits(split_seed=9), "train").digest != load_split(digits(), "train").digest


@pytest.mark.parametrize(("size", "channels"), [(16, 1), (32, 3)])
def test_size_and_channels(size, channels):
    images = load_split(digits(image_size=size, channels=channels, train_per_class=4), "train").images
    assert images.shape == (30, channels, size, size)
    assert (images == images[:, :1]).all()
