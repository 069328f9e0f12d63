"""Differentiable siamese augmentation (Zhao and Bilen, ICML 2021), every image with its own draws, as CIM uses it.

Colours, then one of a shift, a stretch or a turn, then a cutout; a mirror image is a choice of its own.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edc.data.augment import cutout_boxes, paste

SHIFT, STRETCH, TURN, CUTOUT = 1 / 8, 1.2, 15, 0.5
"""Largest shift, share of the side; largest factor along either axis; largest angle, degrees; side of the cutout."""


def draw(rng: np.random.Generator, n: int, size: int) -> Tensor:
    """Parameters of `n` square images of side `size`: (n, 13).

    Three uniform numbers for the colours, the 2 x 3 matrix from a view's coordinates (-1 to 1) to the image's, and
    the box of the cutout.
    """
    colours, which = rng.random((n, 3)), rng.integers(3, size=n)
    most = round(SHIFT * size)
    shift = rng.integers(-most, most + 1, (n, 2)) * 2 / size
    stretch = rng.uniform(1 / STRETCH, STRETCH, (n, 2))
    angle = np.radians(rng.uniform(-TURN, TURN, n))
    matrices = np.zeros((n, 2, 3))
    matrices[:, 0, 0] = np.choose(which, [1, stretch[:, 0], np.cos(angle)])
    matrices[:, 1, 1] = np.choose(which, [1, stretch[:, 1], np.cos(angle)])
    matrices[:, 0, 1] = np.where(which == 2, -np.sin(angle), 0)
    matrices[:, 1, 0] = np.where(which == 2, np.sin(angle), 0)
    matrices[:, :, 2] = np.where(which[:, None] == 0, shift, 0)
    drawn = torch.from_numpy(np.concatenate([colours, matrices.reshape(n, 6)], axis=1))
    return torch.cat([drawn, cutout_boxes(rng, n, size, CUTOUT)], dim=1).to(torch.float32)


def apply(images: Tensor, draws: Tensor) -> Tensor:
    """Augmented normalised images (N, C, S, S) by their draws (N, 13); what comes from outside is 0, the mean pixel.

    Brightness x + u - 1/2; saturation 2 u (x - m) + m with m the mean over channels; contrast (u + 1/2)(x - m) + m with
    m the mean over the image. Pixels are moved to the nearest.
    """
    brightness, saturation, contrast = draws[:, :3, None, None, None].unbind(1)
    x = images + brightness - 0.5
    grey = x.mean(dim=1, keepdim=True)
    x = 2 * saturation * (x - grey) + grey
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = (contrast + 0.5) * (x - mean) + mean
    grid = F.affine_grid(draws[:, 3:9].reshape(-1, 2, 3), list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return paste(x, x.new_zeros(()), draws[:, 9:])
