"""Mixing and rearranging images."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edc.data.mixing import mixup, shuffle_strips, strip_index


def pictures(n: int, height: int, width: int) -> Tensor:
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
    images = pictures(n, height, width)
    actual = shuffle_strips(images, columns, rows)
    assert actual.is_contiguous()
    for image, result, across, down in zip(images, actual, columns.tolist(), rows.tolist(), strict=True):
        assert torch.equal(result, plain(image, across, down))
        assert torch.equal(result.flatten(1).sort(dim=1).values, image.flatten(1))  # no pixel lost, none twice


@pytest.mark.parametrize("factor", [2, 3])
def test_only_some_layouts_can_occur(factor: int) -> None:
    """Cells stay in their strips: n!^2 layouts, 4 of 24 for a 2 by 2 tiling."""
    orders = list(permutations(range(factor)))
    columns = torch.tensor([a for a in orders for _ in orders])
    rows = torch.tensor([b for _ in orders for b in orders])
    image = torch.arange(factor**2).view(1, 1, factor, factor).expand(len(columns), -1, -1, -1)
    layouts = shuffle_strips(image, columns, rows).flatten(1)
    assert len(layouts.unique(dim=0)) == len(orders) ** 2
    for layout in layouts.view(-1, factor, factor):
        for strip in layout:
            assert len((strip // factor).unique()) == 1
        for strip in layout.T:
            assert len((strip % factor).unique()) == 1


def test_strips_keep_their_width() -> None:
    assert strip_index(torch.tensor([[0, 1], [1, 0]]), 5).tolist() == [[0, 1, 2, 3, 4], [3, 4, 0, 1, 2]]


def test_unshuffled_images_stay() -> None:
    images = pictures(2, 6, 7).to(torch.uint8)
    still = torch.arange(3).expand(2, -1)
    result = shuffle_strips(images, still, still)
    assert torch.equal(result, images)
    assert result.dtype == torch.uint8


def test_mixup_takes_a_share_per_image() -> None:
    images = pictures(3, 2, 2).float()
    before = images.clone()
    shares = torch.tensor([0.0, 0.5, 1.0]).view(-1, 1, 1, 1)
    result = mixup(images, images.flip(0), shares)
    assert torch.equal(result, torch.stack([images[2], images[1], images[2]]))
    assert torch.equal(images, before)
