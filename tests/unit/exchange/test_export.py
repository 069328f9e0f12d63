"""`edc export`: what each layout holds and which tools open it."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file
from support import laboratory as lab
from support.pets import (
    CLASSES,
    DATA,
    DATASET,
    FORMATS,
    LABELS,
    OF_IMAGES,
    REPLAY,
    RUN,
    finish,
    manifest,
    pixels,
    refused,
)
from torchvision.datasets import ImageFolder

import edc
from edc.config.plan import write_plan
from edc.config.rows import Dataset, RelabelRow
from edc.data.images import ImageSet
from edc.data.sets import load_split
from edc.exchange.export import export
from edc.exchange.importing import import_set
from edc.exchange.sets import read_set


@pytest.mark.parametrize("layout", FORMATS)
def test_content_of_an_export(layout, project):
    export(RUN, Path("out"), layout, LABELS)
    values = manifest("out")
    assert values["classes"] == list(CLASSES)
    assert values["class_hash"] == ImageSet(pixels(), OF_IMAGES, CLASSES).class_hash
    assert values["origin"]["run"] == RUN
    assert (values["origin"]["commit"], values["origin"]["dirty"]) == ("c0ffee", False)
    assert values["dataset"]["root"] is None
    assert "/here" not in json.dumps(values)
    assert RelabelRow(**values["relabel"]) == RelabelRow(**REPLAY)
    assert values["labels"] == {"static": [9, 3], "logits": [4, 9, 3]}
    for name in ("static.npy", "logits.npy"):
        assert Path("out", name).read_bytes() == Path("runs/relabel", LABELS, name).read_bytes()
    source, _ = read_set(Path("out"))
    assert torch.equal(source.images.images, pixels())
    assert torch.equal(source.images.labels, OF_IMAGES)
    export(RUN, Path("again"), layout, LABELS)
    first, second = (
        {p.relative_to(name): p.read_bytes() for p in Path(name).rglob("*") if p.is_file()} for name in ("out", "again")
    )
    assert first == second


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("labels", [None, LABELS])
def test_the_data_card(layout, labels, project):
    card = export(RUN, Path("out"), layout, labels).joinpath("README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "other"
    assert ("configs" in front) == (layout == "parquet")
    assert {"dataset-distillation", "ipc-3"} <= set(front["tags"])
    assert ("pip install PATH/OF/THE/CHECKOUT" in card) == (labels is not None)
    for part in ("**pets**: 9 images of\n3 classes, 3 of each", "c0ffee |", "## Licence", "filled in"):
        assert part in card
    assert "| convnet_d2 | edc | soft | 2 | 81.2 ± 0.5 |" in card, "of the test split alone"
    assert "99.0" not in card
    assert card.count("```") == (4 if labels else 2)
    assert ("edc.load(" in card) == (labels is not None)
    assert "{" not in card.replace("{{", "")


def test_the_folder_opens_with_torchvision(project):
    export(RUN, Path("out"), "folder", LABELS)
    table = json.loads(Path("out/classes.json").read_text())
    images = ImageFolder("out/train", target_transform=table["imagefolder_to_label"].__getitem__)
    assert images.classes == ["ant", "bee", "cat"]
    assert table["classes"] == list(CLASSES)
    original = pixels()
    for (path, _), (picture, label) in zip(images.samples, images, strict=True):
        number = int(Path(path).stem)
        assert label == number // 3
        assert np.array_equal(np.asarray(picture).transpose(2, 0, 1), original[number].numpy())


def test_the_parquet_opens_with_pyarrow_and_as_a_dataset(project):
    export(RUN, Path("out"), "parquet", LABELS)
    path = Path("out/data/train-00000-of-00001.parquet")
    table = pq.read_table(path)
    assert str(table.schema.field("image").type) == "struct<bytes: binary, path: string>"
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features == {
        "image": {"_type": "Image"},
        "label": {"names": list(CLASSES), "_type": "ClassLabel"},
        "class_id": {"dtype": "int64", "_type": "Value"},
    }
    assert table.column("label").to_pylist() == table.column("class_id").to_pylist() == OF_IMAGES.tolist()
    Path("out/data/test-00000-of-00001.parquet").write_bytes(path.read_bytes())  # a dataset has a test part
    dataset = DATASET | {"kind": "parquet", "root": "out/data", "val_fraction": 0.0, "image_column": "image"}
    train = load_split(Dataset(**dataset), "train")
    assert train.classes == CLASSES
    assert torch.equal(train.read(torch.arange(9)), pixels())


def test_the_tensors_open_without_this_project(project):
    export(RUN, Path("out"), "torch", LABELS)
    tensors = load_file("out/condensed.safetensors")
    assert set(tensors) == {"images", "labels"}
    assert torch.equal(tensors["images"], pixels())
    with safe_open("out/condensed.safetensors", "pt") as file:
        assert json.loads(file.metadata()["edc"]) == {"classes": list(CLASSES), "dataset": "pets"}


@pytest.mark.parametrize(("names", "pattern"), [("index", "{:05}/{:05}"), ("sre2l", "new{:03}/class{:03}_id{:03}")])
def test_folders_of_numbers_keep_the_label_order(names, pattern, project, capsys):
    export(RUN, Path("out"), "folder", LABELS, names)
    assert "ImageFolder" not in capsys.readouterr().err
    images = ImageFolder("out/train")
    assert images.targets == OF_IMAGES.tolist()
    for i, (path, label) in enumerate(images.samples):
        numbers = (label, i) if names == "index" else (label, label, i % 3)
        assert Path(path) == Path("out/train", f"{pattern.format(*numbers)}.png")
        assert np.array_equal(np.asarray(images[i][0]).transpose(2, 0, 1), pixels()[i].numpy())
    assert edc.load("out").classes == CLASSES
    assert "here i itself" in Path("out/README.md").read_text()


def test_folders_whose_names_are_not_in_label_order_are_pointed_out(project, capsys):
    export(RUN, Path("out"), "folder")
    warning = capsys.readouterr().err
    assert "out: the class names' alphabetical order is not the label order" in warning
    assert "--names index" in warning
    assert warning.count("\n") == 1


def test_exports_that_are_refused(project):
    Path("there").mkdir()
    refused(lambda: export(RUN, Path("there"), "torch"), "there: exists already")
    refused(lambda: export(RUN, Path("out"), "tensor"), "--format: unknown format 'tensor'")
    refused(lambda: export(RUN, Path("out"), "folder", None, "sre21"), "--names: unknown kind of names", "sre2l")
    refused(lambda: export(RUN, Path("out"), "torch", None, "index"), "--names index", "expected --format folder")
    refused(lambda: export(RUN, Path("out"), "ddranking"), "'pets'", "cifar10, cifar100, tiny_imagenet, imagenet1k")
    refused(lambda: export("pets-edc-ipc30", Path("out"), "torch"), "unknown finished synthesize run", RUN)
    refused(lambda: export(RUN, Path("out"), "torch", "pets"), "unknown finished relabel run 'pets'")
    write_plan(lab.plan())
    refused(lambda: export("images", Path("out"), "torch"), "synthesize run 'images': not finished yet; run `edc synth")
    finish("relabel", "stranger", REPLAY | {"images": "else"}, {"static.npy": np.zeros(1)})
    refused(lambda: export(RUN, Path("out"), "torch", "stranger"), "labels of 'else'", RUN)
    finish("relabel", "old", REPLAY, {"static.npy": np.zeros(1)})
    refused(lambda: export(RUN, Path("out"), "torch", "old"), "earlier version", "edc relabel --run old")
    path = Path("runs/synthesize", RUN, "manifest.json")
    text = path.read_text()
    path.write_text(text.replace('"bee"', '"bee/wasp"'))
    refused(lambda: export(RUN, Path("out"), "folder"), "'bee/wasp'", "--names index, or parquet or torch")
    path.write_text(text)
    images = Path("runs/synthesize", RUN, "images.safetensors")
    images.write_bytes(images.read_bytes()[:-1])
    refused(lambda: export(RUN, Path("out"), "torch"), "damaged or truncated")


@pytest.mark.parametrize("layout", FORMATS)
def test_a_damaged_export_is_refused(layout, project):
    export(RUN, Path("out"), layout, LABELS)
    values = manifest("out")
    # Pictures are compared by their pixels, everything else by its bytes.
    for victim in [*values["files"], *(["train/ant/00003.png"] if layout == "folder" else [])]:
        path = Path("out", victim)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        refused(lambda: import_set("back", Path("out"), "pets"), f"out/{victim}")
        refused(lambda: edc.load("out"), f"out/{victim}")
        path.unlink()
        refused(lambda: import_set("back", Path("out"), "pets"), "out")
        path.write_bytes(content)
    if layout == "folder":
        Path("out/train/ant/00003.png").rename("out/train/bee/00003.png")
        refused(lambda: import_set("back", Path("out"), "pets"), "out: images, classes or their order changed")
    Path("out/manifest.json").write_text("{")
    refused(lambda: import_set("back", Path("out"), "pets"), "out/manifest.json: damaged")
    for key, value in (("format", "edc condensed set, version 9"), ("layout", "tar"), ("relabel", 3)):
        Path("out/manifest.json").write_text(json.dumps(values | {key: value}))
        refused(lambda: import_set("back", Path("out"), "pets"), f"out/manifest.json: {key} = {value!r}")


def test_an_export_of_other_classes_is_refused(project):
    export(RUN, Path("out"), "torch")
    values = yaml.safe_load(Path("workflow/datasets/pets.yaml").read_text())
    changes = {
        ("class 0 is 'cat'", "'ant'"): {"class_names": ["ant", "bee", "cat"]},
        ("class 2 is 'bee'; expected the 2 of ",): {"class_names": ["cat", "ant"], "classes": 2},
        ("[3, 8, 8]", "[3, 16, 16]", "nothing is resized"): {"image_size": 16},
    }
    for parts, change in changes.items():
        Path("workflow/datasets/pets.yaml").write_text(yaml.safe_dump(values | {"data": DATA | change}))
        refused(lambda: import_set("back", Path("out"), "pets"), *parts)
