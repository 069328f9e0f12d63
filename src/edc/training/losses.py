"""What students minimise."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edc.config.protocol import Loss
from edc.config.registry import LOSS, implementation


def mse_ce(logits: Tensor, targets: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    """MSE over B * K plus weighted cross-entropy with the hard label (EDC section 3.4, after G-VBSM)."""
    return F.mse_loss(logits, targets) + loss.ce_weight * F.cross_entropy(logits, labels)


def kl(logits: Tensor, targets: Tensor, labels: Tensor, loss: Loss, now: Tensor | None = None) -> Tensor:
    """KL at a temperature, batch mean; times its square where ``loss.squared`` (SRe2L on Tiny-ImageNet alone).

    Where temperatures change over the epochs, those of the teachers and of the student are given (2,).
    """
    t, own = temperatures(loss) if now is None else now
    student, teacher = F.log_softmax(logits / own, 1), F.log_softmax(targets / t, 1)
    value = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return value * t**2 if loss.squared else value


def temperatures(loss: Loss, epoch: int = 0) -> tuple[float, float]:
    """Of the teachers and of the student in an epoch (0-based); a calibrated one begins with 1."""
    falling, own = loss.temperatures, loss.student_temperature
    t = loss.temperature
    if falling is not None:
        t = max(falling.least, t * falling.factor ** (epoch // falling.every))
    return t, t if own is None else 1.0 if own == "calibrated" else own


def calibrated(logits: Tensor, targets: Tensor, temperature: Tensor) -> Tensor:
    """The t of 0.01, 0.02 ... 1 with the least KL(target || softmax(z / t)) on a batch (B, K): LPQLD's calibration.

    Targets are logits, too, of which ``temperature`` makes a distribution.
    """
    target = F.softmax(targets / temperature, 1)
    grid = torch.arange(1, 101, device=logits.device) / 100
    # Cross-entropy: the entropy of the target is the same for all.
    return grid[torch.stack([-(target * F.log_softmax(logits / t, 1)).sum() for t in grid]).argmin()]


def gift(logits: Tensor, targets: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    """1 - cos(z, t / |t| + w s / |s|), batch mean, with the smoothed hard label s (GIFT, ICLR 2025, arXiv 2405.14736).

    The teacher's logits t have no softmax and no temperature, so the loss does not depend on the scale of z. w is
    ``ce_weight``.
    """
    classes = logits.shape[1]
    hard = F.one_hot(labels, classes) * (1 - loss.smoothing) + (1 - F.one_hot(labels, classes)) * (
        loss.smoothing / (classes - 1)
    )
    reference = F.normalize(targets, dim=1) + loss.ce_weight * F.normalize(hard.to(targets.dtype), dim=1)
    return 1 - F.cosine_similarity(logits, reference, dim=1).mean()


def student_loss(
    logits: Tensor, targets: Tensor | None, labels: Tensor, loss: Loss, now: Tensor | None = None
) -> Tensor:
    """The protocol's loss of a student's logits (B, K).

    Targets are soft labels as logits (B, K), or None for hard labels alone: classes (B,) or probabilities (B, K).
    ``now`` has the epoch's temperatures where they change, see :func:`kl`.
    """
    if targets is None:
        return F.cross_entropy(logits, labels)
    return implementation(LOSS, loss.name)(logits, targets, labels, loss, *([] if now is None else [now]))
