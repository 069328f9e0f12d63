"""Training parts shared by observers and students: optimisers, averaged weights, losses, accuracy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edc.nets import weight_decay_groups

if TYPE_CHECKING:
    from edc.data.augment import Normaliser
    from edc.params import Loss, Optimiser


def make_optimiser(model: nn.Module, settings: Optimiser) -> torch.optim.Optimizer:
    """AdamW or SGD; weight decay on convolution and linear weights only."""
    groups = weight_decay_groups(model, settings.weight_decay)
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay)
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group."""
    for group in optimiser.param_groups:
        group["lr"] = rate


class WeightAverage:
    """Exponential moving average of the parameters: EDC's EMA-based evaluation.

    Buffers are not averaged, so batch norm judges with the running statistics of the live network, as in EDC.

    Args:
        model: whose parameters are averaged; the average starts at their present values.
        decay: share of the average that survives a step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.live = list(model.parameters())
        self.shadow = [p.detach().clone() for p in self.live]

    @torch.no_grad()
    def update(self) -> None:
        """shadow <- decay * shadow + (1 - decay) * weights."""
        torch._foreach_lerp_(self.shadow, [p.detach() for p in self.live], 1 - self.decay)

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """The model bears the averaged weights inside the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for shadow, live in zip(self.shadow, self.live, strict=True):
            shadow.data, live.data = live.data, shadow.data


def student_loss(logits: Tensor, targets: Tensor | None, labels: Tensor, loss: Loss) -> Tensor:
    """What a student minimises.

    Args:
        logits: (B, K) of the student.
        targets: (B, K) soft labels as logits; None trains on the hard labels alone.
        labels: (B,) hard labels of the base images.
        loss: ``mse_ce``: MSE over B * K plus ``ce_weight`` times cross-entropy (EDC section 3.4, after G-VBSM);
            ``kl``: KL at a temperature, batch mean, without the factor T^2 (SRe2L, RDED).
    """
    if targets is None:
        return F.cross_entropy(logits, labels)
    if loss.name == "mse_ce":
        return F.mse_loss(logits, targets) + loss.ce_weight * F.cross_entropy(logits, labels)
    t = loss.temperature
    return F.kl_div(F.log_softmax(logits / t, 1), F.log_softmax(targets / t, 1), reduction="batchmean", log_target=True)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor, normaliser: Normaliser, batch: int = 500) -> float:
    """Top-1 accuracy in percent; leaves the model in eval mode.

    Args:
        model: on the device of ``images``.
        images: uint8 (N, C, S, S).
        labels: (N,).
        normaliser: into the space the model sees.
        batch: images per forward pass.
    """
    model.eval()
    right = torch.zeros((), dtype=torch.int64, device=images.device)
    for part, truth in zip(images.split(batch), labels.split(batch), strict=True):
        right += (model(normaliser.encode(part)).argmax(1) == truth).sum()
    return 100.0 * int(right) / len(labels)
