"""Batched augmentation and rearranging of images, against torchvision and loops, image by image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from edc.data.augment import Normaliser, crop_boxes, pad_crop, paste, resized_crop, shared_crop
from edc.data.augment import shuffle_strips, strip_index

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def pictures(n: int = 4, channels: int = 3, size: int = 8, seed: int = 0) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, size, size), generator=draws, dtype=torch.uint8)


def test_encoding_is_that_of_torchvision() -> None:
    images = pictures()
    expected = tv.normalize(images.float() / 255, list(IMAGENET[0]), list(IMAGENET[1]))
    torch.testing.assert_close(Normaliser(*IMAGENET).encode(images), expected, rtol=1e-6, atol=1e-6)


def test_boxes_cover_all_places() -> None:
    boxes = crop_boxes(np.random.default_rng(0), 4000, 8, (0.25, 0.25), (1.0, 1.0))
    places, counts = np.unique(boxes, axis=0, return_counts=True)
    assert places.tolist() == [[t, left, 4, 4] for t in range(5) for left in range(5)]
    assert counts.min() > 100


@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from([1, 3]), st.integers(4, 20))
@settings(max_examples=40, deadline=None)
def test_resized_crop_is_that_of_torchvision(seed: int, n: int, channels: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    boxes, flips = crop_boxes(rng, n, size, (0.08, 1.0)), rng.random(n) < 0.5
    images = pictures(n, channels, size, seed).float()
    actual = resized_crop(images, torch.from_numpy(boxes), size, torch.from_numpy(flips))
    for image, box, flip, result in zip(images, boxes.tolist(), flips, actual, strict=True):
        expected = tv.resized_crop(image[None], *box, size=[size, size], antialias=True)[0]
        expected = tv.horizontal_flip(expected) if flip else expected
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-2)  # of 255 grey levels
    torch.testing.assert_close(
        resized_crop(images, torch.from_numpy(boxes), size),
        resized_crop(images, torch.from_numpy(boxes), size, torch.zeros(n, dtype=torch.bool)),
    )


def test_whole_image_is_left_as_it_is() -> None:
    images = pictures(2).float()
    whole = torch.tensor([[0, 0, 8, 8]] * 2)
    assert torch.equal(resized_crop(images, whole, 8), images)
    assert torch.equal(resized_crop(images, whole, 8, torch.tensor([True, False]))[0], images[0].flip(-1))
    assert torch.equal(shared_crop(images, (0, 0, 8, 8), True), images.flip(-1))


@pytest.mark.parametrize("box", [(0, 0, 8, 8), (1, 2, 5, 6), (7, 0, 1, 8), (3, 3, 1, 1)])
@pytest.mark.parametrize("flip", [False, True])
def test_shared_crop_is_that_of_torchvision(box: tuple[int, int, int, int], flip: bool) -> None:
    images = pictures(3).float().requires_grad_()
    result = shared_crop(images, box, flip)
    plain = images.detach().clone().requires_grad_()
    expected = tv.resized_crop(plain, *box, size=[8, 8], antialias=False)
    expected = tv.horizontal_flip(expected) if flip else expected
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-4)
    weights = torch.rand(result.shape, generator=torch.Generator().manual_seed(1))
    (result * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(images.grad, plain.grad)


@pytest.mark.parametrize("pad", [0, 1, 4])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_padded_crop_equals_a_loop(pad: int, dtype: torch.dtype) -> None:
    images = pictures(6, size=5).to(dtype)
    rng = np.random.default_rng(pad)
    offsets = torch.from_numpy(rng.integers(0, 2 * pad + 1, (6, 2)))
    flips = torch.from_numpy(rng.random(6) < 0.5)
    actual = pad_crop(images, offsets, pad, flips)
    assert actual.dtype == dtype
    for image, (top, left), flip, result in zip(images, offsets.tolist(), flips, actual, strict=True):
        expected = tv.pad(image, [pad] * 4)[:, top : top + 5, left : left + 5]
        assert torch.equal(result, expected.flip(-1) if flip else expected)
    centred = torch.full((6, 2), pad)
    assert torch.equal(pad_crop(images, centred, pad), images)


@given(st.lists(st.tuples(*[st.integers(0, 6)] * 4), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_paste_leaves_the_rest_untouched(corners: list[tuple[int, int, int, int]]) -> None:
    n = len(corners)
    own, other = pictures(n, size=6), pictures(n, size=6, seed=1)
    result = paste(own, other, torch.tensor(corners))
    for i, (top, left, bottom, right) in enumerate(corners):
        expected = own[i].clone()
        expected[:, top:bottom, left:right] = other[i, :, top:bottom, left:right]
        assert torch.equal(result[i], expected)


def numbered(n: int, height: int, width: int) -> Tensor:
    return torch.arange(n * 2 * height * width).view(n, 2, height, width)


def plain(image: Tensor, columns: list[int], rows: list[int]) -> Tensor:
    """Cut into strips, put together in another order: columns, then rows."""
    strips = image.tensor_split(len(columns), dim=-1)
    image = torch.cat([strips[j] for j in columns], dim=-1)
    strips = image.tensor_split(len(rows), dim=-2)
    return torch.cat([strips[j] for j in rows], dim=-2)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(4, 9), st.integers(4, 9), st.integers(0, 10**6))
@settings(max_examples=80, deadline=None)
def test_strips_change_places_image_by_image(n: int, factor: int, height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    order = np.broadcast_to(np.arange(factor), (n, factor))
    columns, rows = (torch.from_numpy(rng.permuted(order, axis=1)) for _ in range(2))
    images = numbered(n, height, width)
    actual = shuffle_strips(images, columns, rows)
    assert actual.is_contiguous()
    for image, result, across, down in zip(images, actual, columns.tolist(), rows.tolist(), strict=True):
        assert torch.equal(result, plain(image, across, down))
        assert torch.equal(result.flatten(1).sort(dim=1).values, image.flatten(1))  # no pixel lost, none twice


def test_strips_keep_their_width() -> None:
    assert strip_index(torch.tensor([[0, 1], [1, 0]]), 5).tolist() == [[0, 1, 2, 3, 4], [3, 4, 0, 1, 2]]
