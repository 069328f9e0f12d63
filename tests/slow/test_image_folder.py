"""An image folder shaped like ImageNet, with torchvision's networks as observers, through every stage."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from support import REPOSITORY, laboratory

from edc import STAGES
from edc.config.plan import make_plan

pytestmark = pytest.mark.slow

NAMES = ["n02869837", "n01749939", "n02488291"]
"""In the label order of EDC's code, which is not the alphabetical one."""
COLOURS = {"n02869837": (200, 60, 50), "n01749939": (50, 190, 60), "n02488291": (60, 50, 200), "n01440764": (230,) * 3}
"""Of nearly every pixel of a class. The last class is none of the study's."""
SIZES = [(300, 240), (230, 320), (256, 256), (500, 226), (224, 224), (240, 400)]
SIDE, EPOCHS = 224, 2
RECIPES = {"edc": "edc", "rded": "rded", "sre2l": "sre2l", "random": "edc"}
"""Each with the protocol it brings along."""
OBSERVERS = ["torchvision:resnet18", "torchvision:shufflenet_v2_x0_5"]
DATASET: dict[str, Any] = {
    "inherits": "imagenet10", "description": "a few pictures in folders named by WordNet ids",
    "data": {"family": "wnids", "root": "imagenet", "classes": 3, "class_names": NAMES, "val_fraction": 0.25},
    "observers": OBSERVERS, "pretrain": {"epochs": 1, "batch": 6}, "statistics": {"batch": 6},
}  # fmt: skip
# After one epoch the observers are no better than chance; that such are refused is tested elsewhere.
PROTOCOL = {
    "student": {"epochs": EPOCHS, "batch": 3, "validations": 1},
    "relabel": {"min_accuracy": 0.0},
    "ipc": {1: {"student": {"batch": 3}}},
}
EDC = {"initialise": {"method": "composites", "factor": 2, "pool": 1, "crops": 2}, "optimise": {"iterations": 2}}
STUDY: dict[str, Any] = {
    "description": "224 pixels, streamed",
    "datasets": ["wnids"],
    "recipes": [*RECIPES, "full"],
    "ipc": [1],
    "protocols": ["default"],
    "students": ["torchvision:shufflenet_v2_x0_5"],
    "seeds": [0],
    "machine": {"device": "cpu", "threads": 1},
    "overrides": {
        "recipes": {
            "edc": {"synthesize": EDC},
            "rded": {"synthesize": {"initialise": {"crops": 2}}},
            "sre2l": {"synthesize": {"optimise": {"iterations": 2}}},
        },
        "protocols": {"real_data": {"student": {"epochs": 1}}, **dict.fromkeys(("edc", "sre2l", "rded"), PROTOCOL)},
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
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where every stage has run; only to be read."""
    folder, rng = tmp_path_factory.mktemp("wnids"), np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 2)):
        for name, colour in COLOURS.items():
            for i in range(count):
                paint(folder / "imagenet" / part / name / f"{name}_{i}.JPEG", colour, SIZES[i % len(SIZES)], rng)
    shutil.copytree(REPOSITORY / "workflow", folder / "workflow")
    for kind, values in (("datasets", DATASET), ("studies", STUDY)):
        (folder / "workflow" / kind / "wnids.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        plan = make_plan("wnids")
        for stage in STAGES:
            for key in getattr(plan, stage, {}):
                laboratory.execute(plan, stage, key)
    return folder


def manifests(folder: Path, stage: str = "*") -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob(f"runs/{stage}/*/manifest.json")}


def condensed(folder: Path, recipe: str) -> torch.Tensor:
    """The images of a recipe, one per class."""
    stored = load_file(folder / "runs/synthesize" / f"wnids-{recipe}-ipc1" / "images.safetensors")
    assert stored["labels"].tolist() == [0, 1, 2]
    assert (stored["images"].shape, stored["images"].dtype) == ((len(NAMES), 3, SIDE, SIDE), torch.uint8)
    return stored["images"]


def nearest(pixels: torch.Tensor) -> str:
    """The class whose colour a part of an image, uint8 (3, H, W), is nearest to."""
    mean = pixels.to(torch.float32).mean(dim=(1, 2))
    return min(COLOURS, key=lambda name: float((mean - torch.tensor(COLOURS[name])).norm()))


def test_every_stage_has_the_classes_in_the_order_of_the_dataset_file(finished: Path) -> None:
    made = [manifest for stage in STAGES for manifest in manifests(finished, stage).values()]
    assert len(made) == 2 + 1 + 4 + 4 + 5
    assert {tuple(manifest["classes"]) for manifest in made} == {tuple(NAMES)}
    assert len({manifest["class_hash"] for manifest in made}) == 1
    assert len({manifest["dataset_digest"] for manifest in made}) == 1
    assert {manifest["test_images"] for manifest in made if "scores" in manifest} == {2 * len(NAMES)}
    assert {manifest["params"]["dataset"]["streamed"] for manifest in made} == {True}


@pytest.mark.parametrize("recipe", RECIPES)
def test_images_are_of_their_class(finished: Path, recipe: str) -> None:
    images = condensed(finished, recipe)
    if recipe == "edc":  # two steps after the composites every image is still nearest to its class
        assert [nearest(image) for image in images] == NAMES
    half = SIDE // 2
    for image, name in zip(images, NAMES, strict=True) if recipe in ("random", "rded") else ():
        quarters = [image[:, y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
        assert [nearest(part) for part in quarters] == [name] * 4
        assert len({tuple(part.flatten().tolist()) for part in quarters}) == 4


def test_random_images_are_pictures_of_the_folder_resized_and_cropped(finished: Path) -> None:
    for image, name in zip(condensed(finished, "random"), NAMES, strict=True):
        folder = finished / "imagenet" / "train" / name
        closest, second, *_ = sorted(difference(image, path) for path in folder.iterdir())
        assert closest < 4 < 12 < second, "grey levels, on average; resampled once or twice makes two of them"


def difference(image: torch.Tensor, path: Path) -> float:
    """Mean difference of an image from a picture whose shorter side was brought to 256 pixels and cut to the centre."""
    with Image.open(path) as picture:
        scale = 256 / min(picture.size)
        size = round(picture.width * scale), round(picture.height * scale)
        resized = picture.resize(size, Image.Resampling.BILINEAR)
    left, top = ((side - SIDE) // 2 for side in resized.size)
    pixels = np.asarray(resized.crop((left, top, left + SIDE, top + SIDE))).transpose(2, 0, 1)
    return float(np.abs(pixels.astype(float) - image.numpy()).mean())


@pytest.mark.parametrize(("recipe", "protocol"), RECIPES.items())
def test_labels_are_of_every_epoch_image_and_class(finished: Path, recipe: str, protocol: str) -> None:
    key = f"wnids-{recipe}-ipc1-{protocol}"
    logits, static = (np.load(finished / "runs/relabel" / key / f"{name}.npy") for name in ("logits", "static"))
    assert (logits.shape, logits.dtype) == ((EPOCHS, len(NAMES), len(NAMES)), np.float16)
    assert (static.shape, static.dtype) == (logits.shape[1:], np.float16)
    assert np.isfinite(logits).all()
    assert logits.std() > 0
    observers = manifests(finished, "relabel")[key]["params"]["relabel"]["observers"]
    expected = OBSERVERS if protocol == "edc" else OBSERVERS[:1]
    assert observers == [f"wnids-{name.replace(':', '_')}" for name in expected]


def test_observers_end_with_the_classes_of_the_study(finished: Path) -> None:
    for name in ("resnet18", "shufflenet_v2_x0_5"):
        weights = load_file(finished / f"runs/pretrain/wnids-torchvision_{name}/weights.safetensors")
        assert weights["fc.weight"].shape[0] == len(NAMES)
