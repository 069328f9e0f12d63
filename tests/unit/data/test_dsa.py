"""DSA: every image as a plain loop over its own draws makes it."""

import math

import numpy as np
import pytest
import torch

from edc.data import dsa

N, SIZE = 60, 16


@pytest.mark.parametrize("channels", [1, 3])
def test_views_are_those_of_a_plain_loop(channels: int) -> None:
    images = torch.randn(N, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    draws = dsa.draw(np.random.default_rng(0), N, SIZE)
    views, kinds = dsa.apply(images, draws), set()
    for x, view, numbers in zip(images.double(), views, draws.double(), strict=True):
        (a, b, c), (xx, xy, tx, yx, yy, ty), box = numbers[:3], numbers[3:9].tolist(), numbers[9:].int().tolist()
        x = x + a - 0.5
        x = (x - x.mean(0)) * 2 * b + x.mean(0)
        x = (x - x.mean()) * (c + 0.5) + x.mean()
        shift = [round(t * SIZE / 2) for t in (tx, ty)]
        kinds.add("shift" if any(shift) else "turn" if xy else "stretch" if (xx, yy) != (1, 1) else "none")
        assert max(map(abs, shift)) <= 2
        assert xy == pytest.approx(-yx)
        assert abs(xy) <= math.sin(math.radians(15)) + 1e-6
        assert xy or all(1 / 1.2 - 1e-6 <= s <= 1.2 for s in (xx, yy))
        assert (box[2] - box[0], box[3] - box[1]) == (8, 8)
        wrong = 0
        for i in range(SIZE):
            for j in range(SIZE):
                u, v = (j - 7.5), (i - 7.5)
                column, row = xx * u + xy * v + 7.5 + shift[0], yx * u + yy * v + 7.5 + shift[1]
                if min(abs(column % 1 - 0.5), abs(row % 1 - 0.5)) < 1e-4:
                    continue  # as near to one pixel as to another
                column, row = round(column), round(row)
                inside = 0 <= column < SIZE and 0 <= row < SIZE
                inside &= not (box[0] <= i < box[2] and box[1] <= j < box[3])
                expected = x[:, row, column] if inside else torch.zeros(channels)
                wrong += not torch.allclose(view[:, i, j].double(), expected.double(), atol=1e-4)
        assert wrong == 0
    assert kinds >= {"shift", "turn", "stretch"}
