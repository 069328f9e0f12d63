"""How the logits of several observers become one label."""

from __future__ import annotations

import torch
from torch import Tensor


def plain_mean(logits: Tensor) -> Tensor:
    """Mean over observers of logits (M, B, K): (B, K), as EDC labels (section 3.4)."""
    return logits.mean(dim=0)


def norm_mean(logits: Tensor) -> Tensor:
    """Mean over observers, each first scaled to the mean strength of all: G-VBSM's labels for ImageNet-1k.

    The strength of an observer is the Frobenius norm of its answers to the whole batch, so a label depends on the
    batch it is made in.

    Args:
        logits: (M, B, K).

    Returns:
        (B, K)
    """
    norms = logits.flatten(1).norm(dim=1)
    # An observer that answers zero everywhere has nothing to scale.
    scales = torch.where(norms > 0, norms.mean() / norms, 0.0)
    return (logits * scales[:, None, None]).mean(dim=0)
