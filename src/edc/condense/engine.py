"""Synthesis: pixels are optimised so that the observers' statistics and predictions match (EDC section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edc.condense.anchors import anchor_distance, cells
from edc.condense.matching import skipped_hooks
from edc.condense.observer import Observer
from edc.condense.parts import begins_part, first_rounds, next_part, part_of, resized
from edc.condense.regularise import RegulariserInputs, average_images
from edc.config.choices import SynthesisAugment
from edc.config.registry import REGULARISE, implementation
from edc.config.rows import SynthesizeRow
from edc.data.augment import Normaliser, crop_boxes, cutout_boxes, paste, shared_crop
from edc.data.rng import generator
from edc.training.schedules import cosine_iteration, smallest_crop


@dataclass
class Progress:
    """How far a synthesis is; the state of its checkpoint.

    Attributes:
        group: the first of the groups being optimised.
        together: how many groups are being optimised; 0: none yet.
        iteration: iterations done for them.
        done: (N, C, S, S) the set, finished up to `group`; empty until the first group is finished.
        pixels, averaged, adam: of the groups being optimised.
        running: the observers' running statistics.
    """

    group: int = 0
    together: int = 0
    iteration: int = 0
    done: Tensor = field(default_factory=lambda: torch.empty(0))
    pixels: Tensor | None = None
    averaged: Tensor | None = None
    adam: dict[str, Any] = field(default_factory=dict)
    running: dict[str, Tensor] = field(default_factory=dict)
    history: list[list[float]] = field(default_factory=list)

    def fit(self, at_once: int) -> None:
        """Restart the groups being optimised if they are more than fit here at once."""
        if self.pixels is not None and self.together > at_once:
            self.pixels = self.averaged = None
            self.together = self.iteration = 0
            self.history = [entry for entry in self.history if entry[0] < self.group]


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
    at_once: int = 1,
    finish: Callable[[Tensor], Tensor] = Tensor.detach,
    anchors: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Optimise a condensed set, group after group.

    One iteration visits one observer, in turn; the loss is cross-entropy + weight * matching + weight * regulariser.
    Turn and learning rate run on through the parts of `optimise.blend` and `optimise.sizes`; Adam's moments and the
    averaged images begin anew in each. Only the groups being optimised are on the device.

    Args:
        images: (N, C, S, S) initial images, uint8 or normalised, wherever they are.
        labels: (N,) classes.
        groups: indices of the images that are matched together.
        observers: visited round robin; the count continues across groups.
        state: where to resume; updated.
        after: called with the state after every iteration; its tensors are only valid during the call.
        at_once: most groups optimised at the same time, see `groups_together`.
        finish: applied to the last iterates (B, C, S, S) of finished groups, normalised and on the device; same shape.
        anchors: from indices of images (B,) to the real images of their cells, uint8 (B * factor^2, C, S, S).

    Returns:
        (N, C, S, S), the results of `finish`.
    """
    state.fit(at_once)
    device, iterations = normaliser.mean.device, row.optimise.iterations
    every = max(1, iterations // 100)
    for observer in observers:
        if observer.name in state.running:
            observer.matcher.running = state.running[observer.name].to(device)
    while state.group < len(groups):
        resumed = state.pixels is not None
        if not resumed:
            state.together = groups_together(groups, state.group, row, len(observers), at_once)
        block = range(state.group, state.group + state.together)
        index = torch.cat([groups[g] for g in block])
        initial = images[index.to(images.device)]

        def optimiser(pixels: Tensor) -> torch.optim.Adam:
            return torch.optim.Adam([pixels], lr=row.optimise.lr, betas=row.optimise.betas, eps=1e-8)

        first = resized(encoded(initial, normaliser).to(device), row.optimise, 0)
        pixels = first.clone() if state.pixels is None else state.pixels.to(device)
        pixels.requires_grad_(True)
        averaged = state.averaged.to(device) if state.averaged is not None else pixels.detach().clone()
        adam = optimiser(pixels)
        if resumed:
            adam.load_state_dict(state.adam)
        targets = labels[index.to(labels.device)].to(device)
        begins = first_rounds(targets, row.optimise.stagger)
        for observer in observers:
            observer.matcher.start_group(targets.view(len(block), -1), reset=not (resumed or row.match.carry))
            if row.perturb is not None:
                observer.perturb(first_view(first, row, block.start), targets, row.perturb)
        del first
        paired = None if anchors is None else encoded(anchors(index), normaliser)
        for k in range(state.iteration, iterations):
            if begins_part(k, row.optimise):
                part = part_of(k, row.optimise.parts, iterations)
                start = encoded(initial, normaliser).to(device)
                pixels = next_part(pixels.detach(), start, row.optimise, part).requires_grad_(True)
                averaged, adam = pixels.detach().clone(), optimiser(pixels)
            visited = (block.start * iterations + k) % len(observers)
            observer = observers[visited]
            falling = row.optimise.schedule == "cosine"
            adam.param_groups[0]["lr"] = row.optimise.lr * (cosine_iteration(k, iterations) if falling else 1.0)
            if row.optimise.stagger == 1:
                losses = step(pixels, averaged, targets, observer, row, block, k, paired)
            else:  # images that have not begun have no gradient, so Adam leaves them as they are
                begun = begins <= part_of(k, row.optimise.stagger, iterations)
                observer.matcher.start_group(targets[begun][None], reset=False)
                losses = step(pixels[begun], averaged[begun], targets[begun], observer, row, block, k)
            adam.zero_grad(set_to_none=True)
            torch.stack(list(losses.values())).sum().backward()
            # Without the graph, which would hold this pass's maps through the next pass.
            losses = {name: loss.detach() for name, loss in losses.items()}
            if row.regularise.method != "none":
                average_images(averaged, pixels, row.regularise.beta)
            adam.step()
            if row.optimise.clamp:
                with torch.no_grad():
                    normaliser.clamp_(pixels)
            if k % every == 0 or k == iterations - 1:
                absent = torch.zeros(len(block))
                terms = [losses.get(name, absent).tolist() for name in HISTORY[3:]]
                state.history += [[g, k, visited, *(term[i] for term in terms)] for i, g in enumerate(block)]
            state.iteration = k + 1
            state.pixels, state.averaged, state.adam = pixels.detach(), averaged, adam.state_dict()
            state.running = {o.name: o.matcher.running for o in observers if o.matcher.running is not None}
            after(state)
        finished = finish(pixels.detach())
        if not state.done.numel():
            state.done = finished.new_zeros(images.shape)
        state.done[index.to(state.done.device)] = finished.to(state.done.device)
        state.history.sort(key=lambda entry: entry[:2])
        state.group, state.iteration = block.stop, 0
        state.pixels = state.averaged = None
    return state.done


def encoded(images: Tensor, normaliser: Normaliser) -> Tensor:
    """Initial images (B, C, S, S), uint8 or normalised, as normalised floats."""
    return images if images.is_floating_point() else normaliser.encode(images.to(normaliser.mean.device))


def first_view(images: Tensor, row: SynthesizeRow, group: int) -> Tensor:
    """Images (B, C, S, S) of a group as its first iteration shows them to an observer."""
    rng = generator(row.seed, "synthesize", group, 0)
    return augmentation(rng, row.augment, 0, row.optimise.iterations, images.shape[-1])(images)


def groups_together(groups: Sequence[Tensor], first: int, row: SynthesizeRow, observers: int, at_once: int) -> int:
    """How many groups from `first` on can be optimised at once without changing the result.

    They must have the same size and visit the same observer in every iteration, none may start from another's running
    statistics, and none may leave out hooks, which are drawn group by group, or perturb the observers, or begin with
    some of its images.
    """
    one_by_one = row.match.carry or row.match.drop > 0 or row.optimise.iterations % observers != 0
    one_by_one = one_by_one or row.perturb is not None or row.optimise.stagger > 1
    most = 1 if one_by_one else max(1, at_once)
    count = 1
    while count < min(most, len(groups) - first) and len(groups[first + count]) == len(groups[first]):
        count += 1
    return count


def step(
    pixels: Tensor,
    averaged: Tensor,
    labels: Tensor,
    observer: Observer,
    row: SynthesizeRow,
    groups: range,
    iteration: int,
    anchors: Tensor | None = None,
) -> dict[str, Tensor]:
    """The weighted loss terms of one visit, each (G,).

    Args:
        pixels, averaged: (G * B, C, S, S), with gradient, and their moving average.
        labels: (G * B,).
        groups, iteration: which draws of the augmentation.
        anchors: (G * B * factor^2, C, S, S) normalised, the cells' real images, which share the augmentation.
    """
    crops, skip = [], set[int]()
    for group in groups:
        rng = generator(row.seed, "synthesize", group, iteration)
        crops.append(augmentation(rng, row.augment, iteration, row.optimise.iterations, pixels.shape[-1]))
    if row.match.drop:
        skip = skipped_hooks(observer.collector.hooks, row.match.drop, rng)

    def crop(images: Tensor) -> Tensor:
        if len(crops) == 1:
            return crops[0](images)
        parts = zip(crops, images.chunk(len(crops)), strict=True)
        return torch.cat([crop_of_group(part) for crop_of_group, part in parts])

    losses: dict[str, Tensor] = {}
    if anchors is not None:
        views = crop(cells(pixels, row.initialise.factor))
        distance = anchor_distance(observer.collector.observer, row.match.layer, views, crop(anchors))
        losses["matching"] = row.match.weight * distance.view(len(groups), -1).sum(1)
        if not row.match.cross_entropy:
            return losses
    view = crop(pixels)
    logits, statistics = observer.collector(view, skip, len(groups))
    cross_entropy = F.cross_entropy(logits, labels, reduction="none").view(len(groups), -1).mean(1)
    losses["cross_entropy"] = row.match.cross_entropy * cross_entropy
    if row.match.target not in ("none", "anchors"):
        losses["matching"] = row.match.weight * observer.matcher(statistics, skip)
    if row.regularise.method != "none":
        inputs = RegulariserInputs(
            settings=row.regularise,
            pixels=pixels,
            averaged=averaged,
            labels=labels,
            groups=len(groups),
            crop=crop,
            view=view,
            logits=logits,
            statistics=statistics,
            skip=skip,
            collector=observer.collector,
            matcher=observer.matcher,
            match_weight=row.match.weight if row.match.target != "none" else 0.0,
            loss=torch.stack(list(losses.values())).sum(0),
            cross_entropy=row.match.cross_entropy,
        )
        term = implementation(REGULARISE, row.regularise.method)(inputs)
        losses["regularise"] = row.regularise.weight * term
    return losses


def augmentation(
    rng: np.random.Generator, settings: SynthesisAugment, iteration: int, iterations: int, size: int
) -> Callable[[Tensor], Tensor]:
    """One draw of crop, flip, roll and cutout, the same for every image (B, C, S, S) it is applied to."""
    scale = (smallest_crop(settings.curriculum, settings.crop_scale[0], iteration, iterations), settings.crop_scale[1])
    box = crop_boxes(rng, 1, size, scale, settings.crop_ratio)[0]
    flip = bool(rng.random() < 0.5) and settings.flip
    top, left = (int(v) for v in rng.integers(0, 2 * settings.pad + 1, 2)) if settings.pad else (0, 0)
    low, high = settings.roll
    shift = tuple(int(v) for v in rng.integers(low, high + 1, 2)) if settings.roll != (0, 0) else None
    hole = cutout_boxes(rng, 1, size, settings.cutout) if settings.cutout else None

    def crop(images: Tensor) -> Tensor:
        if settings.pad:
            images = F.pad(images, [settings.pad] * 4)[..., top : top + size, left : left + size]
        images = shared_crop(images, box, flip)
        images = images if shift is None else torch.roll(images, shift, dims=(-2, -1))
        return images if hole is None else paste(images, images.new_zeros(()), hole.to(images.device))

    return crop
