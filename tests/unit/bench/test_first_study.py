"""The first study of a new dataset: its size, and what the plan of it refuses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.pictures import fill

from edc.bench.dataset_sizes import check_data, check_ipc
from edc.bench.first_study import new_study, write_first_study
from edc.config.plan import make_plan
from edc.data.new import new_dataset
from edc.errors import EdcError

pytestmark = pytest.mark.usefixtures("new_checkout")


def test_the_first_study_fits_the_time_and_the_smallest_class(pets: Path) -> None:
    made = new_dataset("pets", pets, 16)
    sizes = []
    for minutes in (0, 1e6):
        path, line = write_first_study("pets", made, minutes)
        plan = make_plan("pets")
        assert {row.recipe for row in plan.evaluate.values()} == {"random", "edc", "rded", "easy", "full"}
        assert {tuple(row.seeds) for row in plan.evaluate.values()} == {(0, 1, 2)}
        assert max(row.ipc for row in plan.synthesize.values()) == 7  # of eight, one is held out
        assert ("exceeded" in line) == (minutes == 0)
        sizes.append(max(row.epochs for row in plan.evaluate.values() if row.images is not None))
        # With one step in an epoch, networks still train for enough of them.
        assert min(row.epochs for row in [*plan.pretrain.values(), *plan.evaluate.values()]) >= 300
        assert max(row.epochs for row in plan.evaluate.values() if row.images is None) >= 1500
        path.unlink()
    assert sizes[0] < sizes[1]
    assert not list(Path("workflow/datasets").glob("*.tmp"))


def test_more_images_per_class_than_there_are_are_refused_when_planned(pets: Path) -> None:
    study, _ = write_first_study("pets", new_dataset("pets", pets, 16), 1e6)
    check_ipc(make_plan("pets"))
    study.write_text(study.read_text().replace("ipc: [1, 7]", "ipc: [1, 8]"))
    with pytest.raises(EdcError, match="ipc = 8, but the smallest class of pets has 7 images to train on"):
        check_ipc(make_plan("pets"))


def test_crops_that_are_tiled_need_their_images(pets: Path) -> None:
    study, _ = write_first_study("pets", new_dataset("pets", pets, 16), 1e6)
    study.write_text(study.read_text().replace("factor: 1", "factor: 2"))
    with pytest.raises(EdcError, match="rded-ipc7: 28 crops are tiled, but the smallest class of pets has 7 images"):
        check_ipc(make_plan("pets"))


def test_without_a_study_there_is_no_dataset(pets: Path) -> None:
    Path("workflow/recipes").unlink()
    Path("workflow/recipes").mkdir()  # no recipe that the study names
    with pytest.raises(EdcError, match="unknown recipe 'random'"):
        new_study("pets", pets, 16, 0.2, 20, print)
    assert not [*Path("workflow/datasets").iterdir(), *Path("workflow/studies").iterdir()]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda: shutil.rmtree("pets/train/bee"), "pets/test: class 1 is 'bee'; expected 'cat' as in"),
        (lambda: [path.unlink() for path in Path("pets/test/bee").iterdir()], "pets/test: class 'bee' has no image"),
        (lambda: (shutil.rmtree("pets/test"), Path("pets/test").symlink_to("train")), "the same folder as"),
    ],
)
def test_data_that_changed_since_are_refused_when_planned(damage: Callable[[], object], words: str) -> None:
    for number, name in enumerate(("ant", "bee", "cat")):
        fill(Path("pets/train") / name, 100 * number, 8)
        fill(Path("pets/test") / name, 100 * number + 50, 2)
    write_first_study("pets", new_dataset("pets", Path("pets"), 16), 0)
    check_data(make_plan("pets"))
    damage()
    with pytest.raises(EdcError, match=words):
        check_data(make_plan("pets"))
    Path("pets").rename("elsewhere")  # a plan may be made where the data are not
    check_data(make_plan("pets"))
