"""Pixels of the published code: their range, random crops, and what mixes two images."""

from typing import Any

import numpy as np
import pytest
import torch
from support.published import checks, close, counted, find
from torchvision.transforms.v2 import functional as tv

from edc.data.augment import Normaliser, cutmix_box, mixup, paste, resized_crop, shared_crop
from edc.data.crops import CropDraws, crop_boxes, draw_crops

CIFAR = {"mean": (0.5071, 0.4867, 0.4408), "std": (0.2675, 0.2565, 0.2761)}


@checks("sre2l.clip_bounds")
def test_pixels_stay_in_range(case: dict[str, dict[str, list[float]]]) -> None:
    for constants in case.values():
        normaliser = Normaliser(constants["mean"], constants["std"])
        close(normaliser.low.flatten(), constants["low"])
        close(normaliser.high.flatten(), constants["high"])
        wild = torch.tensor([-100.0, 100.0]).view(1, 1, 1, 2).expand(1, 3, 1, 2).clone()
        close(normaliser.clamp_(wild)[0, :, 0], list(zip(constants["low"], constants["high"], strict=True)))


@pytest.mark.parametrize("name", ["imagenet", "cifar"])
@checks("edc.clip_denormalise_quantise")
def test_pixels_are_clipped(case: dict[str, Any], name: str) -> None:
    constants = find("sre2l.clip_bounds")["imagenet"] if name == "imagenet" else CIFAR
    normaliser = Normaliser(constants["mean"], constants["std"])
    x = torch.tensor(case["input_NCHW(1,3,1,3)"])
    assert normaliser.decode(x)[0].tolist() == case[f"{name}_uint8"]
    clipped = normaliser.clamp_(x)
    assert clipped is x
    close(clipped, case[f"{name}_clip"])
    close(clipped * normaliser.std + normaliser.mean, case[f"{name}_denorm"])
    assert normaliser.decode(clipped)[0].tolist() == case[f"{name}_uint8"]


@checks("sre2l.clip_denorm_quantise")
def test_pixels_become_bytes(case: dict[str, Any]) -> None:
    constants = find("sre2l.clip_bounds")[case["mean_std"]]
    normaliser = Normaliser(constants["mean"], constants["std"])
    x = torch.tensor(case["normalised_values"], dtype=torch.float32).expand(1, 3, 1, -1).clone()
    assert normaliser.decode(x)[0, :, 0].tolist() == case["uint8_truncated"]
    assert normaliser.decode(normaliser.clamp_(x))[0, :, 0].tolist() == case["uint8_truncated"]


@checks("rded.truncation_off_by_one_levels")
def test_grey_levels_lost_to_truncation(case: list[int]) -> None:
    constants = find("sre2l.clip_bounds")["imagenet"]
    normaliser = Normaliser(constants["mean"], constants["std"])
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 1, 256).expand(1, 3, 1, 256)
    lost = levels.int() - normaliser.decode(normaliser.encode(levels)).int()
    assert set(lost.unique().tolist()) == {0, 1}
    # Which of the levels fall depends on the last bit of every operation, and so on their order.
    assert lost.sum(dim=(0, 2, 3)).tolist() == pytest.approx(case, abs=5)


@checks("fkd_and_mixing.rrc_wh_math")
def test_sides_of_a_crop(case: list[dict[str, Any]]) -> None:
    assert len(case) == 27
    for given in case:
        area, aspect = (np.full((1, 10), given[name]) for name in ("area_fraction", "aspect"))
        _, _, height, width = CropDraws(area, aspect, np.zeros((1, 2))).boxes(given["H"], given["W"])[0].tolist()
        expected = given["w_h"] if given["accepted"] else [given["W"], given["H"]]
        assert [width, height] == expected, given


@checks("fkd_and_mixing.rrc_fallback")
def test_a_crop_that_never_fits_is_the_whole_image(case: str) -> None:
    assert case.startswith("after 10 rejected draws")
    never = np.full((1, 10), 1.0), np.full((1, 10), 4 / 3), np.zeros((1, 2))
    assert never[0].shape == draw_crops(np.random.default_rng(0), 1, (0.5, 1.0)).area.shape
    assert CropDraws(*never).boxes(32, 32).tolist() == [[0, 0, 32, 32]]
    assert CropDraws(*never).boxes(30, 90).tolist() == [[0, 25, 30, 40]]  # ratio 4 / 3


@checks("fkd_and_mixing.rrc_scale_1_1_on_32")
def test_crops_of_the_whole_area_are_the_whole_image(case: dict[str, Any]) -> None:
    boxes = crop_boxes(np.random.default_rng(0), case["n"], 32, (1.0, 1.0))
    shapes, counts = np.unique(boxes[:, 2:], axis=0, return_counts=True)
    assert {str(tuple(s)): n for s, n in zip(shapes.tolist(), counts.tolist(), strict=True)} == case["shapes"]


@checks("fkd_and_mixing.augmentation_shared_by_whole_batch")
def test_synthesis_crops_the_whole_batch_alike(case: bool) -> None:
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    result = shared_crop(image.expand(4, -1, -1, -1), (2, 3, 9, 11), True)
    assert bool((result == result[:1]).all()) is case


@checks("edc.rrc_coordinate_roundtrip")
def test_boxes_are_whole_pixels(case: list[dict[str, Any]]) -> None:
    """Boxes are kept as integers; the published code stores shares of the side, which come back as the same pixels."""
    image = torch.rand(1, 1, 224, 224, generator=torch.Generator().manual_seed(0))
    for given in case:
        assert given["decoded"] == given["ijhw"]
        assert (torch.tensor(given["stored_float32"]) * 224).round().int().tolist() == given["ijhw"]
        for antialias in (False, True):
            expected = tv.resized_crop(image, *given["ijhw"], size=[224, 224], antialias=antialias)
            close(resized_crop(image, torch.tensor([given["ijhw"]]), 224), expected, atol=2e-5)


@checks("fkd_and_mixing.cutmix_bbox")
def test_cutmix_rectangles(case: dict[str, Any]) -> None:
    """The sides are independent, so those of images that are not square follow from one call each."""
    assert len(case["rows"]) == 120
    for given in case["rows"]:
        height, width, lam, centre = given["dim2"], given["dim3"], given["lam"], (given["c2"], given["c3"])
        rows, columns = cutmix_box(lam, centre, height), cutmix_box(lam, centre, width)
        box = [rows[0], columns[1], rows[2], columns[3]]
        assert box == given["bbox_b1_b1_b2_b2"], given
        if height == width:
            assert list(cutmix_box(lam, centre, height)) == box
        zeros, ones = torch.zeros(1, 1, height, width), torch.ones(1, 1, height, width)
        close(paste(zeros, ones, torch.tensor([box])).mean(), given["pasted_fraction"])


@checks("edc.cutmix_bbox")
def test_cutmix_rectangles_of_edc(case: list[dict[str, Any]]) -> None:
    assert len(case) == 5
    for given in case:
        size, legacy = given["size_NCHW"][2], np.random.RandomState(given["np_seed"])
        centre = (int(legacy.randint(size)), int(legacy.randint(size)))
        assert list(cutmix_box(given["lam"], centre, size)) == given["bbox(x1,y1,x2,y2)"]


@checks("edc.cutmix_paste", "fkd_and_mixing.cutmix_tiny")
def test_cutmix(case: dict[str, Any]) -> None:
    expected = case.get("result") or case["output"]
    images = counted(*torch.tensor(expected).shape)
    mixed = paste(images, images[case["perm"]], torch.tensor([case["bbox"]] * 2))
    assert mixed.tolist() == expected
    assert torch.equal(images, counted(*images.shape))


@checks("fkd_and_mixing.mixup_tiny")
def test_mixup(case: dict[str, Any]) -> None:
    images = counted(2, 1, 3, 3)
    for share in (case["lam"], torch.full((2, 1, 1, 1), case["lam"])):
        close(mixup(images, images[case["perm"]], share), case["output"])
