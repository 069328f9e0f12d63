"""Flatness regularisation of the images (EDC section 3.3)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def flatness(logits: Tensor, averaged: Tensor, tau: float, reduction: str) -> Tensor:
    """KL(p_averaged || p) of the logits softened by tau (EDC Eq. 7, in the direction its code computes).

    Args:
        logits: (B, K) of the images.
        averaged: (B, K) of the averaged images, no gradient.
        tau: temperature.
        reduction: "batch_mean" divides the sum by B, "element_mean" by B * K, as the published code does.
    """
    total = F.kl_div(F.log_softmax(logits / tau, 1), F.log_softmax(averaged / tau, 1), reduction="sum", log_target=True)
    return total / (averaged.numel() if reduction == "element_mean" else len(averaged))


def average_images(averaged: Tensor, images: Tensor, beta: float) -> Tensor:
    """X_EMA <- beta X_EMA + (1 - beta) X, in place (EDC Eq. 6)."""
    return averaged.lerp_(images.detach(), 1 - beta)
