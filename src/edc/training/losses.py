"""What students minimise."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from edc.config.choices import LOSS, Loss, implementation


def mse_ce(logits: Tensor, targets: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    """MSE over B * K plus weighted cross-entropy with the hard label (EDC section 3.4, after G-VBSM)."""
    return F.mse_loss(logits, targets) + loss.ce_weight * F.cross_entropy(logits, labels)


def kl(logits: Tensor, targets: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    """KL at a temperature, batch mean; times its square where ``loss.squared`` (SRe2L on Tiny-ImageNet alone)."""
    t = loss.temperature
    student, teacher = F.log_softmax(logits / t, 1), F.log_softmax(targets / t, 1)
    value = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return value * t**2 if loss.squared else value


def student_loss(logits: Tensor, targets: Tensor | None, labels: Tensor, loss: Loss) -> Tensor:
    """The protocol's loss of a student's logits (B, K).

    Targets are soft labels as logits (B, K), or None for the hard labels (B,) of the base images alone.
    """
    if targets is None:
        return F.cross_entropy(logits, labels)
    return implementation(LOSS, loss.name)(logits, targets, labels, loss)
