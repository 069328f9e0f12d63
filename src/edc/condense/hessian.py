"""Curvature of the synthesis loss around its iterates (EDC section 3.3, Figure 2(c))."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edc.condense.engine import Progress, augmentation, synthesize
from edc.condense.layer_statistics import Kind, StatisticsCollector, measured_layers
from edc.condense.matching import StatisticsMatcher, skipped_hooks
from edc.condense.moments import pool, to_grid
from edc.condense.observer import Observer
from edc.config.choices import Regularise
from edc.config.rows import SynthesizeRow
from edc.data.augment import Normaliser
from edc.data.rng import generator


@dataclass(frozen=True)
class Group:
    """Images optimised together, start (B, C, S, S) normalised and labels (B,), and all inputs of their synthesis."""

    start: Tensor
    labels: Tensor
    observers: Sequence[Observer]
    row: SynthesizeRow
    normaliser: Normaliser


def frobenius(product: Callable[[Tensor], Tensor], probes: Sequence[Tensor]) -> tuple[float, float]:
    """Hutchinson's estimate of a matrix's Frobenius norm, and its standard error.

    E|Hv|^2 = |H|_F^2 for probes v of independent signs; `product` gives Hv.
    """
    squares = [float(product(v).double().square().sum()) for v in probes]
    norm = math.sqrt(np.mean(squares))
    error = float(np.std(squares, ddof=1)) / math.sqrt(len(squares))
    return norm, error / (2 * norm) if norm else 0.0


def exact_product(loss: Callable[[Tensor], Tensor], at: Tensor) -> Callable[[Tensor], Tensor]:
    """Products with the Hessian at one point, by differentiating the gradient once more.

    This is the curvature between the kinks of a ReLU network, without the kinks.
    """
    x = at.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(x), x, create_graph=True)

    def product(v: Tensor) -> Tensor:
        return torch.autograd.grad(gradient, x, v, retain_graph=True)[0]

    return product


def difference_product(loss: Callable[[Tensor], Tensor], at: Tensor, size: float) -> Callable[[Tensor], Tensor]:
    """(g(x + h v) - g(x - h v)) / 2h for the gradient g at x and the size h: Hv including the kinks within the step.

    In a ReLU network the kinks' share grows as h falls, like 1 / sqrt(h) in the norm, so the result depends on h. The
    learning rate of synthesis is a natural choice: Adam moves every pixel by about that much.
    """

    def gradient(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_(True)
        return torch.autograd.grad(loss(x), x)[0]

    def product(v: Tensor) -> Tensor:
        return (gradient(at + size * v) - gradient(at - size * v)) / (2 * size)

    return product


def random_signs(count: int, like: Tensor, seed: int) -> list[Tensor]:
    """Probes: vectors of random signs, the same for every iterate of every run with this seed."""
    rng = generator(seed, "hessian")
    values = rng.integers(0, 2, (count, *like.shape)).astype(np.float32) * 2 - 1
    return list(torch.from_numpy(values).to(like.device))


def without_regulariser(row: SynthesizeRow) -> SynthesizeRow:
    """The same recipe, cross-entropy and matching alone."""
    return row.model_copy(update={"regularise": Regularise(method="none")})


def iterates(group: Group, row: SynthesizeRow, iterations: Sequence[int]) -> dict[int, Tensor]:
    """Run the synthesis of one group; the images (B, C, S, S) after each of some iterations, 0 for the start."""
    images = {0: group.start.clone()} if 0 in iterations else {}

    def after(now: Progress) -> None:
        if now.iteration in iterations and now.pixels is not None:
            images[now.iteration] = now.pixels.clone()

    for observer in group.observers:
        observer.matcher.running = None  # carried between groups of a run, never between runs
    index = torch.arange(len(group.start))
    synthesize(group.start, group.labels, [index], group.observers, row, group.normaliser, Progress(), after)
    return images


def plain_statistics(x: Tensor, patch: int) -> Tensor:
    """A layer's statistics from its input, in operations that can be differentiated twice."""
    square, mean = x * x, x.mean(dim=(0, 2, 3))
    parts = [mean, square.mean(dim=(0, 2, 3)) - mean * mean]
    if patch:
        y = to_grid(x, patch)
        cell_mean = pool(y.flatten(0, 1).mean(0), patch)
        cell_square = pool((y * y).flatten(0, 1).mean(0), patch)
        parts += [cell_mean.flatten(), (cell_square - cell_mean * cell_mean).flatten()]
    return torch.cat(parts)


class DifferentiableStatistics:
    """A collector whose statistics can be differentiated twice; replaces another one and removes its hooks."""

    def __init__(self, other: StatisticsCollector) -> None:
        other.close()
        self.observer = other.observer
        kinds: list[Kind] = sorted({hook.kind for hook in other.hooks})
        self._parts: dict[int, Tensor] = {}
        for i, (_, kind, layer) in enumerate(measured_layers(self.observer, kinds)):
            layer.register_forward_pre_hook(self._hook(i, other.patch if kind == "conv" else 0))

    def _hook(self, i: int, patch: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: self._parts.update({i: plain_statistics(inputs[0], patch)})

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K) and the statistics vector (D,)."""
        logits = self.observer(x)
        parts, self._parts = [self._parts[i] for i in sorted(self._parts)], {}
        return logits, torch.cat([x.new_zeros(0), *parts])


def synthesis_loss(group: Group) -> Callable[[Tensor], Tensor]:
    """The loss of synthesis as a function of the images (B, C, S, S), twice differentiable.

    It is cross-entropy and weighted matching (EDC Eq. 5), no regulariser, averaged over the last round of visits, one
    of every observer, with the same draws of the augmentation for all iterates. The statistics are those of the images,
    not their running mean, so that the loss depends on the images alone.

    The group cannot be synthesised afterwards: its observers' hooks are replaced.
    """
    row = group.row
    collectors = [DifferentiableStatistics(observer.collector) for observer in group.observers]
    first = max(0, row.optimise.iterations - len(collectors))

    def loss(pixels: Tensor) -> Tensor:
        total = pixels.new_zeros(())
        for k in range(first, first + len(collectors)):
            crop, skip = visit_draws(group, k)
            logits, statistics = collectors[k % len(collectors)](crop(pixels))
            total = total + row.match.cross_entropy * F.cross_entropy(logits, group.labels)
            if row.match.target != "none":
                matcher = group.observers[k % len(collectors)].matcher
                total = total + row.match.weight * distance(matcher, statistics, skip)
        return total / len(collectors)

    return loss


def visit_draws(group: Group, iteration: int) -> tuple[Callable[[Tensor], Tensor], set[int]]:
    """The augmentation and the skipped hooks of one iteration, as :func:`edc.condense.engine.step` draws them."""
    row, hooks = group.row, group.observers[iteration % len(group.observers)].collector.hooks
    rng = generator(row.seed, "synthesize", 0, iteration)
    crop = augmentation(rng, row.augment, iteration, row.optimise.iterations, group.start.shape[-1])
    return crop, skipped_hooks(hooks, row.match.drop, rng)


def distance(matcher: StatisticsMatcher, statistics: Tensor, skip: set[int]) -> Tensor:
    """Weighted distance of statistics (D,) to the global and the class target, norms unsquared (EDC Eq. 5)."""
    present = torch.ones_like(matcher.weights)
    if skip:
        absent = torch.isin(matcher.owner, torch.tensor(sorted(skip), device=present.device))
        present[matcher.segment[absent]] = 0
    total = statistics.new_zeros(())
    for share, target in ((matcher.alpha, matcher.global_target), (1 - matcher.alpha, matcher.class_target)):
        if share:
            squares = torch.zeros_like(present).index_add(0, matcher.segment, (statistics - target.view(-1)).square())
            lengths = torch.where(squares > 0, squares, 1.0).sqrt() * (squares > 0)  # gradient 0 at distance 0
            total = total + share * (matcher.weights * present * lengths).sum()
    return total
