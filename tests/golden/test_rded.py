"""RDED: its scores, composites and tables of settings."""

from typing import Any

import pytest
import torch
from support import REPOSITORY
from support.published import ChannelMeans, checks, close, counted

from edc import nets
from edc.condense.composites import best_crops, best_images, padded, scores, tile
from edc.config import files as studies
from edc.config import layers as layering
from edc.config.choices import SynthesisChoices
from edc.config.protocol import LabelChoices, StudentChoices
from edc.data.augment import shuffle_strips
from edc.nets import weight_decay_groups


@checks("rded.scoring")
def test_scores_of_crops(case: dict[str, Any]) -> None:
    images, crops, side = (case[name] for name in ("images", "crops_per_image", "crop_hw"))
    numbers = torch.arange(images * crops * 3 * side * side)
    patches = ((numbers**2 * 37) % 1009).float().div(500).sub(1).view(images, crops, 3, side, side)
    labels = torch.full((images * crops,), case["label"])
    losses = scores([ChannelMeans()], patches.flatten(0, 1), labels, case["padded_hw"]).view(images, crops)
    close(losses.T, case["ce_loss_crop_by_image"])
    best, lowest = best_crops(losses)
    assert best.tolist() == case["best_crop_per_image"]
    close(lowest, case["best_loss"])
    order = best_images(lowest, 4)
    assert order.tolist() == case["selected_image_order_top4"]
    close(patches[torch.arange(images), best][order][0], case["selected_first_patch"])


@checks("rded.pad")
def test_padding(case: list[dict[str, int]]) -> None:
    for given in case:
        whole = padded(torch.ones(1, 1, given["src"], given["src"]), given["dst"])
        assert whole.shape[-2:] == (given["dst"], given["dst"])
        for inside in (whole[0, 0].any(dim=0), whole[0, 0].any(dim=1)):
            where = inside.nonzero().flatten().tolist()
            assert (where[0], given["dst"] - 1 - where[-1]) == (given["left_top"], given["right_bottom"])
        assert whole.sum() == given["src"] ** 2


@checks("rded.tiling_factor2", "rded.tiling_factor2_out5")
def test_tiling(case: dict[str, Any]) -> None:
    images = tile(counted(8, 3, 2, 2), 2, case["out_size"])
    assert len(images) == 2
    for i, image in enumerate(images):
        if (expected := case.get(f"image{i}_channel0")) is not None:
            assert image[0].tolist() == expected


@checks("rded.shuffle_patches_factor2_4x4", "rded.shuffle_patches_distinct_outputs_factor2")
def test_patch_shuffle(case: dict[str, Any] | int) -> None:
    swaps = torch.tensor([[0, 1], [1, 0]])
    columns, rows = swaps.repeat_interleave(2, 0), swaps.repeat(2, 1)
    layouts = shuffle_strips(counted(1, 1, 4, 4).expand(4, -1, -1, -1), columns, rows).tolist()
    if isinstance(case, int):
        assert len({str(layout) for layout in layouts}) == case
    else:
        assert all(output in layouts for output in case["outputs"])


@checks("rded.weight_decay_groups_resnet18")
def test_what_decays(case: dict[str, int]) -> None:
    model = nets.build("torchvision:resnet18", classes=1000, image_size=64)
    decayed, rest = weight_decay_groups(model, 0.01)
    assert (len(decayed["params"]), len(rest["params"])) == (case["decayed_tensors"], case["undecayed_tensors"])
    assert sum(p.numel() for p in decayed["params"]) == case["decayed_params"]


# Their names of data sets and networks, and ours: family of the data set, or network.
FAMILIES = {"cifar10": "cifar10", "cifar100": "cifar100", "tinyimagenet": "tiny_imagenet", "imagenet-1k": "imagenet1k"}
FAMILIES |= {"imagenet-10": "imagenet10", "imagenet-nette": "imagenette", "imagenet-woof": "imagewoof"}
FAMILIES |= {"imagenet-100": "imagenet100"}
STUDENTS = {"resnet18_modified": "resnet18", "resnet101_modified": "resnet101", "vgg11": "vgg11_bn"}


@pytest.fixture
def workflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


def families() -> set[str]:
    return {studies.read("datasets", name).data.get("family", name) for name in studies.names("datasets")}


@pytest.mark.usefixtures("workflow")
@checks("rded.config_table")
def test_recipe_and_protocol_of_rded(case: list[dict[str, Any]]) -> None:
    """Wherever their table gives a batch size, our files give theirs; for the others any will do."""
    recipe, protocol = studies.read("recipes", "rded"), studies.read("protocols", "rded")
    compared = 0
    for given in case:
        family, ipc = FAMILIES[given["dataset"]], given["ipc"]
        if family not in families() or not given["arch"].startswith("resnet"):
            continue
        images = layering.resolve(
            recipe, layering.places(("synthesize",), family, ipc), SynthesisChoices, "rded"
        ).initialise
        labels = layering.resolve(protocol, layering.places(("relabel",), family, ipc), LabelChoices, "rded")
        student = layering.resolve(protocol, layering.places(("student",), family, ipc), StudentChoices, "rded")
        assert images.factor == given["factor"], given
        assert images.factor**2 * ipc == given["needed_patches"]
        assert (images.candidates >= given["needed_patches"]) or not given["enough_candidates"], given
        assert labels.crop_scale == (given["min_crop_scale_used"], 1.0), given
        assert labels.shuffle == given["factor"], given
        if given["batch_size"]:
            assert student.batch == given["batch_size"], given
        assert (student.loss.name, student.loss.temperature, student.loss.squared) == ("kl", given["T"], False)
        optimiser = student.optimiser
        assert (optimiser.name, optimiser.lr, optimiser.weight_decay) == ("adamw", given["adamw_lr"], given["wd"])
        assert (student.schedule.name, student.schedule.zeta, student.epochs) == ("smoothing", 2.0, 300)
        compared += 1
    assert compared >= 10


@pytest.mark.usefixtures("workflow")
@checks("rded.student_adamw_lr")
def test_rates_of_students_under_rded(case: dict[str, float]) -> None:
    """Theirs by network; where they have none (a rate of 0 learns nothing), ours is above 0."""
    protocol = studies.read("protocols", "rded")
    for theirs, rate in case.items():
        name = STUDENTS.get(theirs, theirs)
        for network in (name, f"torchvision:{name}", f"timm:{name}"):
            own = protocol.students.get(network, {}).get("optimiser", {})
            result = own.get("lr", protocol.student["optimiser"]["lr"])
            assert result > 0, network
            if network in protocol.students and rate:
                assert result == rate, network
    named = {network.split(":")[-1] for network in protocol.students}
    apart = {
        STUDENTS.get(name, name) for name, rate in case.items() if rate not in (0, protocol.student["optimiser"]["lr"])
    }
    assert apart <= named


@pytest.mark.usefixtures("workflow")
@checks("rded.val_resize")
def test_test_images_are_resized_before_the_centre_crop(case: dict[str, int]) -> None:
    """Photographs at 224 px are brought to 256; smaller images are taken whole, as all the methods but RDED do."""
    sides = set()
    for name in studies.names("datasets"):
        data = studies.read("datasets", name).data
        side, resized = data["image_size"], data.get("resize") or data["image_size"]
        if str(side) in case:
            assert resized == (case[str(side)] if side == 224 else side), name
            sides.add(side)
    assert {32, 224} <= sides
