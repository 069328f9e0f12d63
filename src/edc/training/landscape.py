"""A student's loss along random directions, and gradients of batches (EDC section 3.2, Figure 2(b, c))."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edc.config.protocol import Loss
from edc.data.rng import generator
from edc.training.losses import student_loss
from edc.training.sources import Batch

CHUNK = 250
"""Images of a forward pass."""


def direction(model: nn.Module, rng: np.random.Generator) -> list[Tensor]:
    """A random direction, every filter scaled to the norm of the model's (Li et al. 2018, section 4).

    Biases and norm parameters do not move, as in the authors' code. Rows of linear layers count as filters.
    """
    parts = []
    for weight in model.parameters():
        drawn = torch.from_numpy(rng.standard_normal(weight.shape, dtype=np.float32)).to(weight.device)
        if weight.dim() < 2:
            parts.append(torch.zeros_like(weight))
            continue
        lengths = [w.detach().flatten(1).norm(dim=1) for w in (weight, drawn)]
        scale = lengths[0] / lengths[1].clamp_min(1e-10)
        parts.append(drawn * scale.view(-1, *[1] * (weight.dim() - 1)))
    return parts


@contextlib.contextmanager
def moved(model: nn.Module, along: Sequence[Tensor], distance: float) -> Iterator[None]:
    """Move the weights by ``distance`` along a direction inside the block; restore them exactly afterwards."""
    original = [weight.data for weight in model.parameters()]
    for weight, part in zip(model.parameters(), along, strict=True):
        weight.data = weight.data + distance * part
    try:
        yield
    finally:
        for weight, data in zip(model.parameters(), original, strict=True):
            weight.data = data


@torch.no_grad()
def mean_loss(model: nn.Module, batches: Sequence[Batch], loss: Loss | None) -> float:
    """Mean over images, in evaluation mode; cross-entropy with the classes where ``loss`` is None."""
    model.eval()
    total, count = 0.0, 0
    for x, targets, labels in batches:
        value = F.cross_entropy(model(x), labels) if loss is None else student_loss(model(x), targets, labels, loss)
        total, count = total + float(value) * len(x), count + len(x)
    return total / count


def curve(
    along: Sequence[Tensor], distances: Sequence[float], model: nn.Module, loss: Callable[[], float]
) -> list[float]:
    """The loss at every distance along a direction."""
    losses = []
    for distance in distances:
        with moved(model, along, distance):
            losses.append(loss())
    return losses


def gradient(model: nn.Module, batch: Batch, loss: Loss) -> Tensor:
    """Gradient of the mean loss over a batch with respect to all weights (P,), in evaluation mode.

    In that mode images are independent, so the gradient of all is the mean of the gradients of its parts.
    """
    model.eval()
    weights = list(model.parameters())
    total, count = torch.zeros(sum(w.numel() for w in weights), device=weights[0].device), len(batch[0])
    for start in range(0, count, CHUNK):
        x, targets, labels = part(batch, slice(start, start + CHUNK))
        gradients = torch.autograd.grad(student_loss(model(x), targets, labels, loss), weights)
        total += torch.cat([g.flatten() for g in gradients]) * (len(x) / count)
    return total


def part(batch: Batch, index: Tensor | slice) -> Batch:
    """Some of a batch's images."""
    x, targets, labels = batch
    return x[index], None if targets is None else targets[index], labels[index]


def local_cosines(
    model: nn.Module, images: Batch, loss: Loss, sizes: Sequence[int], draws: int, rng: np.random.Generator
) -> tuple[Tensor, dict[int, list[float]]]:
    """Gradient of all images (P,), and by batch size the cosines of random batches' gradients with it.

    There are `draws` batches of each size, without repeats inside a batch; sizes beyond the number of images are left
    out.
    """
    whole = gradient(model, images, loss)
    count, cosines = len(images[0]), {}
    for size in sizes:
        if size <= count:
            picks = [torch.from_numpy(rng.choice(count, size, replace=False)).to(whole.device) for _ in range(draws)]
            cosines[size] = [cosine(gradient(model, part(images, pick), loss), whole) for pick in picks]
    return whole, cosines


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of the angle between two vectors."""
    return float(F.cosine_similarity(a.double(), b.double(), dim=0))


def directions(model: nn.Module, seed: int, count: int) -> list[list[Tensor]]:
    """Directions from a seed; models of one architecture get the same draws, scaled to their own norms."""
    return [direction(model, generator(seed, "landscape", i)) for i in range(count)]
