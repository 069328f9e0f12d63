"""Data densification of G-VBSM (Shao et al., CVPR 2024, section 3.2): images of a class should differ.

The softmax of the eigenvalues of a class's Gram matrix is matched to its softened version, which raises the small ones.
With raw eigenvalues, thousands apart for most images, the gradient vanishes (measured: zero on groups of real images,
small on 32 px noise, larger on 224 px noise); ``normalise`` brings them into the range of the temperature.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edc.condense.regularise import RegulariserInputs

SIDE = 32
"""Side to which views are pooled, pixels."""


def pooling(size: int, like: Tensor) -> Tensor:
    """Adaptive average pooling of an axis of ``size`` pixels to ``SIDE`` as a matrix (SIDE, size).

    A matrix product, because PyTorch's own backward pass adds in no fixed order on a GPU.
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
    sizes = sorted({len(positions) for positions in members.values()} - {1})
    return [[positions for positions in members.values() if len(positions) == size] for size in sizes]


def spectrum_divergence(views: Tensor, labels: Tensor, tau: float, normalise: bool = False) -> Tensor:
    """Sum over classes of KL(softmax(l / tau) || softmax(l)), l the eigenvalues of the class's Gram matrix; a scalar.

    Views are (B, C, H, W), labels (B,). Gradients reach the views through l, not through the softened target. Classes
    with the same number of images are solved as one batch; a class with one image adds nothing. ``normalise`` divides
    the Gram matrices by the number of values of a pooled view (C * 1024).
    """
    pooled = vectors(views)
    total = pooled.new_zeros(())
    for group in same_size_classes(labels.tolist()):
        x = pooled[torch.tensor(group, device=views.device)]
        gram = x @ x.mT
        eigenvalues = torch.linalg.eigvalsh(gram / x.shape[-1] if normalise else gram)
        target = F.log_softmax(eigenvalues.detach() / tau, dim=-1)
        total = total + F.kl_div(F.log_softmax(eigenvalues, dim=-1), target, reduction="sum", log_target=True)
    return total


def densification(inputs: RegulariserInputs) -> Tensor:
    """The regulariser of a synthesis iteration, see :func:`spectrum_divergence`: (G,)."""
    groups = zip(inputs.view.chunk(inputs.groups), inputs.labels.chunk(inputs.groups), strict=True)
    settings = inputs.settings
    return torch.stack([spectrum_divergence(*group, settings.tau, settings.normalise) for group in groups])
