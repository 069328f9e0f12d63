"""Batched augmentation, crops and rearranging of images, against torchvision and loops, image by image."""

import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from edc.data.augment import Normaliser, pad_crop, paste, resized_crop, shared_crop, shuffle_strips, strip_index
from edc.data.crops import CropDraws, crop_and_resize, crop_boxes, draw_crops

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def pictures(n: int = 4, channels: int = 3, size: int = 8, seed: int = 0) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, size, size), generator=draws, dtype=torch.uint8)


def test_encoding_is_that_of_torchvision() -> None:
    images = pictures()
    expected = tv.normalize(images.float() / 255, list(IMAGENET[0]), list(IMAGENET[1]))
    torch.testing.assert_close(Normaliser(*IMAGENET).encode(images), expected, rtol=1e-6, atol=1e-6)


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


SCALES = st.tuples(st.floats(0.05, 1.0), st.floats(0.05, 1.0)).map(sorted)
RATIOS = st.tuples(st.floats(0.2, 4.0), st.floats(0.2, 4.0)).map(sorted)
SIDES = st.integers(1, 300)


def by_hand(draws: CropDraws, i: int, height: int, width: int) -> list[int]:
    """torchvision's RandomResizedCrop.get_params with the draws of one picture."""
    for a, r in zip(draws.area[i], draws.aspect[i], strict=True):
        w = round(math.sqrt(a * height * width * r))
        h = round(math.sqrt(a * height * width / r))
        if 0 < w <= width and 0 < h <= height:
            top, left = draws.place[i]
            return [int(top * (height - h + 1)), int(left * (width - w + 1)), h, w]
    w, h = width, height
    if width / height < min(draws.ratio):
        h = round(w / min(draws.ratio))
    elif width / height > max(draws.ratio):
        w = round(h * max(draws.ratio))
    return [(height - h) // 2, (width - w) // 2, h, w]


@given(st.integers(0, 10**6), st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=6), SCALES, RATIOS)
@settings(max_examples=150, deadline=None)
def test_boxes_are_those_of_the_rule_and_inside_their_pictures(seed, sides, scale, ratio) -> None:
    assume(ratio[0] < ratio[1])
    draws = draw_crops(np.random.default_rng(seed), len(sides), scale, ratio)
    heights, widths = np.array(sides).T
    boxes = draws.boxes(heights, widths)
    assert boxes.dtype == np.int64
    for i, (height, width) in enumerate(sides):
        assert boxes[i].tolist() == by_hand(draws, i, height, width)
        top, left, h, w = boxes[i].tolist()
        assert top >= 0
        assert left >= 0
        assert h <= height - top
        assert w <= width - left


@given(st.integers(0, 10**6), st.integers(1, 8), SIDES, SIDES, st.data())
@settings(max_examples=60, deadline=None)
def test_a_picture_keeps_its_box_whatever_is_drawn_beside_it(seed, n, height, width, data) -> None:
    draws = draw_crops(np.random.default_rng(seed), n, (0.08, 1.0))
    whole = draws.boxes(height, width)
    index = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=5)))
    for rows in (index, torch.from_numpy(index)):
        part = draws[rows]
        assert len(part) == len(index)
        np.testing.assert_array_equal(part.boxes(height, width), whole[index])
    np.testing.assert_array_equal(draws[1:3].boxes(height, width), whole[1:3])


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [(300, 100, [83, 0, 133, 100]), (100, 300, [0, 83, 100, 133]), (100, 110, [0, 0, 100, 110])],
)
def test_where_nothing_fits_the_largest_centred_box_is_taken(height: int, width: int, box: list[int]) -> None:
    draws = CropDraws(np.full((2, 3), 1.0), np.full((2, 3), 0.01), np.full((2, 2), 0.9))
    assert draws.boxes(height, width).tolist() == [box] * 2


def test_square_boxes_keep_the_bits_they_always_had() -> None:
    """Stored labels replay these boxes: another bit would silently set every label beside its view."""
    result = hashlib.sha256()
    for seed in range(50):
        rng = np.random.default_rng(seed)
        for scale, ratio in (
            ((0.08, 1), (3 / 4, 4 / 3)),
            ((1, 1), (2, 4)),
            ((0.9, 1), (0.25, 0.5)),
            ((0.5, 1), (0.75, 4 / 3)),
        ):
            result.update(crop_boxes(rng, 40, 7 + seed * 5, scale, ratio).tobytes())
    assert result.hexdigest() == "684db45f33f69bd4a3debc94ade415d51350345862843dfa64b2f8c5b3d548a9"


@given(st.integers(0, 10**6), st.sampled_from([1, 3]), st.integers(4, 40), st.integers(4, 40), st.integers(1, 48))
@settings(max_examples=80, deadline=None)
def test_cut_out_is_within_a_grey_level_of_pillow(seed, channels, height, width, size) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (3, channels, height, width), dtype=np.uint8)
    boxes = draw_crops(rng, 3, (0.05, 1.0)).boxes(height, width)
    actual = crop_and_resize(torch.from_numpy(images), torch.from_numpy(boxes), size)
    assert (actual.shape, actual.dtype) == ((3, channels, size, size), torch.uint8)
    for image, (top, left, h, w), result in zip(images, boxes, actual.numpy(), strict=True):
        for plane, pixels in zip(image, result, strict=True):
            part = Image.fromarray(plane[top : top + h, left : left + w])
            expected = np.asarray(part.resize((size, size), Image.Resampling.BILINEAR))
            assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_a_whole_image_at_its_own_size_is_left_as_it_is() -> None:
    images = torch.randint(0, 256, (4, 3, 9, 9), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert torch.equal(crop_and_resize(images, torch.tensor([[0, 0, 9, 9]] * 4), 9), images)
