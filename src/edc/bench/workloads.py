"""What is measured of each stage: its own code on random images, the bare passes of its network, a reference."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edc.bench.cases import BenchInputs, Work, Workload, weight_bytes
from edc.bench.memory import map_bytes
from edc.bench.reference import Oracle, plain_statistics
from edc.condense.budget import activation_bytes
from edc.condense.class_sums import ClassSums
from edc.condense.engine import Progress, synthesize
from edc.condense.layer_statistics import StatisticsCollector
from edc.condense.observer import Observer
from edc.data.feed import Feed
from edc.data.replay import Replay, batches_of
from edc.data.rng import generator
from edc.stages.pretrain import train_epoch
from edc.training.cuda_graphs import RecordedFunction
from edc.training.optimisers import make_optimiser
from edc.training.sources import soft_targets
from edc.training.students import Student
from edc.training.teachers import label_epochs
from edc.training.trainer import Trainer
from edc.training.trainer_group import TrainerGroup

CONDENSED = 100
"""Images of the condensed set a student is trained on: IPC 10 of ten classes."""


def pretrain(inputs: BenchInputs) -> Workload:
    """Epochs over two batches: shuffle, crop, flip, normalise, train."""
    n, device = inputs.case.images, inputs.device
    row = next(iter(inputs.plan.pretrain.values())).model_copy(update={"batch": n})
    images = inputs.image_set(2 * n)
    feed = Feed(images, inputs.dataset, inputs.normaliser, device)
    trainer = Trainer(inputs.trained(), row.optimiser, device, inputs.precision)
    group, epochs = TrainerGroup([trainer]), itertools.count()

    def bare() -> Work:
        model, x, y = inputs.trained(), inputs.encoded(n), inputs.labels(n)
        return training_steps(make_optimiser(model, row.optimiser), lambda: F.cross_entropy(model(x), y), 2)

    # Weights, their gradients, the momentum.
    floor = 3 * weight_bytes(trainer.model) + inputs.training_bytes(n) + images.images.numel()
    return Workload(lambda: train_epoch(group, feed, row, next(epochs)), bare, 2, "step", floor)


def statistics(inputs: BenchInputs) -> Workload:
    """The statistics pass over one batch, from shuffling to the class tables."""
    n, classes = inputs.case.images, inputs.dataset.classes
    models = [inputs.observer(name) for name in inputs.names]
    collectors = [StatisticsCollector(model, inputs.patch, inputs.shape) for model in models]
    moments = [RecordedFunction(collector.moments) for collector in collectors]
    sums = [ClassSums(collector.layout, classes, inputs.device) for collector in collectors]
    images = inputs.image_set(16 * n)
    batches = endless_batches(Feed(images, inputs.dataset, inputs.normaliser, inputs.device), n)

    def stage() -> None:
        batch, labels = next(batches)
        for measure, of_observer in zip(moments, sums, strict=True):
            of_observer.add(*measure(batch), labels)

    def bare() -> Work:
        built, x = [inputs.built(name) for name in inputs.names], inputs.encoded(n)
        return torch.no_grad()(lambda: [model(x) for model in built])

    halves = [collector.layout.half for collector in collectors]
    floor = weight_bytes(*models) + max(map_bytes(model, inputs.shape, n) for model in models)
    # Three class tables for each observer, and the statistics of the batch's images.
    floor += images.images.numel() + 4 * (3 * classes * sum(halves) + 2 * n * max(halves))
    return Workload(stage, bare, n, "image", floor, lambda: statistics_reference(inputs))


def statistics_reference(inputs: BenchInputs) -> Work:
    """Every layer's statistics, of the batch and of each image, summed by class, one after the other."""
    x, y = inputs.encoded(inputs.case.images), inputs.labels(inputs.case.images)
    match, nothing = next(iter(inputs.plan.synthesize.values())).match, torch.empty(0)
    models = [inputs.built(name) for name in inputs.names]
    oracles = [Oracle(model, inputs.patch, match, nothing, nothing, torch.float32) for model in models]
    tables: dict[tuple[int, int, int], Tensor] = {}

    @torch.no_grad()
    def layer_by_layer() -> None:
        for i, oracle in enumerate(oracles):
            oracle.statistics(x)
            for j, patch in enumerate(oracle.patches):
                of_images = zip(*(plain_statistics(image[None], patch) for image in oracle.inputs[j]), strict=True)
                for k, values in enumerate(map(torch.stack, of_images)):
                    table = tables.setdefault((i, j, k), values.new_zeros(inputs.dataset.classes, values.shape[1]))
                    table.index_add_(0, y, values)
            oracle.inputs.clear()

    return layer_by_layer


def synthesis(inputs: BenchInputs) -> Workload:
    """Iterations of synthesis: crop, forward, statistics, losses, backward, Adam, clamp; all groups at once.

    All of the images, in their final size: what happens between parts and before a group is left out.
    """
    row, n = next(iter(inputs.plan.synthesize.values())), inputs.case.images
    # Groups that start from the running statistics of the one before could not be optimised together.
    match, visits = row.match.model_copy(update={"carry": False}), max(1, 100 // n)
    simple = {"iterations": visits, "blend": None, "sizes": None, "stagger": 1}
    optimise = row.optimise.model_copy(update=simple)
    row = row.model_copy(update={"observers": ["observer"], "match": match, "perturb": None, "optimise": optimise})
    model, size = inputs.observer(), StatisticsCollector(inputs.observer(), inputs.patch, inputs.shape).size
    draws = torch.Generator().manual_seed(0)
    targets = {
        "global": torch.rand(size, generator=draws).to(inputs.device),
        "classes": torch.rand(inputs.dataset.classes, size, generator=draws).to(inputs.device),
    }
    observer = Observer.make("observer", model, row, inputs.patch, inputs.shape, targets)
    images, labels = inputs.encoded(n), inputs.labels(n)
    group = row.optimise.group
    groups = list(torch.arange(n).split(group if group and n % group == 0 else n))

    def stage() -> None:
        synthesize(images, labels, groups, [observer], row, inputs.normaliser, Progress(), lambda _: None, len(groups))

    def bare() -> Work:
        built, x = inputs.built(), images.clone().requires_grad_()

        def forward_and_backward() -> None:
            x.grad = None
            F.cross_entropy(built(x), labels).backward()

        return in_sequence([forward_and_backward] * visits)

    def reference() -> Work:
        of_all, of_classes = targets["global"], targets["classes"]
        oracle = Oracle(inputs.built(), inputs.patch, row.match, of_all, of_classes, torch.float32)
        x = images.clone().requires_grad_()
        adam = torch.optim.Adam([x], lr=row.optimise.lr, betas=row.optimise.betas)

        def layer_by_layer() -> None:
            adam.zero_grad()
            logits, loss = oracle.visit(x, labels)
            (F.cross_entropy(logits, labels) + row.match.weight * loss).backward()
            adam.step()
            with torch.no_grad():
                inputs.normaliser.clamp_(x)

        return in_sequence([layer_by_layer] * visits)

    floor = weight_bytes(model) + activation_bytes(inputs.built(), inputs.shape, n)
    floor += 4 * (5 * images.numel() + targets["classes"].numel())
    return Workload(stage, bare, visits, "iteration", floor, reference)


def relabel(inputs: BenchInputs) -> Workload:
    """Augmented views of a condensed set, labelled by one teacher."""
    row, model = next(iter(inputs.plan.relabel.values())), inputs.observer()
    epochs = max(1, inputs.case.images // CONDENSED)
    views, batch = epochs * CONDENSED, min(row.batch, CONDENSED)
    row = row.model_copy(update={"batch": batch, "epochs": epochs})
    replay = Replay(inputs.pixels(CONDENSED), row, inputs.normaliser)
    logits = np.zeros((epochs, CONDENSED, inputs.dataset.classes), np.float16)

    def stage() -> None:
        replay.clear_cache()
        label_epochs(logits, replay, range(epochs), batch, row.ensemble, [model], views)

    def bare() -> Work:
        built, x = inputs.built(), inputs.encoded(views)
        return torch.no_grad()(lambda: built(x))

    # Besides the network's own maps, the augmented images.
    floor = weight_bytes(model) + map_bytes(model, inputs.shape, views) + views * math.prod(inputs.shape) * 4
    return Workload(stage, bare, views, "image", floor)


def evaluate(inputs: BenchInputs) -> Workload:
    """One epoch of students side by side: replayed augmentation, stored labels, optimiser, averaged weights.

    The reference trains as many students one after the other, as in runs of their own.
    """
    batch, seeds, device = inputs.case.images, inputs.case.seeds, inputs.device
    row = next(iter(inputs.plan.evaluate.values())).model_copy(update={"batch": batch})
    choices = next(iter(inputs.plan.relabel.values())).model_copy(update={"epochs": 1})
    replay = Replay(inputs.pixels(CONDENSED), choices, inputs.normaliser)
    targets, labels = np.zeros((1, CONDENSED, inputs.dataset.classes), np.float16), inputs.labels(CONDENSED)

    def fresh_students() -> list[Student]:
        return [Student(seed, row, inputs.dataset, device, inputs.precision) for seed in range(seeds)]

    students = fresh_students()
    steps = seeds * len(batches_of(torch.arange(CONDENSED), batch))

    def epoch_of(members: list[Student]) -> Work:
        group = TrainerGroup(members)

        def epoch() -> None:
            for student in members:
                student.begin_epoch(0)
            soft = soft_targets(targets, "soft", 0, device)
            assert soft is not None
            replay.clear_cache()
            for index, view in replay.epoch(0, batch):
                group.step(view, soft[index].to(torch.float32), labels[index])

        return epoch

    def reference() -> Work:
        return in_sequence([epoch_of([student]) for student in fresh_students()])

    def bare() -> Work:
        model, settings = inputs.trained(), row.optimiser
        options: Any = {"lr": settings.lr, "betas": settings.betas, "weight_decay": settings.weight_decay}
        optimiser = torch.optim.AdamW(model.parameters(), **options)
        x, y = inputs.encoded(batch), inputs.labels(batch)
        soft = torch.zeros(batch, inputs.dataset.classes, device=device)

        def loss() -> Tensor:
            logits = model(x)
            return F.mse_loss(logits, soft) + row.loss.ce_weight * F.cross_entropy(logits, y)

        return training_steps(optimiser, loss, steps)

    # Weights, their gradients, two moments, an average; the set and an epoch of its views.
    floor = 5 * weight_bytes(*(student.model for student in students)) + inputs.training_bytes(batch)
    floor += CONDENSED * math.prod(inputs.shape) * (1 + 4)
    return Workload(epoch_of(students), bare, steps // seeds, "step", floor, reference if seeds > 1 else None)


STAGES: dict[str, Callable[[BenchInputs], Workload]] = {
    "pretrain": pretrain,
    "statistics": statistics,
    "synthesize": synthesis,
    "relabel": relabel,
    "evaluate": evaluate,
}


def in_sequence(parts: Sequence[Work]) -> Work:
    """Work done part by part."""
    return lambda: [part() for part in parts]


def training_steps(optimiser: torch.optim.Optimizer, loss: Callable[[], Tensor], steps: int) -> Work:
    """Optimiser steps on the same batch."""

    def step() -> None:
        value = loss()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()

    return in_sequence([step] * steps)


def endless_batches(feed: Feed, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Epoch after epoch."""
    for epoch in itertools.count():
        yield from feed.epoch(generator(0, "bench", epoch), batch, join=False)
