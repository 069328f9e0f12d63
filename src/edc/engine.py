"""Synthesis: pixels optimised so that the observers' statistics and answers fit (EDC section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edc.choices import REGULARISE, SynthesisAugment, implementation
from edc.data.augment import Normaliser, crop_boxes, shared_crop
from edc.errors import EdcError
from edc.matching import StatisticsMatcher, skipped_hooks
from edc.params import SynthesizeRow
from edc.regularise import Visit, average_images
from edc.rng import generator
from edc.schedules import cosine_iteration, smallest_crop
from edc.watching import Watcher, running_statistics


@dataclass
class Observer:
    """A frozen network, its watcher and the targets it is matched to.

    Attributes:
        name: the observer's row.
        watcher: its hooks.
        matcher: its loss.
    """

    name: str
    watcher: Watcher
    matcher: StatisticsMatcher

    @classmethod
    def make(
        cls,
        name: str,
        network: nn.Module,
        row: SynthesizeRow,
        patch: int,
        shape: Sequence[int],
        targets: dict[str, Tensor] | None,
    ) -> Observer:
        """Hook a network and check that the stored statistics fit it.

        Args:
            name: the observer's row.
            network: in eval mode, on its device.
            row: the synthesis choices.
            patch: cell side the statistics were made with.
            shape: (C, H, W) of the images.
            targets: "global" (D,) and "classes" (K, D); None where only BN layers are matched, to themselves.

        Raises:
            EdcError: the statistics are of another network or image size, or there is nothing to match.
        """
        alone = row.match.method == "bn"
        watcher = Watcher(network, patch, shape, kinds=("bn",) if alone else ("bn", "conv"))
        if targets is None:
            if alone and not watcher.hooks:
                raise EdcError(f"observer {name} has no BN layer, and match.method = 'bn' matches nothing else")
            device = next(network.parameters()).device
            whole = running_statistics(network, watcher.hooks, torch.zeros(watcher.size, device=device))
            return cls(name, watcher, StatisticsMatcher(watcher.hooks, row.match, whole, None))
        size = targets["global"].numel()
        if size != watcher.size:
            raise EdcError(f"statistics of {name} have {size} values, the network has {watcher.size}; make them again")
        table = targets["classes"] if row.match.method == "category" else None
        return cls(name, watcher, StatisticsMatcher(watcher.hooks, row.match, targets["global"], table))


@dataclass
class Progress:
    """How far a synthesis is; the state of its checkpoint."""

    group: int = 0
    iteration: int = 0
    done: Tensor = field(default_factory=lambda: torch.empty(0))
    pixels: Tensor | None = None
    averaged: Tensor | None = None
    adam: dict[str, Any] = field(default_factory=dict)
    running: dict[str, Tensor] = field(default_factory=dict)
    history: list[list[float]] = field(default_factory=list)


HISTORY = ("group", "iteration", "observer", "cross_entropy", "matching", "regularise")


def synthesize(
    images: Tensor,
    labels: Tensor,
    groups: Sequence[Tensor],
    observers: Sequence[Observer],
    row: SynthesizeRow,
    normaliser: Normaliser,
    state: Progress,
    after: Callable[[Progress], None],
) -> Tensor:
    """Optimise a condensed set, group after group.

    One iteration visits one observer, in turn; the loss is cross-entropy + weight * matching + weight * regulariser.

    Args:
        images: (N, C, S, S) initial images, normalised, on the device.
        labels: (N,) classes.
        groups: indices of the images that are matched together.
        observers: visited round robin; the count runs on across groups.
        row: every choice.
        normaliser: the range real pixels can have.
        state: where to go on from; updated.
        after: called with the state after every iteration; its tensors are only valid during the call.

    Returns:
        (N, C, S, S) the last iterates.
    """
    result = images.clone()
    if state.done.numel():
        result.copy_(state.done)
    iterations = row.optimise.iterations
    every = max(1, iterations // 100)
    for observer in observers:
        if observer.name in state.running:
            observer.matcher.running = state.running[observer.name].to(images.device)
    for g in range(state.group, len(groups)):
        index = groups[g].to(images.device)
        resumed = state.pixels is not None
        pixels = state.pixels.to(images.device) if state.pixels is not None else result[index].clone()
        pixels.requires_grad_(True)
        averaged = state.averaged.to(images.device) if state.averaged is not None else pixels.detach().clone()
        adam = torch.optim.Adam([pixels], lr=row.optimise.lr, betas=row.optimise.betas, eps=1e-8)
        if resumed:
            adam.load_state_dict(state.adam)
        targets = labels[index]
        for observer in observers:
            observer.matcher.start_group(targets, forget=not (resumed or row.match.carry))
        for k in range(state.iteration, iterations):
            observer = observers[(g * iterations + k) % len(observers)]
            adam.param_groups[0]["lr"] = row.optimise.lr * cosine_iteration(k, iterations)
            losses = step(pixels, averaged, targets, observer, row, g, k)
            adam.zero_grad(set_to_none=True)
            sum(losses.values()).backward()  # type: ignore[union-attr]
            if row.regularise.method != "none":
                average_images(averaged, pixels, row.regularise.beta)
            adam.step()
            with torch.no_grad():
                normaliser.clamp_(pixels)
            if k % every == 0 or k == iterations - 1:
                values = [float(losses[name].detach()) if name in losses else 0.0 for name in HISTORY[3:]]
                state.history.append([g, k, (g * iterations + k) % len(observers), *values])
            state.group, state.iteration, state.done = g, k + 1, result
            state.pixels, state.averaged, state.adam = pixels.detach(), averaged, adam.state_dict()
            state.running = {o.name: o.matcher.running for o in observers if o.matcher.running is not None}
            after(state)
        result[index] = pixels.detach()
        state.group, state.iteration, state.done, state.pixels, state.averaged = g + 1, 0, result, None, None
    return result


def step(
    pixels: Tensor,
    averaged: Tensor,
    labels: Tensor,
    observer: Observer,
    row: SynthesizeRow,
    group: int,
    iteration: int,
) -> dict[str, Tensor]:
    """The weighted loss terms of one visit.

    Args:
        pixels: (B, C, S, S) with gradient.
        averaged: (B, C, S, S) their moving average.
        labels: (B,).
        observer: whose turn it is.
        row: every choice.
        group, iteration: which draw of the augmentation.
    """
    rng = generator(row.seed, "synthesize", group, iteration)
    crop, skip = augmentation(rng, row.augment, iteration, row.optimise.iterations, pixels.shape[-1]), set()
    if row.match.drop:
        skip = skipped_hooks(observer.watcher.hooks, row.match.drop, rng)
    view = crop(pixels)
    logits, statistics = observer.watcher(view, skip)
    losses = {"cross_entropy": F.cross_entropy(logits, labels)}
    if row.match.method != "none":
        losses["matching"] = row.match.weight * observer.matcher(statistics, skip)
    if row.regularise.method != "none":
        visit = Visit(
            settings=row.regularise,
            pixels=pixels,
            averaged=averaged,
            labels=labels,
            crop=crop,
            view=view,
            logits=logits,
            statistics=statistics,
            skip=skip,
            watcher=observer.watcher,
            matcher=observer.matcher,
            match_weight=row.match.weight if row.match.method != "none" else 0.0,
            loss=torch.stack(list(losses.values())).sum(),
        )
        term = implementation(REGULARISE, row.regularise.method)(visit)
        losses["regularise"] = row.regularise.weight * term
    return losses


def augmentation(
    rng: np.random.Generator, settings: SynthesisAugment, iteration: int, iterations: int, size: int
) -> Callable[[Tensor], Tensor]:
    """One draw of crop, flip and roll, the same for every image (B, C, S, S) it is applied to.

    Args:
        rng: source of the draws.
        settings: what may be drawn.
        iteration, iterations: where the crop's curriculum is.
        size: S, pixels.
    """
    scale = (smallest_crop(settings.curriculum, settings.crop_scale[0], iteration, iterations), settings.crop_scale[1])
    box = crop_boxes(rng, 1, size, scale, settings.crop_ratio)[0]
    flip = bool(rng.random() < 0.5) and settings.flip
    top, left = (int(v) for v in rng.integers(0, 2 * settings.pad + 1, 2)) if settings.pad else (0, 0)
    low, high = settings.roll
    shift = tuple(int(v) for v in rng.integers(low, high + 1, 2)) if settings.roll != (0, 0) else None

    def crop(images: Tensor) -> Tensor:
        if settings.pad:
            images = F.pad(images, [settings.pad] * 4)[..., top : top + size, left : left + size]
        images = shared_crop(images, box, flip)
        return images if shift is None else torch.roll(images, shift, dims=(-2, -1))

    return crop
