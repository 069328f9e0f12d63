"""Data densification of G-VBSM (Shao et al., CVPR 2024, section 3.2): images of a class should differ from each other.

The spectrum of a class's Gram matrix is drawn towards its own softened self, which raises the small eigenvalues. With
raw eigenvalues, thousands apart for most images, the term is flat (measured: zero on groups of real pictures, small on
32 px noise, active on 224 px noise); ``normalise`` keeps them within reach of the temperature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from edc.condense.regularise import Visit

SIDE = 32
"""Views are pooled to so many pixels a side."""


def pooling(size: int, like: Tensor) -> Tensor:
    """Adaptive average pooling of an axis of ``size`` pixels to ``SIDE`` as a matrix (SIDE, size).

    A product, because the library's own backward adds in no fixed order on a GPU.
    """
    identity = torch.eye(size, device=like.device, dtype=like.dtype)
    return F.adaptive_avg_pool1d(identity[None], SIDE)[0].T


def vectors(views: Tensor) -> Tensor:
    """Views (B, C, H, W) pooled to 32 by 32 and flattened: (B, C * 1024)."""
    views = views.to(torch.float32)
    height, width = views.shape[-2:]
    if (height, width) != (SIDE, SIDE):
        views = pooling(height, views) @ views @ pooling(width, views).T
    return views.flatten(1)


def same_size_classes(labels: list[int]) -> list[list[list[int]]]:
    """Positions of every class's images, (G, n) nested, one entry per n; classes with one image are left out."""
    members: dict[int, list[int]] = {}
    for position, label in enumerate(labels):
        members.setdefault(label, []).append(position)
    sizes = sorted({len(found) for found in members.values()} - {1})
    return [[found for found in members.values() if len(found) == size] for size in sizes]


def spectrum_divergence(views: Tensor, labels: Tensor, tau: float, normalise: bool = False) -> Tensor:
    """Sum over classes of KL(softmax(l / tau) || softmax(l)), l the eigenvalues of the class's Gram matrix.

    Gradients reach the views through l, not through the softened target. Classes with the same number of images are
    solved as one batch.

    Args:
        views: (B, C, H, W).
        labels: (B,) classes.
        tau: temperature of the target.
        normalise: divide the Gram matrices by the number of values of a pooled view (C * 1024).

    Returns:
        A scalar; 0 where no class has two images.
    """
    found = vectors(views)
    total = found.new_zeros(())
    for group in same_size_classes(labels.tolist()):
        x = found[torch.tensor(group, device=views.device)]
        gram = x @ x.mT
        eigenvalues = torch.linalg.eigvalsh(gram / x.shape[-1] if normalise else gram)
        target = F.log_softmax(eigenvalues.detach() / tau, dim=-1)
        total = total + F.kl_div(F.log_softmax(eigenvalues, dim=-1), target, reduction="sum", log_target=True)
    return total


def densification(visit: Visit) -> Tensor:
    """The regulariser of a synthesis iteration, see :func:`spectrum_divergence`: (G,)."""
    groups = zip(visit.view.chunk(visit.groups), visit.labels.chunk(visit.groups), strict=True)
    settings = visit.settings
    return torch.stack([spectrum_divergence(*group, settings.tau, settings.normalise) for group in groups])
