"""Training parts shared by observers and students: optimisers, averaged weights, losses, accuracy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edc.config.choices import LOSS, implementation
from edc.nets.groups import weight_decay_groups
from edc.nets.placing import answers
from edc.nets.passes import images_at_once

if TYPE_CHECKING:
    from edc.config.choices import Loss, Optimiser
    from edc.data.feed import Feed


def make_optimiser(model: nn.Module, settings: Optimiser) -> torch.optim.Optimizer:
    """AdamW or SGD; weight decay on convolution and linear weights only, or on all parameters."""
    groups: Any = model.parameters() if settings.decay_all else weight_decay_groups(model, settings.weight_decay)
    # One pass over the parameters instead of one per operation: a quarter of the time.
    common: Any = {"lr": settings.lr, "weight_decay": settings.weight_decay, "fused": True}
    device = next(model.parameters()).device
    if device.type == "cuda":  # on the device a recorded step finds the rate of the day
        common["lr"] = torch.tensor(settings.lr, device=device)
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, betas=settings.betas, capturable=device.type == "cuda", **common)
    return torch.optim.SGD(groups, momentum=settings.momentum, **common)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def load_optimiser(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take up a state; learning rates that are tensors stay the tensors they are."""
    rates = [group["lr"] for group in optimiser.param_groups]
    optimiser.load_state_dict(state)
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        if isinstance(rate, Tensor):
            group["lr"] = rate.fill_(float(group["lr"]))


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


def mse_ce(logits: Tensor, targets: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    """MSE over B * K plus weighted cross-entropy with the hard label (EDC section 3.4, after G-VBSM)."""
    return F.mse_loss(logits, targets) + loss.ce_weight * F.cross_entropy(logits, labels)


def kl(logits: Tensor, targets: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    """KL at a temperature, batch mean; times its square where asked (SRe2L on Tiny-ImageNet; not SRe2L, RDED)."""
    t = loss.temperature
    value = F.kl_div(
        F.log_softmax(logits / t, 1), F.log_softmax(targets / t, 1), reduction="batchmean", log_target=True
    )
    return value * t**2 if loss.squared else value


def student_loss(logits: Tensor, targets: Tensor | None, labels: Tensor, loss: Loss) -> Tensor:
    """What a student minimises.

    Args:
        logits: (B, K) of the student.
        targets: (B, K) soft labels as logits; None trains on the hard labels alone.
        labels: (B,) hard labels of the base images.
        loss: which function, and its values.
    """
    if targets is None:
        return F.cross_entropy(logits, labels)
    value: Tensor = implementation(LOSS, loss.name)(logits, targets, labels, loss)
    return value


@torch.no_grad()
def accuracy(model: nn.Module, feed: Feed) -> float:
    """Top-1 accuracy in percent; leaves the model in eval mode.

    Args:
        model: on the feed's device.
        feed: the images to split it on.
    """
    model.eval()
    right = torch.zeros((), dtype=torch.int64, device=feed.device)
    for x, truth in feed.plain(images_at_once(feed.dataset.image_size)):
        right += (answers(model, x).argmax(1) == truth).sum()
    return 100.0 * int(right) / len(feed)
