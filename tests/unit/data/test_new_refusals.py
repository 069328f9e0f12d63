"""`edc new` refuses at once what a later stage would refuse."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.pictures import fill

from edc.data.new import new_dataset
from edc.errors import EdcError

pytestmark = pytest.mark.usefixtures("new_checkout")


def _only_one_class(root: Path) -> None:
    fill(root / "ant", 0)


def _flat(root: Path) -> None:
    fill(root, 0)


def _small_class(root: Path) -> None:
    fill(root / "ant", 0)
    fill(root / "bee", 100, 2)


def _no_test_of_a_class(root: Path) -> None:
    for part in ("train", "test"):
        for name in ("ant", "bee"):
            (root / part / name).mkdir(parents=True)
    fill(root / "train" / "ant", 0)
    fill(root / "train" / "bee", 100)
    fill(root / "test" / "ant", 50)


def _test_is_train(root: Path) -> None:
    for number, name in enumerate(("ant", "bee")):
        for part in ("train", "test"):
            fill(root / part / name, 100 * number)


def _test_links_to_train(root: Path) -> None:
    for number, name in enumerate(("ant", "bee")):
        fill(root / "train" / name, 100 * number)
    (root / "test").symlink_to("train")


def _no_utf8(root: Path) -> None:
    fill(root / "ant", 0)
    os.mkdir(os.fsencode(root) + b"/b\xe9")


def _line_break(root: Path) -> None:
    fill(root / "ant", 0)
    fill(root / "bee\nwasp", 100)


def _two_lists(root: Path) -> None:
    root.mkdir()
    (root / "labels.csv").write_text("name,kind\na.png,ant\n")


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (_only_one_class, "one class, 'ant'; expected at least 2"),
        (_flat, "no class folder with pictures; expected CLASS/*, train/CLASS/* and test/CLASS/*, parquet files"),
        (_small_class, "class 'bee' has 1 readable images to train on and 1 to test; expected at least 2 and 1"),
        (_no_test_of_a_class, "test: class 'bee' has no image"),
        (_test_is_train, "20 of 20 test images are training images too"),
        (_test_links_to_train, "the same folder as pets/train"),
        (_no_utf8, "the name is not UTF-8; rename it"),
        (_line_break, "'bee\\nwasp': there is a control character in the name; rename it"),
        (_two_lists, "labels.csv: columns name, kind; expected path and label"),
    ],
)
def test_what_a_later_stage_would_refuse_is_refused_at_once(build: Callable[[Path], None], words: str) -> None:
    build(Path("pets"))
    with pytest.raises(EdcError) as caught:
        new_dataset("pets", Path("pets"), 16)
    assert words in str(caught.value).replace(f"{Path.cwd()}/", "")
    assert "\n" not in str(caught.value)
    assert not [*Path("workflow/datasets").iterdir(), *Path().glob(".edc")]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("My Pets", "pets", "name 'My Pets': expected lower-case letters"),
        ("1e5", "pets", "name '1e5': expected lower-case letters"),
        ("birds", "nowhere", "--data nowhere: no such folder"),
        ("taken", "pets", "workflow/datasets/taken.yaml: exists already"),
    ],
)
def test_names_and_folders_are_checked(pets: Path, name: str, data: str, words: str) -> None:
    Path("workflow/datasets/taken.yaml").touch()
    with pytest.raises(EdcError) as caught:
        new_dataset(name, Path(data), 16)
    assert words in str(caught.value)


def test_a_study_is_not_overwritten_and_odd_paths_are_one_line(pets: Path) -> None:
    Path("workflow/studies/mine.yaml").write_text("description: by hand\n")
    with pytest.raises(EdcError, match=r"workflow/studies/mine\.yaml: exists already"):
        new_dataset("mine", pets, 16)
    with pytest.raises(EdcError, match="no such folder"):
        new_dataset("pets", Path("~nosuchuser/x"), 16)
    (pets / "ant" / "0.png").rename(os.fsdecode(os.fsencode(pets / "ant") + b"/b\xe9.png"))
    with pytest.raises(EdcError, match="the name is not UTF-8; rename it"):
        new_dataset("pets", pets, 16)
