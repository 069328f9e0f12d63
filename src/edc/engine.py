"""Synthesis: pixels optimised so that the observers' statistics and answers fit (EDC section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edc.data.augment import Normaliser, crop_boxes, shared_crop
from edc.matching import StatisticsMatcher, Watcher, skipped_hooks
from edc.params import SynthesizeRow
from edc.regularise import average_images, flatness
from edc.rng import generator
from edc.schedules import cosine_iteration


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
        targets: dict[str, Tensor],
    ) -> Observer:
        """Hook a network and check that the stored statistics fit it.

        Args:
            name: the observer's row.
            network: in eval mode, on its device.
            row: the synthesis choices.
            patch: cell side the statistics were made with.
            shape: (C, H, W) of the images.
            targets: "global" (D,) and "classes" (K, D).

        Raises:
            EdcError: the statistics are of another network or image size.
        """
        from edc.errors import EdcError

        watcher = Watcher(network, patch, shape)
        size = targets["global"].numel()
        if size != watcher.size:
            raise EdcError(f"statistics of {name} have {size} values, the network has {watcher.size}; make them again")
        return cls(name, watcher, StatisticsMatcher(watcher.hooks, row.match, targets["global"], targets["classes"]))


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


HISTORY = ("group", "iteration", "observer", "cross_entropy", "matching", "flatness")


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

    One iteration visits one observer, in turn; the loss is cross-entropy + weight * matching + weight * flatness.

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
            # Running statistics of another group's images would pull this one towards them.
            observer.matcher.start_group(targets, forget=not resumed)
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
    box = crop_boxes(rng, 1, pixels.shape[-1], row.augment.crop_scale, row.augment.crop_ratio)[0]
    flip = bool(rng.random() < 0.5) and row.augment.flip
    skip = skipped_hooks(observer.watcher.hooks, row.match.drop, rng)
    logits, statistics = observer.watcher(shared_crop(pixels, box, flip), skip)
    losses = {"cross_entropy": F.cross_entropy(logits, labels)}
    if row.match.method != "none":
        losses["matching"] = row.match.weight * observer.matcher(statistics, skip)
    if row.regularise.method == "logits":
        quiet = observer.watcher.logits(shared_crop(averaged, box, flip))
        term = flatness(logits, quiet, row.regularise.tau, row.regularise.reduction)
        losses["flatness"] = row.regularise.weight * term
    return losses
