"""What is measured of each stage: the stage's own code on random images, the bare pass of its network, a reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edc.bench.cases import Bench, Pieces
from edc.bench.timing import Work, held_at_most
from edc.condense.budget import activation_bytes
from edc.training.trainer_group import TrainerGroup
from edc.data.feed import Feed
from edc.data.replay import Replay, batches_of
from edc.condense.engine import Observer, Progress, synthesize
from edc.stages.evaluate import soft_targets
from edc.bench.reference import Oracle, plain_statistics
from edc.stages.pretrain import train_epoch
from edc.training.cuda_graphs import RecordedFunction
from edc.stages.relabel import label_epochs
from edc.data.rng import generator
from edc.stages.statistics import ClassSums
from edc.training.students import Student
from edc.training.trainer import Trainer
from edc.training.optimisers import make_optimiser
from edc.condense.layer_statistics import LAYERS, StatisticsCollector

TRAINED = 100
"""Images of the condensed set a student is trained on: IPC 10 of ten classes."""


def pretrain(bench: Bench) -> Pieces:
    """Epochs over two batches: shuffle, crop, flip, normalise, train."""
    row, n, device = next(iter(bench.plan.pretrain.values())), bench.case.images, bench.device
    row = row.model_copy(update={"batch": n})
    images = bench.image_set(2 * n)
    feed = Feed(images, bench.dataset, bench.normaliser, device)
    trainer = Trainer(bench.network(bare=True).train().requires_grad_(True), row.optimiser, device, bench.precision)
    cohort, epochs = TrainerGroup([trainer]), iter(range(10**9))

    def bare() -> Work:
        model = bench.network(bare=True).train().requires_grad_(True)
        optimiser = make_optimiser(model, row.optimiser)
        x, y = bench.normaliser.encode(bench.pixels(n)), bench.labels(n)

        def steps() -> None:
            for _ in range(2):
                loss = F.cross_entropy(model(x), y)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()

        return steps

    # Weights, their gradients, the momentum.
    floor = 3 * bench.weights(trainer.model) + _training(bench, n) + images.images.numel()
    return Pieces(
        stage=lambda: train_epoch(cohort, feed, row, next(epochs)),
        bare=bare,
        reference=None,
        units=2,
        unit="step",
        passes=3 * 2 * n,
        floor=floor,
    )


def statistics(bench: Bench) -> Pieces:
    """The statistics pass over one batch, from shuffling to the class tables."""
    n, classes = bench.case.images, bench.dataset.classes
    models = [bench.network(name) for name in bench.names]
    collectors = [StatisticsCollector(model, bench.patch, bench.shape) for model in models]
    measured = [RecordedFunction(collector.moments) for collector in collectors]
    sums = [ClassSums(collector.layout, classes, bench.device) for collector in collectors]
    images = bench.image_set(16 * n)
    feed = Feed(images, bench.dataset, bench.normaliser, bench.device)
    batches = _endless(feed, n)

    def stage() -> None:
        batch, labels = next(batches)
        for moments, held in zip(measured, sums, strict=True):
            held.add(*moments(batch), labels)

    def bare() -> Work:
        bare_models = [bench.network(name, bare=True) for name in bench.names]
        x = bench.normaliser.encode(bench.pixels(n))

        @torch.no_grad()
        def passes() -> None:
            for model in bare_models:
                model(x)

        return passes

    def reference() -> Work:
        plain = [bench.network(name, bare=True) for name in bench.names]
        x, y = bench.normaliser.encode(bench.pixels(n)), bench.labels(n)
        inputs: list[tuple[Tensor, int]] = []
        for layer in (layer for model in plain for layer in model.modules()):
            if isinstance(layer, tuple(LAYERS.values())):
                cell = bench.patch if isinstance(layer, nn.Conv2d) else 0
                layer.register_forward_pre_hook(lambda _, given, cell=cell: inputs.append((given[0], cell)))
        tables: dict[tuple[int, int], Tensor] = {}

        def layer_by_layer() -> None:
            """Every layer's statistics, of the batch and of each image, summed by class, one after the other."""
            with torch.no_grad():
                for model in plain:
                    model(x)
            for i, (seen, cell) in enumerate(inputs):
                plain_statistics(seen, cell)
                for j, found in enumerate(zip(*(plain_statistics(image[None], cell) for image in seen), strict=True)):
                    values = torch.stack(found)
                    table = tables.setdefault((i, j), values.new_zeros(classes, values.shape[1]))
                    table.index_add_(0, y, values)
            inputs.clear()

        return layer_by_layer

    halves = [collector.layout.half for collector in collectors]
    floor = sum(bench.weights(model) for model in models) + max(held_at_most(model, bench.shape, n) for model in models)
    # Three class tables for each observer, and the statistics of the batch's images.
    floor += images.images.numel() + 4 * (3 * classes * sum(halves) + 2 * n * max(halves))
    return Pieces(stage, bare, reference, n, "image", n, floor)


def synthesis(bench: Bench) -> Pieces:
    """Iterations of synthesis: crop, forward, statistics, losses, backward, Adam, clamp; all groups at once."""
    row, n = next(iter(bench.plan.synthesize.values())), bench.case.images
    # Groups that hand their running statistics on could not be worked on together.
    match, visits = row.match.model_copy(update={"carry": False}), max(1, 100 // n)
    optimise = row.optimise.model_copy(update={"iterations": visits})
    row = row.model_copy(update={"observers": ["it"], "match": match, "optimise": optimise})
    model = bench.network()
    size = StatisticsCollector(bench.network(), bench.patch, bench.shape).size
    draws = torch.Generator().manual_seed(0)
    targets = {
        "global": torch.rand(size, generator=draws).to(bench.device),
        "classes": torch.rand(bench.dataset.classes, size, generator=draws).to(bench.device),
    }
    observer = Observer.make("it", model, row, bench.patch, bench.shape, targets)
    images, labels = bench.normaliser.encode(bench.pixels(n)), bench.labels(n)
    group = row.optimise.group
    groups = list(torch.arange(n).split(group if group and n % group == 0 else n))

    def stage() -> None:
        synthesize(images, labels, groups, [observer], row, bench.normaliser, Progress(), lambda _: None, len(groups))

    def bare() -> Work:
        bare_model, x = bench.network(bare=True), images.clone().requires_grad_()

        def there_and_back() -> None:
            x.grad = None
            F.cross_entropy(bare_model(x), labels).backward()

        return _repeated(there_and_back, visits)

    def reference() -> Work:
        everything, classes = targets["global"], targets["classes"]
        oracle = Oracle(bench.network(bare=True), bench.patch, row.match, everything, classes, torch.float32)
        x = images.clone().requires_grad_()
        adam = torch.optim.Adam([x], lr=row.optimise.lr, betas=row.optimise.betas)

        def layer_by_layer() -> None:
            adam.zero_grad()
            logits, loss = oracle.visit(x, labels)
            (F.cross_entropy(logits, labels) + row.match.weight * loss).backward()
            adam.step()
            with torch.no_grad():
                bench.normaliser.clamp_(x)

        return _repeated(layer_by_layer, visits)

    floor = bench.weights(model) + activation_bytes(bench.network(bare=True), bench.shape, n) + 5 * images.numel() * 4
    return Pieces(
        stage=stage,
        bare=bare,
        reference=reference,
        units=visits,
        unit="iteration",
        passes=2 * n * visits,
        floor=floor + 4 * targets["classes"].numel(),
    )


def relabel(bench: Bench) -> Pieces:
    """Augmented views of a condensed set, labelled by one observer."""
    row = next(iter(bench.plan.relabel.values()))
    model, n = bench.network(), bench.case.images
    epochs = max(1, n // TRAINED)
    row = row.model_copy(update={"batch": min(row.batch, TRAINED), "epochs": epochs})
    replay = Replay(bench.pixels(TRAINED), row, bench.normaliser)
    logits = np.zeros((epochs, TRAINED, bench.dataset.classes), np.float16)
    # Beside the network's own, the augmented images.
    views = epochs * TRAINED * math.prod(bench.shape) * 4
    floor = bench.weights(model) + held_at_most(model, bench.shape, epochs * TRAINED) + views

    def stage() -> None:
        replay.clear_cache()
        label_epochs(logits, replay, range(epochs), row, [model], epochs * TRAINED)

    def bare() -> Work:
        bare_model, x = bench.network(bare=True), bench.normaliser.encode(bench.pixels(epochs * TRAINED))
        return torch.no_grad()(lambda: bare_model(x))

    return Pieces(
        stage=stage,
        bare=bare,
        reference=None,
        units=epochs * TRAINED,
        unit="image",
        passes=epochs * TRAINED,
        floor=floor,
    )


def evaluate(bench: Bench) -> Pieces:
    """One epoch of students: replayed augmentation, stored labels, optimiser, averaged weights.

    Several are beside one another; the reference trains as many one after the other, as runs of their own would.
    """
    row, batch, device = next(iter(bench.plan.evaluate.values())), bench.case.images, bench.device
    row = row.model_copy(update={"batch": batch})
    choices = next(iter(bench.plan.relabel.values())).model_copy(update={"epochs": 1})
    replay = Replay(bench.pixels(TRAINED), choices, bench.normaliser)
    targets = np.zeros((1, TRAINED, bench.dataset.classes), np.float16)
    classes = bench.labels(TRAINED)

    def fresh() -> list[Student]:
        return [Student(seed, row, bench.dataset, device, bench.precision) for seed in range(bench.case.seeds)]

    students = fresh()
    cohort = TrainerGroup(students)
    steps = len(batches_of(torch.arange(TRAINED), batch))

    def epoch(of: TrainerGroup) -> None:
        for student in of.trainers:
            assert isinstance(student, Student)
            student.begin_epoch(0)
        labels = soft_targets(targets, "soft", 0, device)
        assert labels is not None
        replay.clear_cache()
        for index, view in replay.epoch(0, batch):
            of.step(view, labels[index].to(torch.float32), classes[index])

    def apart() -> Work:
        cohorts = [TrainerGroup([student]) for student in fresh()]

        def one_after_the_other() -> None:
            for one in cohorts:
                epoch(one)

        return one_after_the_other

    def bare() -> Work:
        model, of = bench.network(bare=True).train().requires_grad_(True), row.optimiser
        optimiser = torch.optim.AdamW(model.parameters(), of.lr, of.betas, weight_decay=of.weight_decay)
        x, y = bench.normaliser.encode(bench.pixels(batch)), bench.labels(batch)
        goal = torch.zeros(batch, bench.dataset.classes, device=device)

        def one_after_the_other() -> None:
            for _ in range(steps * bench.case.seeds):
                logits = model(x)
                loss = F.mse_loss(logits, goal) + row.loss.ce_weight * F.cross_entropy(logits, y)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()

        return one_after_the_other

    # Weights, their gradients, two moments, an average; the set and an epoch of its views.
    each, pixels = bench.weights(students[0].model), math.prod(bench.shape)
    floor = bench.case.seeds * 5 * each + _training(bench, batch) + TRAINED * pixels * (1 + 4)
    passes = 3 * TRAINED * bench.case.seeds
    reference = apart if bench.case.seeds > 1 else None
    return Pieces(lambda: epoch(cohort), bare, reference, steps, "step", passes, floor)


STAGES: dict[str, Callable[[Bench], Pieces]] = {
    "pretrain": pretrain,
    "statistics": statistics,
    "synthesize": synthesis,
    "relabel": relabel,
    "evaluate": evaluate,
}


def _repeated(work: Work, times: int) -> Work:
    def several() -> None:
        for _ in range(times):
            work()

    return several


def _endless(feed: Feed, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    epoch = 0
    while True:
        yield from feed.epoch(generator(0, "bench", epoch), batch, join=False)
        epoch += 1


def _training(bench: Bench, images: int) -> int:
    """Bytes a training step keeps for its backward pass."""
    return activation_bytes(bench.network(bare=True).requires_grad_(True), bench.shape, images)
