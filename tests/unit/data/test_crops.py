"""Random rectangles for pictures of any shape, against torchvision's rule gone through try by try."""

import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from edc.data.crops import CropDraws, crop_and_resize, crop_boxes, draw_crops

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
