"""Tiny-ImageNet in its original layout, made here with four classes."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.rows import refusal, source_config

from edc.data.sets import load_split

config = partial(source_config, "tiny_imagenet", classes=4, val_fraction=0.0)
WNIDS = ("n03", "n01", "n04", "n02")
VAL = [(f"val_{i}.JPEG", wnid) for i, wnid in enumerate(("n04", "n01", "n02", "n01", "n03"))]


def grey(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (value, value, value)).save(path, quality=95)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Training images have the grey value 40 times their class number and validation images that plus 20."""
    root = tmp_path / "tiny-imagenet-200"
    for wnid in WNIDS:
        for i in range(3):
            grey(root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", 40 * int(wnid[1:]))
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("boxes")
    for name, wnid in VAL:
        grey(root / "val" / "images" / name, 40 * int(wnid[1:]) + 20)
    lines = [f"{name}\t{wnid}\t0\t0\t62\t62\n" for name, wnid in VAL]
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    (root / "test" / "images").mkdir(parents=True)
    return root


@pytest.mark.parametrize("streamed", [False, True])
def test_every_image_has_the_class_of_its_folder_or_annotation(root: Path, streamed: bool) -> None:
    train, test = (load_split(config(root, streamed=streamed), split) for split in ("train", "test"))
    assert train.classes == test.classes == ("n01", "n02", "n03", "n04")
    assert train.labels.tolist() == np.repeat(range(4), 3).tolist()
    assert test.labels.tolist() == [0, 0, 1, 2, 3]
    for part, offset in ((train, 40), (test, 60)):
        values = part.read(range(len(part)))[:, 0, 0, 0].int()
        assert (values - (40 * part.labels.int() + offset)).abs().max() <= 2  # JPEG


def test_the_folder_that_holds_the_archive_s_is_a_root_too(root: Path) -> None:
    assert load_split(config(root.parent), "test").digest == load_split(config(root), "test").digest


def test_named_classes(root: Path) -> None:
    given = config(root, classes=2, class_names=["n04", "n01"])
    for split, labels in (("train", [0, 0, 0, 1, 1, 1]), ("test", [0, 1, 1])):
        result = load_split(given, split)
        assert result.classes == ("n04", "n01")
        assert sorted(result.labels.tolist()) == labels
        value = result.images[:, 0, 0, 0].int() - (20 if split == "test" else 0)
        assert [round(v / 40) for v in value.tolist()] == [4 if label == 0 else 1 for label in result.labels.tolist()]


def test_folders_that_disagree_with_the_list_of_classes_are_refused(root: Path) -> None:
    train, wnids = root / "train", root / "wnids.txt"
    (train / "n02").rename(train / "n05")
    line = f"{train}: class 1 is 'n03'; expected 'n02' as in {wnids}"
    assert refusal(config(root)) == refusal(config(root), "test") == line
    shutil.rmtree(train / "n05")
    assert refusal(config(root)) == line
    grey(train / "n02" / "images" / "a.JPEG", 80)
    grey(train / "n09" / "images" / "a.JPEG", 80)
    assert refusal(config(root)) == f"{train}: class 4 is 'n09'; expected the 4 of {wnids}"
    shutil.rmtree(train / "n09")
    wnids.write_text("n01\nn02\nn02\nn03\nn04\n")
    assert refusal(config(root)) == f"{wnids}: class 'n02' occurs twice; expected every class once"
    shutil.rmtree(train / "n03" / "images")
    wnids.write_text("\n".join(WNIDS))
    assert refusal(config(root)) == f"{train}: class 'n03' has no image; expected at least 1"


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ([*VAL[:4], ("val_4.JPEG", "n07")], "{path}: line 5: class 'n07'; expected one of wnids.txt"),
        ([*VAL[:4], ("val_4.JPEG", "")], "{path}: line 5: class ''; expected one of wnids.txt"),
        ([*VAL, VAL[1]], "{path}: line 6: image 'val_1.JPEG' a second time; expected every image once"),
        (VAL[:4], "{images}/val_4.JPEG: no line in val_annotations.txt; expected one per image"),
        ([*VAL, ("val_5.JPEG", "n01")], "{images}/val_5.JPEG: no such file; val_annotations.txt names it"),
    ],
)
def test_annotations_that_do_not_fit_are_refused(root: Path, changed: list[tuple[str, str]], line: str) -> None:
    path = root / "val" / "val_annotations.txt"
    path.write_text("".join(f"{name}\t{wnid}\t0\t0\t62\t62\n" if wnid else f"{name}\n" for name, wnid in changed))
    expected = line.format(path=path, images=root / "val" / "images")
    assert refusal(config(root)) == refusal(config(root), "test") == expected


def test_another_layout_is_refused(root: Path) -> None:
    layout = "expected the original layout of Tiny-ImageNet (for val/CLASS/* use kind folder)"
    path = root / "val" / "val_annotations.txt"
    path.unlink()
    assert refusal(config(root)) == f"{path}: no such file; {layout}"
    (root / "wnids.txt").unlink()
    assert refusal(config(root)) == f"{root / 'wnids.txt'}: no such file; {layout}"


def test_missing_folders_are_refused(root: Path) -> None:
    shutil.rmtree(root / "val" / "images")
    assert refusal(config(root)) == f"{root / 'val' / 'images'}: cannot be listed (No such file or directory)"
    shutil.rmtree(root / "train")
    assert refusal(config(root)) == f"{root / 'train'}: cannot be listed (No such file or directory)"
