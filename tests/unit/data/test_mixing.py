"""Mixing and rearranging images."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edc.data.augment import shuffle_strips, strip_index


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


def test_strips_keep_their_width() -> None:
    assert strip_index(torch.tensor([[0, 1], [1, 0]]), 5).tolist() == [[0, 1, 2, 3, 4], [3, 4, 0, 1, 2]]
