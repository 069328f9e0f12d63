"""Data that is not what a dataset says: one line that names the place, exit code 2, and nothing written."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from checkout import Checkout
from PIL import Image
from samples import PETS, PETS_STUDY

PETS_PRETRAIN = ("edc", "pretrain", "--run", "pets-convnet_d1")


@pytest.fixture
def pets_project(pets, tmp_path) -> Checkout:
    """A planned checkout of the folder study to work in."""
    return pets.copy(tmp_path / "project")


@pytest.fixture(params=[False, True], ids=["resident", "streamed"])
def either(request, pets_project) -> Checkout:
    """The same with the pictures held in memory or decoded whenever they are read."""
    pets_project.edit("params.yaml", {"datasets.pets.streamed": request.param})
    return pets_project


@pytest.fixture(params=[False, True], ids=["resident", "streamed"])
def begun(request, once, pets, tmp_path) -> Checkout:
    """The folder study with its observer trained and its random images drawn."""

    def make(folder: Path) -> None:
        made = pets.copy(folder / "project")
        made.edit("params.yaml", {"datasets.pets.streamed": request.param})
        beside = made.start(*PETS_PRETRAIN)
        made.ok("edc", "synthesize", "--run", "pets-random-ipc1")
        assert beside.wait() == 0

    folder = once(f"pets-begun-{'streamed' if request.param else 'resident'}", make)
    return Checkout(folder / "project").copy(tmp_path / "project")


def plan_of(checkout: Checkout, name: str, dataset: dict) -> None:
    """Plan the folder study with another dataset."""
    checkout.write(f"workflow/datasets/{name}.yaml", dataset)
    checkout.write(f"workflow/studies/{name}.yaml", PETS_STUDY | {"datasets": [name]})
    checkout.ok("edc", "plan", name)


def test_a_data_folder_that_is_not_there(pets_project):
    assert "nowhere" in pets_project.refused("edc", "plan", "pets", "--data", "nowhere")


def test_no_data_root(pets_project, refused):
    plan_of(pets_project, "birds", PETS | {"data": PETS["data"] | {"kind": "parquet", "root": None}})
    line = refused(pets_project, "edc", "pretrain", "--run", "birds-convnet_d1")
    assert "dataset birds: no folder given" in line
    assert "EDC_DATA_BIRDS" in line
    assert "--data" in line


@pytest.mark.parametrize("made", [False, True], ids=["missing", "empty"])
def test_a_data_root_without_data(pets_project, refused, tmp_path, made):
    root = tmp_path / "elsewhere"
    if made:
        root.mkdir()
    line = refused(pets_project, *PETS_PRETRAIN, EDC_DATA_PETS=str(root))
    assert "EDC_DATA_PETS" in line
    assert f"{root} {'is empty' if made else 'does not exist'}" in line


def test_a_class_without_images(either, refused):
    for path in either.path("data/train/bee").iterdir():
        path.unlink()
    assert "data/train: class 'bee' has no image" in refused(either, *PETS_PRETRAIN)


def test_an_unreadable_image(either):
    path = either.path("data/train/bee/03.png")
    path.write_bytes(path.read_bytes()[:50])
    line = either.refused(*PETS_PRETRAIN)
    assert "data/train/bee/03.png" in line
    assert "unreadable_limit" in line


def test_class_folders_that_differ_between_train_and_test(either, refused):
    either.path("data/test/bee").rename(either.path("data/test/wasp"))
    line = refused(either, *PETS_PRETRAIN)
    assert "data/test: class 1 is 'cat'; expected 'bee'" in line


def test_a_class_that_is_missing_in_val(either, refused):
    either.path("data/test").rename(either.path("data/val"))
    shutil.rmtree(either.path("data/val/bee"))
    line = refused(either, *PETS_PRETRAIN)
    assert "data/val: class 1 is 'cat'; expected 'bee' as in data/train" in line


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_named_class_that_is_missing(either, refused, part):
    either.path("data/test").rename(either.path("data/val"))
    either.edit("params.yaml", {"datasets.pets.class_names": ["cat", "ant", "bee"]})
    either.path("data", part, "bee").rename(either.path("data", part, "beee"))
    line = refused(either, *PETS_PRETRAIN)
    assert f"data/{part}: no class folder 'bee', which class_names asks for; did you mean 'beee'?" in line


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["cat", "ant"], ["datasets.pets", "class_names has 2 names; expected 3"]),
        (["cat", "ant", "cat"], ["class_names has 'cat' twice"]),
    ],
    ids=["too few", "twice"],
)
def test_class_names_that_are_no_list_of_the_classes(either, refused, names, words):
    either.edit("params.yaml", {"datasets.pets.class_names": names})
    line = refused(either, *PETS_PRETRAIN)
    assert all(word in line for word in words), line


def test_a_number_of_classes_that_differs(either, refused):
    either.edit("params.yaml", {"datasets.pets.classes": 4})
    assert "3 classes; expected 4" in refused(either, *PETS_PRETRAIN)


def test_parquet_without_the_expected_columns(pets_project, refused):
    plan_of(pets_project, "birds", PETS | {"data": PETS["data"] | {"kind": "parquet", "root": "birds"}})
    pets_project.path("birds").mkdir()
    for part in ("train", "test"):
        pq.write_table(pa.table({"picture": [b""], "label": [0]}), pets_project.path("birds", f"{part}-0.parquet"))
    line = refused(pets_project, "edc", "pretrain", "--run", "birds-convnet_d1")
    assert "birds/train-0.parquet: no column 'img'; expected 'img' and 'label', found picture, label" in line


BEFORE_LABELS = [("statistics", "pets-p4"), ("relabel", "pets-random-ipc1-edc")]
"""Runs that read what the observer's training left, the last of them that makes labels."""


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "key"), BEFORE_LABELS)
def test_a_class_renamed_after_an_earlier_stage_ran(begun, refused, stage, key):
    for part in ("train", "test"):
        begun.path("data", part, "ant").rename(begun.path("data", part, "wasp"))
    line = refused(begun, "edc", stage, "--run", key)
    assert "disagree on the classes" in line
    assert "'ant'" in line
    assert "'bee'" in line


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "key"), BEFORE_LABELS)
def test_classes_in_another_order_than_the_observer_was_trained_on(begun, refused, stage, key):
    begun.edit("params.yaml", {"datasets.pets.class_names": ["cat", "ant", "bee"]})
    if stage == "relabel":  # the images themselves are of the new order, the observer's weights are not
        begun.ok("edc", "synthesize", "--run", "pets-random-ipc1")
    line = refused(begun, "edc", stage, "--run", key)
    assert re.search(r"disagree on the classes: class 0 is '(cat|ant)' in the first, '(cat|ant)' in the second", line)
    assert "results/pretrain/pets-convnet_d1" in line
    assert not begun.path("results", stage).exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "said"),
    [
        (BEFORE_LABELS[0], "different training images"),
        (BEFORE_LABELS[1], "observer pets-convnet_d1 is right on 33.3 % of held-out images"),
    ],
    ids=["statistics", "relabel"],
)
def test_class_folders_exchanged_after_an_earlier_stage_ran(begun, refused, run, said):
    train = begun.path("data/train")
    for old, new in (("ant", "tmp"), ("bee", "ant"), ("tmp", "bee")):
        (train / old).rename(train / new)
    stage, key = run
    assert said in refused(begun, "edc", stage, "--run", key)
    assert not begun.path("results", stage).exists()


@pytest.mark.slow
def test_images_changed_after_an_earlier_stage_ran(begun, refused):
    for picture in begun.path("data/train/ant").iterdir():
        Image.new("RGB", (8, 8)).save(picture)
    assert "different training images" in refused(begun, "edc", "statistics", "--run", "pets-p4")


@pytest.mark.slow
def test_weights_from_elsewhere_whose_classes_are_in_another_order(begun):
    # Nothing in such a file names its classes: only what the observer says of held-out images gives it away.
    weights = begun.path("elsewhere.safetensors")
    begun.path("results/pretrain/pets-convnet_d1/weights.safetensors").rename(weights)
    begun.edit(
        "params.yaml",
        {
            "datasets.pets.class_names": ["bee", "cat", "ant"],
            "pretrain.pets-convnet_d1.weights": weights.name,
            "pretrain.pets-convnet_d1.epochs": 0,
        },
    )
    for stage, key in (("pretrain", "pets-convnet_d1"), ("synthesize", "pets-random-ipc1")):
        begun.ok("edc", stage, "--run", key)
    line = begun.refused("edc", "relabel", "--run", "pets-random-ipc1-edc")
    assert "observer pets-convnet_d1 is right on 0.0 % of held-out images" in line
    assert "order of its classes" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tiny", "--data", "data"], "workflow/datasets/tiny.yaml: exists already"),
        (["My Pets", "--data", "data"], "name 'My Pets'"),
        (["birds", "--data", "nowhere"], "nowhere does not exist"),
        (["birds", "--data", "workflow"], "expected train/CLASS/*"),
    ],
    ids=["taken", "unfit", "missing", "no dataset"],
)
def test_new_refuses(pets_project, refused, words, said):
    assert said in refused(pets_project, "edc", "new", *words)
