"""Functions that combine the logits of several teachers into one label."""

from __future__ import annotations

import torch
from torch import Tensor


def plain_mean(logits: Tensor) -> Tensor:
    """Mean over teachers of logits (M, B, K): (B, K), as in EDC (section 3.4)."""
    return logits.mean(dim=0)


def norm_mean(logits: Tensor) -> Tensor:
    """Mean over teachers of logits (M, B, K), each first scaled to the mean norm of all: (B, K).

    G-VBSM's labels for ImageNet-1k. The norm of a teacher is the Frobenius norm of its logits for the whole batch, so
    labels depend on the batch.
    """
    norms = logits.flatten(1).norm(dim=1)
    # Logits that are zero everywhere stay zero.
    scales = torch.where(norms > 0, norms.mean() / norms, 0.0)
    return (logits * scales[:, None, None]).mean(dim=0)
