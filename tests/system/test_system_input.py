"""Bad input: one line that names file, key and value, exit code 2, and nothing written."""

from __future__ import annotations

import os
import re
import resource
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from checkout import Checkout
from PIL import Image
from samples import PETS, PETS_STUDY

from edc import STAGES

STUDY_FILE = "workflow/studies/tiny.yaml"
RECIPE = "workflow/recipes/edc.yaml"
PROTOCOL = "workflow/protocols/edc.yaml"
DATASET_FILE = "workflow/datasets/tiny.yaml"
SYNTHESIZE = "synthesize.tiny-edc-ipc1"
RDED = "synthesize.tiny-rded-ipc1"
EVALUATE = "evaluate.tiny-edc-ipc1-convnet_d2-edc"
PRETRAIN = ("edc", "pretrain", "--run", "tiny-convnet_w32")
PETS_PRETRAIN = ("edc", "pretrain", "--run", "pets-convnet_d1")

# What is changed in which file; what the line must say.
WORKFLOW_EDITS = {
    "recipe name": (STUDY_FILE, {"recipes": ["edcc"]}, ["unknown recipe 'edcc'", "'edc'", STUDY_FILE]),
    "protocol name": (STUDY_FILE, {"protocols": ["hard_labels"]}, ["unknown protocol 'hard_labels'", "'hard_label'"]),
    "dataset name": (STUDY_FILE, {"datasets": ["tinny"]}, ["unknown dataset 'tinny'", "'tiny'", STUDY_FILE]),
    "student name": (STUDY_FILE, {"students": ["convnet_w23"]}, ["unknown network 'convnet_w23'", "'convnet_w32'"]),
    "observer name": (
        DATASET_FILE,
        {"observers": ["convnet_d0", "wrn_16_2"]},
        ["unknown network 'convnet_d0'", "'convnet_d"],
    ),
    "overridden name": (STUDY_FILE, {"overrides.recipes.edcc": {}}, ["'edcc'", "'edc'", STUDY_FILE]),
    "study key": (STUDY_FILE, {"student": ["convnet_w32"]}, [STUDY_FILE, "unknown key 'student'", "'students'"]),
    "recipe key": (
        RECIPE,
        {"synthesize.optimise.iteration": 5},
        [RECIPE, "unknown key 'optimise.iteration'", "'optimise.iterations'"],
    ),
    "protocol key": (PROTOCOL, {"student.epoch": 5}, [PROTOCOL, "unknown key 'epoch'", "'epochs'"]),
    "dataset key": (DATASET_FILE, {"data.image_sise": 8}, [DATASET_FILE, "'image_sise'", "'image_size'"]),
    "recipe range": (RECIPE, {"synthesize.match.alpha": 1.5}, [RECIPE, "match.alpha = 1.5", "less than or equal to 1"]),
    "recipe choice": (RECIPE, {"synthesize.match.method": "norm"}, [RECIPE, "match.method = 'norm'", "'category'"]),
    "recipe registry": (
        RECIPE,
        {"synthesize.initialise.method": "reel"},
        [RECIPE, "initialise.method", "'reel'", "'real'"],
    ),
    "recipe observers": (RECIPE, {"observers": {"match": ["convnet_d1"]}}, [RECIPE, "observers.match: 'convnet_d1'"]),
    "recipe role": (RECIPE, {"observers": {"label": "first"}}, [RECIPE, "observers"]),
    "protocol observers": (
        PROTOCOL,
        {"observers": {"label": ["wrn"]}},
        [PROTOCOL, "observers.label: 'wrn'", "wrn_16_2"],
    ),
    "protocol mix": (PROTOCOL, {"relabel.mix": "cutmx"}, [PROTOCOL, "mix = 'cutmx'", "'cutmix'"]),
    "recipe type": (RECIPE, {"synthesize.optimise.lr": "fast"}, [RECIPE, "optimise.lr = 'fast'", "number"]),
    "family range": (
        RECIPE,
        {"families.digits.synthesize.optimise.lr": -1},
        [RECIPE, "families.digits", "optimise.lr = -1"],
    ),
    "override range": (
        STUDY_FILE,
        {"overrides.protocols.edc.student": {"epochs": 0}},
        ["epochs = 0", "greater than or equal to 1"],
    ),
    "dataset kind": (DATASET_FILE, {"data.kind": "digit"}, ["unknown dataset kind 'digit'", "'digits'"]),
    "channels": (DATASET_FILE, {"data.channels": 3}, [DATASET_FILE, "mean and std need 3 values"]),
    "no recipes": (STUDY_FILE, {"recipes": []}, [STUDY_FILE, "recipes"]),
    "repeated seed": (STUDY_FILE, {"seeds": [0, 0]}, [STUDY_FILE, "seeds"]),
    "variant name": (
        STUDY_FILE,
        {"variants": {"ema=on": {}}},
        [STUDY_FILE, "grids", "unknown variant 'ema=no'", "'ema=on'"],
    ),
    "variant range": (
        STUDY_FILE,
        {"variants.ema=no.protocol.student": {"ema": 2}},
        ["variant 'ema=no'", STUDY_FILE, "ema = 2", "less than or equal to 1"],
    ),
    "grid key": (STUDY_FILE, {"grids": [{"recipe": ["edc"]}]}, [STUDY_FILE, "'grids.0.recipe'", "'grids.0.recipes'"]),
    "unused override": (STUDY_FILE, {"overrides.recipes.gvbsm": {}}, [STUDY_FILE, "overrides.recipes", "'gvbsm'"]),
    "parent": (RECIPE, {"inherits": "edc_cod"}, ["unknown recipe 'edc_cod'", "'edc_code'", RECIPE]),
    "circle": (RECIPE, {"inherits": "edc"}, [RECIPE, "inherits from itself", "edc -> edc"]),
    "long circle": (RECIPE, {"inherits": "edc_code"}, [RECIPE, "inherits from itself", "edc -> edc_code -> edc"]),
}
PARAMS_EDITS = {
    "key": ({f"{EVALUATE}.epoch": 5}, [f"unknown key '{EVALUATE}.epoch'", f"'{EVALUATE}.epochs'"]),
    "section": ({"synthesise": {}}, ["unknown key 'synthesise'", "'synthesize'"]),
    "range": ({f"{EVALUATE}.optimiser.lr": -1}, [f"{EVALUATE}.optimiser.lr = -1", "greater than 0"]),
    "infinite": ({f"{EVALUATE}.optimiser.lr": float("inf")}, [f"{EVALUATE}.optimiser.lr = inf", "finite"]),
    "not a number": ({f"{SYNTHESIZE}.match.weight": float("nan")}, [f"{SYNTHESIZE}.match.weight = nan"]),
    "type": ({f"{EVALUATE}.epochs": "many"}, [f"{EVALUATE}.epochs = 'many'", "integer"]),
    "network": ({f"{EVALUATE}.student": "convnet_w23"}, [EVALUATE, "'convnet_w23'", "'convnet_w32'"]),
    "images": ({f"{EVALUATE}.images": "tiny-edc-ipc"}, [EVALUATE, "'tiny-edc-ipc'", "'tiny-edc-ipc1'"]),
    "observers": ({f"{SYNTHESIZE}.observers": ["tiny-convnet"]}, [SYNTHESIZE, "'tiny-convnet'", "'tiny-convnet_"]),
    "no observers": ({f"{SYNTHESIZE}.observers": []}, [SYNTHESIZE, "observers must not be empty"]),
    "no statistics": ({f"{SYNTHESIZE}.statistics": None}, [SYNTHESIZE, "statistics must name a row"]),
    "scorers": ({f"{RDED}.scorers": ["tiny-wrn_16"]}, [RDED, "'tiny-wrn_16'", "'tiny-wrn_16_2'"]),
    "no scorers": ({f"{RDED}.scorers": []}, [RDED, "scorers must not be empty"]),
    "no images": ({f"{EVALUATE}.images": None}, [EVALUATE, "images and labels must be given, or both be null"]),
    "labels of other images": (
        {f"{EVALUATE}.labels": "tiny-random-ipc1-edc"},
        [f"{EVALUATE}.labels = 'tiny-random-ipc1-edc'", "labels of 'tiny-random-ipc1'"],
    ),
    "images of another size": ({f"{EVALUATE}.ipc": 2}, [f"{EVALUATE}.ipc = 2", "'tiny-edc-ipc1'"]),
    "epochs without labels": ({f"{EVALUATE}.epochs": 7}, [EVALUATE, "epochs = 7", "labels for 6 epochs"]),
    "dataset": ({f"{EVALUATE}.dataset": "tinny"}, [EVALUATE, "'tinny'", "'tiny'"]),
    "row": ({"tables.tiny": 3}, ["tables.tiny = 3"]),
    "list": ({"evaluate": []}, ["evaluate = []"]),
}


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


# The files of the workflow


@pytest.mark.parametrize("edit", WORKFLOW_EDITS)
def test_a_mistake_in_a_workflow_file(project, refused, edit):
    file, changes, words = WORKFLOW_EDITS[edit]
    project.edit(file, changes)
    line = refused(project, "edc", "plan", "tiny")
    assert all(word in line for word in words), line


def test_an_unknown_study(project):
    assert "unknown study 'tinny'; did you mean 'tiny'?" in project.refused("edc", "plan", "tinny")
    assert "unknown study '../studies/tiny'" in project.refused("edc", "plan", "../studies/tiny")


def test_a_plan_that_is_no_text_is_kept(project):
    project.path("params.yaml").write_bytes(b"\xff\xfe\x00")
    before = project.path("dvc.yaml").read_bytes()
    assert "params.yaml: cannot be read (not UTF-8 text)" in project.refused("edc", "plan", "tiny")
    assert project.path("params.yaml").read_bytes() == b"\xff\xfe\x00"
    assert project.path("dvc.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("description: [open", [RECIPE, "not valid YAML"]),
        ("- a\n- b\n", [RECIPE, "mapping"]),
        ("", [RECIPE, "mapping"]),
        ("1: one\n", [RECIPE]),
    ],
    ids=["broken", "list", "empty", "number"],
)
def test_a_recipe_that_is_no_mapping(project, refused, text, words):
    project.write(RECIPE, text)
    line = refused(project, "edc", "plan", "tiny")
    assert all(word in line for word in words), line


def test_a_recipe_that_is_no_text(project):
    project.path(RECIPE).write_bytes(b"description: caf\xe9\n")
    assert RECIPE in project.refused("edc", "plan", "tiny")


def test_plan_outside_of_a_checkout(project):
    shutil.rmtree(project.path("workflow"))
    assert "workflow/studies" in project.refused("edc", "plan")
    assert "workflow/studies" in project.refused("edc", "plan", "tiny")


def test_a_data_folder_for_a_study_that_needs_none(project):
    assert "--data" in project.refused("edc", "plan", "tiny", "--data", ".")


def test_a_data_folder_that_is_not_there(pets_project):
    assert "nowhere" in pets_project.refused("edc", "plan", "pets", "--data", "nowhere")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sync", "tiny"], "--sync: expected neither a study"),
        (["--sync", "--cost"], "--sync: expected neither a study"),
        (["--cost"], "--cost: expected a study"),
        (["--data", "."], "--data: expected a study"),
        (["tiny", "--rate", "3"], "--rate: expected with --cost"),
        (["tiny", "--device-name", "it"], "--device-name: expected with --cost"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_say_nothing_together(project, refused, options, words):
    assert words in refused(project, "edc", "plan", *options)


# The plan


@pytest.mark.parametrize("edit", PARAMS_EDITS)
def test_a_mistake_in_the_plan(project, refused, edit):
    changes, words = PARAMS_EDITS[edit]
    project.edit("params.yaml", changes)
    line = refused(project, "edc", "tables", "--run", "tiny")
    assert line.startswith("edc: params.yaml: ")
    assert all(word in line for word in words), line


@pytest.mark.parametrize("text", ["study: [tiny\n", "study: tiny\n\tmachine: 3\n", "- tiny\n"])
def test_a_plan_that_is_no_yaml(project, refused, text):
    project.write("params.yaml", text)
    assert refused(project, "edc", "tables", "--run", "tiny").startswith("edc: params.yaml")
    assert refused(project, "edc", "plan", "--sync").startswith("edc: params.yaml")


def test_no_plan(project):
    project.path("params.yaml").unlink()
    assert "params.yaml: no plan here; write one with `edc plan STUDY`" in project.refused(*PRETRAIN)
    assert "params.yaml" in project.refused("edc", "plan", "--sync")


@pytest.mark.parametrize("stage", STAGES)
def test_an_unknown_run(project, refused, stage):
    known = next(iter(project.plan()[stage]), None)
    asked = known[:-1] if known else "tiny"
    line = refused(project, "edc", stage, "--run", asked)
    assert f"unknown {stage} run {asked!r}" in line
    assert known is None or f"did you mean {known!r}?" in line


# Data


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


# Results of earlier stages


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def change(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


READERS = {
    "pretrain/tiny-convnet_w32/weights.safetensors": ("statistics", "tiny-p4"),
    "statistics/tiny-p4/tiny-convnet_w32.safetensors": ("synthesize", "tiny-edc-ipc1"),
    "synthesize/tiny-edc-ipc1/images.safetensors": ("relabel", "tiny-edc-ipc1-edc"),
    "relabel/tiny-edc-ipc1-edc/logits.npy": ("evaluate", "tiny-edc-ipc1-convnet_d2-edc"),
}
WEIGHTS = next(iter(READERS))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "damage"),
    [*((name, cut) for name in READERS), (WEIGHTS, change), (WEIGHTS, Path.unlink)],
    ids=[*(name.split("/")[-1] for name in READERS), "changed", "missing"],
)
def test_a_damaged_result_of_an_earlier_stage(done, refused, name, damage):
    damage(done.path("results", name))
    stage, key, _ = name.split("/")
    reader, run = READERS[name]
    line = refused(done, "edc", reader, "--run", run)
    assert line.startswith(f"edc: results/{name}: ")
    assert f"`edc {stage} --run {key}`" in line


@pytest.mark.slow
@pytest.mark.parametrize("text", ["{", '{"stage": "pretrain"}', "[]"], ids=["cut", "keys", "list"])
def test_a_damaged_manifest(done, refused, text):
    done.path("results/pretrain/tiny-convnet_w32/manifest.json").write_text(text)
    line = refused(done, "edc", "statistics", "--run", "tiny-p4")
    assert line.startswith("edc: results/pretrain/tiny-convnet_w32/manifest.json: ")


@pytest.mark.slow
@pytest.mark.parametrize("text", ["{", "{}", '{"params": {"evaluate": []}, "scores": {}}'])
def test_a_damaged_manifest_below_the_tables(done, refused, text):
    name = "results/evaluate/tiny-edc-ipc1-convnet_d2-edc/manifest.json"
    done.path(name).write_text(text)
    assert refused(done, "edc", "tables", "--run", "tiny").startswith(f"edc: {name}: ")


@pytest.mark.slow
def test_a_stage_before_the_one_it_builds_on(project, refused):
    line = refused(project, "edc", "statistics", "--run", "tiny-p4")
    assert "results/pretrain/tiny-convnet_w32/manifest.json: no such file" in line
    line = refused(project, "edc", "tables", "--run", "tiny")
    assert "results/evaluate/tiny-edc-ipc1-convnet_d2-edc/manifest.json: no such file" in line


@pytest.mark.slow
def test_an_observer_that_is_implausibly_bad(done):
    shutil.rmtree(done.path("results/relabel/tiny-edc-ipc1-edc"))
    done.edit("params.yaml", {"relabel.tiny-edc-ipc1-edc.min_accuracy": 0.99})
    line = done.refused("edc", "relabel", "--run", "tiny-edc-ipc1-edc")
    assert "observer tiny-convnet_w32 is right on" in line
    assert "relabel.tiny-edc-ipc1-edc.min_accuracy" in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "key", "value"),
    [
        ("pretrain", "tiny-convnet_w32", {"optimiser.lr": 1e30}),
        ("synthesize", "tiny-edc-ipc1", {"match.weight": 1e38}),
        ("evaluate", "tiny-edc-ipc1-convnet_d2-edc", {"optimiser.lr": 1e30}),
    ],
)
def test_a_loss_that_is_no_number(done, stage, key, value):
    shutil.rmtree(done.path(f"results/{stage}/{key}"))
    done.edit("params.yaml", {f"{stage}.{key}.{name}": number for name, number in value.items()})
    line = done.refused("edc", stage, "--run", key)
    assert f"{stage}.{key}: diverged in" in line
    assert f"lower {stage}.{key}.optimi" in line


@pytest.mark.slow
def test_weights_of_another_network(done):
    done.edit(
        "params.yaml", {"pretrain.tiny-convnet_w32.weights": "results/pretrain/tiny-wrn_16_2/weights.safetensors"}
    )
    line = done.refused(*PRETRAIN)
    assert "results/pretrain/tiny-wrn_16_2/weights.safetensors" in line


# The machine


def test_a_gpu_where_there_is_none(project):
    project.edit("params.yaml", {"machine.device": "cuda"})
    line = project.refused(*PRETRAIN, CUDA_VISIBLE_DEVICES="")
    assert "machine.device = 'cuda'" in line


@pytest.mark.slow
def test_a_gpu_that_torch_cannot_use(project, tmp_path):
    project.edit("params.yaml", {"machine.device": "cuda"})
    line = project.refused(*PRETRAIN, CUDA_VISIBLE_DEVICES="GPU-00000000", TMPDIR=str(tmp_path))
    assert "machine.device" in line


def small_files():
    """No file may grow beyond 300 bytes: what a full disk looks like to a program."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["statistics", "relabel", "tables"])
def test_a_disk_without_room_for_the_results(done, stage):
    key = next(iter(done.plan()[stage]))
    shutil.rmtree(done.path("results", stage))
    line = done.refused("edc", stage, "--run", key, before=small_files)
    assert "cannot be written" in line
    assert "File too large" in line


@pytest.mark.slow
def test_a_disk_without_room_for_a_checkpoint(done):
    shutil.rmtree(done.path("results/statistics"))
    line = done.refused("edc", "statistics", "--run", "tiny-p4", before=small_files, EDC_CHECKPOINT_SECONDS="0")
    assert ".edc/checkpoints/statistics/tiny-p4.pt: cannot be written" in line


def test_a_disk_without_room_for_a_plan(project):
    project.path("params.yaml").unlink()
    project.path("dvc.yaml").unlink()
    assert "cannot be written (File too large)" in project.refused("edc", "plan", "tiny", before=small_files)


@pytest.mark.slow
def test_results_that_are_no_folder(project):
    project.path("results").write_text("")
    line = project.refused("edc", "synthesize", "--run", "tiny-random-ipc1")
    assert "results" in line


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_results_that_may_not_be_written(project):
    project.path("results").mkdir(mode=0o500)
    line = project.refused("edc", "synthesize", "--run", "tiny-random-ipc1")
    assert "Permission denied" in line


# A dataset of one's own


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
