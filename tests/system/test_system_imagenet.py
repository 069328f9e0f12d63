"""An image folder shaped like ImageNet, with torchvision's networks as observers, through the whole DAG."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkout import Checkout
from PIL import Image
from safetensors.torch import load_file

NAMES = ["n02869837", "n01749939", "n02488291"]
"""In the label order of EDC's code, which is not the alphabetical one."""
COLOURS = {"n02869837": (200, 60, 50), "n01749939": (50, 190, 60), "n02488291": (60, 50, 200), "n01440764": (230,) * 3}
"""What nearly every pixel of a class is like. The last class is none of the study's."""
SIZES = [(300, 240), (230, 320), (256, 256), (500, 226), (224, 224), (240, 400)]
SIDE, IPC, EPOCHS = 224, 1, 2
RECIPES = {"edc": "edc", "rded": "rded", "sre2l": "sre2l", "random": "edc"}
"""Each with the protocol it brings along."""
OBSERVERS = ["torchvision:resnet18", "torchvision:shufflenet_v2_x0_5"]

DATASET: dict[str, Any] = {
    "description": "a few pictures in folders named by WordNet ids",
    "title": "a folder like ImageNet",
    "data": {
        "kind": "folder",
        "image_size": SIDE,
        "resize": 256,
        "classes": len(NAMES),
        "class_names": NAMES,
        "streamed": True,
        "crop_scale": [0.08, 1.0],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "val_fraction": 0.25,
    },
    "observers": OBSERVERS,
    "pretrain": {
        "epochs": 1,
        "batch": 6,
        "optimiser": {"name": "sgd", "lr": 0.01, "momentum": 0.9},
        "schedule": {"name": "smoothing", "zeta": 3.0},
    },
    "statistics": {"patch": 16, "batch": 6},
}
STUDENT = {"epochs": EPOCHS, "batch": 3, "validations": 1}
# After one epoch the observers are no better than chance; that such are refused is tested elsewhere.
PROTOCOL = {"student": STUDENT, "relabel": {"min_accuracy": 0.0}}
STUDY: dict[str, Any] = {
    "description": "224 pixels, streamed",
    "datasets": ["wnids"],
    "recipes": [*RECIPES, "full"],
    "ipc": [IPC],
    "protocols": ["default"],
    "students": ["torchvision:shufflenet_v2_x0_5"],
    "seeds": [0],
    "machine": {"device": "cpu", "threads": 1},
    "overrides": {
        "recipes": {
            "edc": {
                "synthesize": {
                    "initialise": {"method": "composites", "factor": 2, "pool": 1, "crops": 2},
                    "optimise": {"iterations": 2},
                }
            },
            "rded": {"synthesize": {"initialise": {"crops": 2}}},
            "sre2l": {"synthesize": {"optimise": {"iterations": 2}}},
        },
        "protocols": {
            "edc": PROTOCOL,
            "sre2l": PROTOCOL,
            "rded": PROTOCOL | {"ipc": {1: {"student": {"batch": 3}}}},
            "real_data": {"student": {"epochs": 1}},
        },
    },
}


def paint(path: Path, colour: tuple[int, ...], size: tuple[int, int], rng: np.random.Generator) -> None:
    """A JPEG of some colour, with rough noise that survives compression."""
    width, height = size
    noise = rng.normal(0, 25, (height // 8 + 1, width // 8 + 1, 3))
    pixels = np.kron(noise, np.ones((8, 8, 1)))[:height, :width] + np.array(colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


@pytest.fixture(scope="module")
def ran(once, planned) -> Checkout:
    """The study after one runner; only to be read."""

    def make(folder: Path) -> None:
        made, data = planned.copy(folder / "project"), folder / "imagenet"
        rng = np.random.default_rng(0)
        for part, count in (("train", 6), ("val", 2)):
            for name, colour in COLOURS.items():
                for i in range(count):
                    paint(data / part / name / f"{name}_{i}.JPEG", colour, SIZES[i % len(SIZES)], rng)
        made.write("workflow/datasets/wnids.yaml", DATASET)
        made.write("workflow/studies/wnids.yaml", STUDY)
        made.ok("edc", "plan", "wnids", "--data", str(data))
        made.ok("snakemake", "--cores", "all", "--resources", "gpu=4")

    return Checkout(once("wnids", make) / "project")


def manifest(checkout: Checkout, stage: str, key: str) -> dict[str, Any]:
    return json.loads(checkout.path("results", stage, key, "manifest.json").read_text())


def condensed(checkout: Checkout, recipe: str) -> tuple[torch.Tensor, list[int]]:
    """Images of a recipe and their labels."""
    stored = load_file(checkout.path("results/synthesize", f"wnids-{recipe}-ipc{IPC}", "images.safetensors"))
    return stored["images"], stored["labels"].tolist()


def nearest(pixels: torch.Tensor) -> str:
    """The class whose colour a part of an image, uint8 (3, H, W), is like."""
    mean = pixels.to(torch.float32).mean(dim=(1, 2))
    return min(COLOURS, key=lambda name: float((mean - torch.tensor(COLOURS[name])).norm()))


@pytest.mark.slow
@pytest.mark.early(3)
def test_every_stage_knows_the_classes_in_the_order_of_the_dataset_file(ran):
    runs = [name.split("-", 1) for name in ran.stages() if not name.startswith("tables")]
    assert {stage: sum(s == stage for s, _ in runs) for stage, _ in runs} == {
        "pretrain": 2,
        "statistics": 1,
        "synthesize": 4,
        "relabel": 4,
        "evaluate": 5,
    }
    made = [manifest(ran, stage, key) for stage, key in runs]
    assert {tuple(one["classes"]) for one in made} == {tuple(NAMES)}
    assert len({one["class_hash"] for one in made}) == len({one["dataset_digest"] for one in made}) == 1
    assert {(one["test_images"], one["params"]["dataset"]["streamed"]) for one in made if "scores" in one} == {
        (2 * len(NAMES), True)
    }


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["random", "rded"])
def test_images_chosen_among_real_ones_are_of_their_class(ran, recipe):
    images, labels = condensed(ran, recipe)
    assert labels == [0, 1, 2]
    assert (images.shape, images.dtype) == ((len(NAMES) * IPC, 3, SIDE, SIDE), torch.uint8)
    half = SIDE // 2
    for image, label in zip(images, labels, strict=True):
        quarters = [image[:, y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
        assert [nearest(part) for part in quarters] == [NAMES[label]] * 4
        assert len({tuple(part.flatten().tolist()) for part in quarters}) == 4


@pytest.mark.slow
def test_random_images_are_pictures_of_the_folder_resized_and_cropped(ran):
    images, labels = condensed(ran, "random")
    folder = ran.root.parent / "imagenet" / "train"
    for image, label in zip(images, labels, strict=True):
        closest, second, *_ = sorted(difference(image, path) for path in (folder / NAMES[label]).iterdir())
        assert closest < 4 < 12 < second, "grey levels, on average; resampled once or twice makes two of them"


def difference(image: torch.Tensor, path: Path) -> float:
    """Mean difference of an image from a picture whose shorter side was brought to 256 pixels and cut to the centre."""
    with Image.open(path) as picture:
        scale = 256 / min(picture.size)
        resized = picture.resize(tuple(round(side * scale) for side in picture.size), Image.Resampling.BILINEAR)
    left, top = ((side - SIDE) // 2 for side in resized.size)
    pixels = np.asarray(resized.crop((left, top, left + SIDE, top + SIDE))).transpose(2, 0, 1)
    return float(np.abs(pixels.astype(float) - image.numpy()).mean())


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["edc", "sre2l"])
def test_images_that_are_optimised_have_their_size_and_moved(ran, recipe):
    images, labels = condensed(ran, recipe)
    assert labels == [0, 1, 2]
    assert (images.shape, images.dtype) == ((len(NAMES) * IPC, 3, SIDE, SIDE), torch.uint8)
    history = list(csv.DictReader(ran.path("results/synthesize", f"wnids-{recipe}-ipc{IPC}", "history.csv").open()))
    assert [int(row["iteration"]) for row in history] == [0, 1]
    if recipe == "edc":  # from composites, two steps on, every image is still nearest to its class
        assert [nearest(image) for image in images] == NAMES


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "protocol"), RECIPES.items())
def test_labels_are_of_every_epoch_image_and_class(ran, recipe, protocol):
    key = f"wnids-{recipe}-ipc{IPC}-{protocol}"
    folder = ran.path("results/relabel", key)
    logits, fixed = np.load(folder / "logits.npy"), np.load(folder / "static.npy")
    assert (logits.shape, logits.dtype) == ((EPOCHS, len(NAMES) * IPC, len(NAMES)), np.float16)
    assert (fixed.shape, fixed.dtype) == (logits.shape[1:], np.float16)
    assert np.isfinite(logits).all()
    assert logits.std() > 0
    asked = manifest(ran, "relabel", key)["params"]["relabel"]["observers"]
    assert asked == [f"wnids-{name.replace(':', '_')}" for name in (OBSERVERS if protocol == "edc" else OBSERVERS[:1])]


@pytest.mark.slow
def test_observers_end_with_the_classes_of_the_study(ran):
    for name, layer in (("resnet18", "fc.weight"), ("shufflenet_v2_x0_5", "fc.weight")):
        weights = load_file(ran.path(f"results/pretrain/wnids-torchvision_{name}/weights.safetensors"))
        assert weights[layer].shape[0] == len(NAMES)


@pytest.mark.slow
def test_the_tables_hold_every_recipe(ran):
    with ran.path("results/tables/table1.csv").open() as file:
        rows = {row["recipe"]: row for row in csv.DictReader(file) if row["dataset"] == "wnids"}
    assert {recipe: row["protocol"] for recipe, row in rows.items()} == RECIPES | {"full": "real_data"}
    assert all(0 <= float(rows[recipe]["final_mean"]) <= 100 for recipe in RECIPES)
    assert 0 <= float(rows["full"]["hard_mean"]) <= 100
    assert {row["image_bytes"] for recipe, row in rows.items() if recipe != "full"} == {str(3 * 3 * SIDE**2)}
    assert rows["full"]["image_bytes"] == str(12 * 3 * SIDE**2)
    assert rows["edc"]["random_mean"] == rows["random"]["final_mean"]
    assert (rows["edc"]["reported"], rows["edc"]["gain"] != "") == ("", True)
