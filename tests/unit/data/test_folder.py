"""Image folders: order, formats, resizing, and refusals of broken ones."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from support.rows import refusal, source_config
from torchvision.transforms import v2

from edc.data.pictures import CentreCrop, decode_pictures, fit
from edc.data.sets import load_split

config = partial(source_config, "folder")


def picture(seed: int, width: int = 12, height: int = 10, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


@pytest.fixture
def root(tmp_path):
    for part, n in (("train", 4), ("val", 2)):
        for c, name in enumerate(("cat", "ant", "bee")):
            folder = tmp_path / "set" / part / name
            folder.mkdir(parents=True)
            for i in range(n):
                picture(10 * c + i).save(folder / f"{i}.png")
    return tmp_path / "set"


@pytest.mark.parametrize("resize", [None, 10])
def test_classes_and_images_come_in_sorted_order(root, resize):
    result = load_split(config(root, resize=resize), "test")
    assert result.classes == ("ant", "bee", "cat")
    assert result.labels.tolist() == [0, 0, 1, 1, 2, 2]
    expected = [fit(picture(seed), 3, 8, resize) for seed in (10, 11, 20, 21, 0, 1)]
    assert torch.equal(result.images, torch.from_numpy(np.stack(expected)))


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png", "bmp", "webp", "ppm", "tif"])
def test_formats(root, suffix):
    deeper = root / "val" / "ant" / "deeper"
    deeper.mkdir()
    picture(7).save(deeper / f"more.{suffix}")
    for name in ("notes.txt", ".hidden.png"):
        (root / "val" / "ant" / name).write_text("no picture")
    (root / "val" / ".cache").mkdir()
    assert load_split(config(root), "test").labels.bincount().tolist() == [3, 2, 2]


@pytest.mark.parametrize("chosen", [None, ["cat", "ant"]])
def test_test_is_preferred_to_val_where_its_classes_fit(root, chosen):
    given = config(root, class_names=chosen, classes=len(chosen or "abc"))
    (root / "test" / "images").mkdir(parents=True)
    assert len(load_split(given, "test")) == 2 * given.classes
    (root / "test" / "images").rmdir()
    for name in ("ant", "bee", "cat"):
        (root / "test" / name).mkdir()
        picture(1).save(root / "test" / name / "a.png")
    assert len(load_split(given, "test")) == given.classes


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "CMYK", "LA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_fit_converts_every_mode(mode, channels, recwarn):
    given = picture(0, 8, 8, mode)
    if mode == "P":
        given.info["transparency"] = bytes(256)
    colour = np.asarray(given.convert("RGBA"), np.float64)
    alpha = colour[..., 3:] / 255 if mode in ("RGBA", "LA", "P") else 1.0
    expected = colour[..., :3] * alpha + 255 * (1 - alpha)  # laid on white
    result = fit(given, channels, 8)
    assert (result.shape, result.dtype) == ((channels, 8, 8), np.uint8)
    if channels == 3:
        np.testing.assert_allclose(result.transpose(1, 2, 0), expected, atol=0.51)
    assert not recwarn


def test_fit_scales_16_bit_grey_and_refuses_unknown_ranges():
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    np.testing.assert_array_equal(fit(Image.fromarray(values), 1, 8)[0], values >> 8)
    with pytest.raises(ValueError, match="no known range"):
        fit(Image.fromarray(np.zeros((8, 8), np.float32)), 1, 8)


@pytest.mark.parametrize("resize", [16, 20])
@pytest.mark.parametrize(("width", "height"), [(64, 48), (37, 91), (24, 24), (16, 16), (20, 20), (5, 9), (300, 7)])
def test_fit_is_resize_of_the_shorter_side_and_centre_crop(width, height, resize):
    given = picture(3, width, height)
    reference = v2.CenterCrop(16)(v2.Resize(resize, v2.InterpolationMode.BILINEAR, antialias=True)(given))
    difference = fit(given, 3, 16, resize).transpose(1, 2, 0).astype(int) - np.asarray(reference)
    assert abs(difference).max() <= 1
    np.testing.assert_array_equal(fit(given, 3, 16, 16), fit(given, 3, 16))


def test_many_threads_and_one_give_the_same(tmp_path, monkeypatch):
    paths = []
    for i in range(150):
        picture(i, 40, 40).save(tmp_path / f"{i}.png")
        paths.append(tmp_path / f"{i}.png")
    paths[70] = tmp_path / "absent.png"
    one, many = np.zeros((150, 3, 40, 40), np.uint8), np.zeros((150, 3, 40, 40), np.uint8)
    monkeypatch.setattr("edc.data.pictures.SMALL", 10**9)
    bad = decode_pictures(paths, one, CentreCrop(3, 40))
    monkeypatch.setattr("edc.data.pictures.SMALL", 0)
    assert decode_pictures(paths, many, CentreCrop(3, 40)) == bad == {70: "No such file or directory"}
    np.testing.assert_array_equal(one, many)


def test_unreadable_pictures_are_named_and_counted(root):
    broken = root / "train" / "bee" / "1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    (root / "train" / "cat" / "0.png").write_bytes(b"")
    given = config(root, val_fraction=0.0)
    line = refusal(given)
    assert line.startswith(f"{root / 'train'}: 2 of 12 images unreadable: {broken} (")
    cat = root / "train" / "cat" / "0.png"
    limit = "expected at most 0 (data.unreadable_limit in workflow/datasets)"
    assert line.endswith(f"{cat} (not a known image format); {limit}")
    given.unreadable_limit = 2
    with pytest.warns(UserWarning, match="2 of 12 images unreadable"):
        assert load_split(given, "train").labels.bincount().tolist() == [4, 3, 3]


def test_only_the_rows_that_are_kept_are_decoded(root):
    for path in (root / "train").rglob("*.png"):
        path.write_bytes(b"broken")
    assert len(load_split(config(root), "test")) == 6


def test_missing_parts_and_classes_are_refused(root, tmp_path):
    assert refusal(config(tmp_path / "no")) == f"dataset pets: root: {tmp_path / 'no'} does not exist"
    assert refusal(config(root, classes=4)) == f"{root / 'train'}: 3 classes; expected 4, the dataset's `classes`"

    for path in (root / "train" / "bee").iterdir():
        path.unlink()
    assert refusal(config(root)) == f"{root / 'train'}: class 'bee' has no image; expected at least 1"

    (root / "val" / "bee").rename(root / "val" / "wasp")
    line = f"{root / 'val'}: class 1 is 'cat'; expected 'bee' as in {root / 'train'}"
    assert refusal(config(root)) == refusal(config(root), "test") == line

    (root / "val").rename(root / "other")
    expected = "no folder 'test' or 'val'; expected test/CLASS/* (or val/CLASS/*) beside train"
    assert refusal(config(root)) == f"{root}: {expected}"
    (root / "test").mkdir()
    assert refusal(config(root)) == f"{root / 'test'}: no class folder; expected one folder per class"
    (root / "train").rename(root / "learning")
    expected = "no folder 'train'; expected train/CLASS/* and test/CLASS/* (or val/CLASS/*)"
    assert refusal(config(root)) == f"{root}: {expected}"


def test_named_classes_alone_in_their_order(root):
    given = config(root, classes=2, class_names=["cat", "ant"])
    result = load_split(given, "test")
    assert result.classes == ("cat", "ant")
    assert result.labels.tolist() == [0, 0, 1, 1]
    expected = [fit(picture(seed), 3, 8) for seed in (0, 1, 10, 11)]
    assert torch.equal(result.images, torch.from_numpy(np.stack(expected)))
    # Folders that are not named need not be in both parts, nor hold anything.
    (root / "val" / "bee").rename(root / "val" / "wasp")
    (root / "train" / "zebra").mkdir()
    assert load_split(given, "test").digest == result.digest
    assert load_split(given, "train").labels.bincount().tolist() == [3, 3]


def test_named_classes_that_are_missing_or_doubled_are_refused(root):
    train, val = root / "train", root / "val"
    line = f"{train}: no class folder 'catt', listed in class_names; did you mean 'cat'?"
    assert refusal(config(root, classes=2, class_names=["ant", "catt"])) == line
    line = f"{train}: no class folder 'x', listed in class_names"
    assert refusal(config(root, classes=2, class_names=["ant", "x"])) == line
    (val / "bee").rename(val / "wasp")
    line = f"{val}: no class folder 'bee', listed in class_names"
    given = config(root, classes=2, class_names=["ant", "bee"])
    assert refusal(given) == refusal(given, "test") == line
    line = f"{train}: class_names has 'ant' twice; expected every class once"
    assert refusal(config(root, classes=2, class_names=["ant", "ant"])) == line
    line = f"{train}: 2 classes; expected 3, the dataset's `classes`"
    assert refusal(config(root, class_names=["cat", "ant"])) == line
