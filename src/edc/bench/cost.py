"""What a plan will take, before anything starts: runs, optimiser steps, arithmetic, files, hours of a device.

Arithmetic is that of the networks' forward passes (:mod:`edc.nets.flops`); a step of training costs three of them, one
of synthesis two (the pixels' gradient needs none of the weights'). Statistics of layers, augmentation and optimisers
are left out: the sum is a floor, and hours follow from it at a rate.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from functools import cache

from edc import STAGES
from edc.bench.dataset_sizes import count_images
from edc.condense.initialise import groups_of
from edc.condense.layer_statistics import StatisticsCollector
from edc.config import rows
from edc.config.registry import SCORED
from edc.config.rows import Plan
from edc.data.replay import batch_count
from edc.errors import EdcError
from edc.nets.flops import Arithmetic, arithmetic, skeleton
from edc.stages.observers import SANITY_IMAGES
from edc.training.evaluation import validation_epochs
from edc.training.label_store import label_bytes

FORWARD, TO_PIXELS, TRAINING = 1, 2, 3
"""Cost of a pass over an image in forward passes: alone, with the gradient of the pixels, with that of the weights."""

REGULARISERS = {"none": 0, "logits": FORWARD, "statistics": FORWARD, "sam": FORWARD + 2, "densification": 0}
"""What each adds to a step, in forward passes: the averaged images, or a step away and back through both losses."""


@dataclass(frozen=True)
class Cost:
    """What runs take: updates of weights or pixels, multiply-accumulates, bytes of the large files they leave."""

    runs: int = 0
    steps: int = 0
    macs: int = 0
    stored: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*map(operator.add, astuple(self), astuple(other)))

    def hours(self, rate: float) -> float:
        """Hours at ``rate`` TFLOP/s."""
        return 2 * self.macs / (rate * 1e12) / 3600


class Estimate:
    """Estimates the rows of a plan; there is a method for every stage that does arithmetic."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.images = {name: count_images(dataset) for name, dataset in plan.datasets.items()}

    def stage(self, stage: str) -> Cost:
        """All runs of one stage."""
        runs, estimate = getattr(self.plan, stage).values(), getattr(self, stage, None)
        return sum(map(estimate, runs) if estimate is not None else (), Cost(runs=len(runs)))

    def arithmetic(self, dataset: str, network: str) -> Arithmetic:
        of = self.plan.datasets[dataset]
        return arithmetic(network, of.classes, of.image_size, of.channels)

    def observers(self, row: rows.SynthesizeRow | rows.RelabelRow, keys: Iterable[str]) -> int:
        """Multiply-accumulates of one image through all of these observers."""
        return sum(self.arithmetic(row.dataset, self.plan.pretrain[key].network).macs for key in keys)

    def condensed(self, images: str) -> int:
        """How many images a synthesize row makes."""
        row = self.plan.synthesize[images]
        return self.plan.datasets[row.dataset].classes * row.ipc

    def learned(self, row: rows.StudentRow) -> int:
        """How many images a student learns from."""
        return self.images[row.dataset].train if row.images is None else self.condensed(row.images)

    def pretrain(self, row: rows.PretrainRow) -> Cost:
        """Training, and the accuracy on held-out images after each epoch."""
        network, images = self.arithmetic(row.dataset, row.network), self.images[row.dataset]
        passes = row.epochs * (TRAINING * images.train + FORWARD * images.val)
        steps = row.epochs * batch_count(images.train, row.batch)
        return Cost(steps=steps, macs=network.macs * passes, stored=network.stored)

    def statistics(self, row: rows.StatisticsRow) -> Cost:
        """Every observer over the training images once; a global vector and one per class, in float32."""
        of, networks = self.plan.datasets[row.dataset], [self.plan.pretrain[key].network for key in row.observers]
        size = sum(statistics_size(name, of.classes, of.image_size, of.channels, row.patch) for name in networks)
        forward = sum(self.arithmetic(row.dataset, network).macs for network in networks)
        return Cost(macs=FORWARD * self.images[row.dataset].train * forward, stored=4 * (of.classes + 1) * size)

    def synthesize(self, row: rows.SynthesizeRow) -> Cost:
        """Each image takes part in a step per iteration, by the observers in turn; some initial images are scored."""
        of = self.plan.datasets[row.dataset]
        images, macs, steps = of.classes * row.ipc, 0, 0
        if row.initialise.method in SCORED:
            macs = self.scored(row) * self.observers(row, row.scorers)
        if row.optimise.iterations:
            groups = groups_of(of.classes, row.ipc, row.optimise.group, row.optimise.rounds)
            steps = len(groups) * row.optimise.iterations
            passes = TO_PIXELS + REGULARISERS.get(row.regularise.method, 0)
            if row.match.target == "anchors":
                passes = row.initialise.factor**2 * (TO_PIXELS + FORWARD)
            mean = self.observers(row, row.observers) // len(row.observers)
            macs += int(row.optimise.work * passes * images * row.optimise.iterations * mean)
        return Cost(steps=steps, macs=macs, stored=images * (of.channels * of.image_size**2 + 8))

    def scored(self, row: rows.SynthesizeRow) -> int:
        """Forward passes of a scorer: crops of the candidates, or every training image once."""
        classes, train = self.plan.datasets[row.dataset].classes, self.images[row.dataset].train
        candidates = classes * min(row.initialise.candidates, train // classes)
        if row.initialise.method == "mosaics":  # once more as anchors
            return candidates * (2 if row.match.target == "anchors" else 1)
        return candidates * row.initialise.crops if row.initialise.method == "composites" else train

    def relabel(self, row: rows.RelabelRow) -> Cost:
        """All teachers over all views and the plain images, after a test on held-out images."""
        images, of = self.condensed(row.images), self.images[row.dataset]
        passes = images * (row.epochs + 1) + min(SANITY_IMAGES, of.val or of.train)
        shape = [row.epochs, images, self.plan.datasets[row.dataset].classes]
        return Cost(
            macs=FORWARD * passes * self.observers(row, row.observers),
            stored=label_bytes("soft", shape, row) + label_bytes("static", shape),
        )

    def evaluate(self, row: rows.EvaluateRow) -> Cost:
        """Every seed's training and its evaluations."""
        of, images = self.images[row.dataset], self.learned(row)
        evaluated = len(validation_epochs(row.epochs, row.validations)) * (of.val if row.split == "val" else of.test)
        passes = TRAINING * row.epochs * images + FORWARD * evaluated
        return Cost(
            steps=len(row.seeds) * row.epochs * batch_count(images, row.batch),
            macs=len(row.seeds) * passes * self.arithmetic(row.dataset, row.student).macs,
        )

    def continual(self, row: rows.ContinualRow) -> Cost:
        """In every order and step the teachers label the memory, and every seed trains and is evaluated."""
        student, seeds, teachers = self.arithmetic(row.dataset, row.student).macs, len(row.seeds), 0
        if row.labels is not None:
            labels = self.plan.relabel[row.labels]
            teachers = self.observers(labels, labels.observers)
        steps = macs = 0
        for step in range(1, row.steps + 1):
            memory, tested = (n * step // row.steps for n in (self.learned(row), self.images[row.dataset].test))
            steps += seeds * row.epochs * batch_count(memory, row.batch)
            macs += seeds * (TRAINING * row.epochs * memory + FORWARD * tested) * student
            macs += FORWARD * row.epochs * memory * teachers
        return Cost(steps=len(row.orders) * steps, macs=len(row.orders) * macs)

    def slimming(self, row: rows.SlimmingRow) -> Cost:
        """Training, then fine-tuning at every ratio; smaller networks count as the whole one: an upper limit."""
        images, ratios = self.learned(row), len({ratio for ratio in row.ratios if ratio > 0})
        epochs = len(row.seeds) * (row.epochs + ratios * row.finetune)
        of = self.images[row.dataset]
        tests = (1 if row.pretrained is None else 2) + 2 * ratios
        evaluated = len(row.seeds) * tests * (of.val if row.split == "val" else of.test)
        passes = TRAINING * epochs * images + FORWARD * evaluated
        macs = passes * self.arithmetic(row.dataset, row.student).macs
        return Cost(steps=epochs * batch_count(images, row.batch), macs=macs)


@cache
def statistics_size(network: str, classes: int, image_size: int, channels: int, patch: int) -> int:
    """D, the length of an observer's statistics vector; its layers are measured without values."""
    shape = (channels, image_size, image_size)
    collector = StatisticsCollector(skeleton(network, classes, image_size, channels), patch, shape)
    collector.close()
    return collector.size


def report(plan: Plan, rate: float, device: str) -> str:
    """The cost of a plan, stage by stage, as a table with what it assumes; the rate is in TFLOP/s.

    Raises:
        EdcError: the rate is not above 0, the size of a dataset isn't known, or a network cannot take its images.
    """
    if not rate > 0:
        raise EdcError(f"--rate {rate:g}: expected TFLOP/s above 0")
    estimate = Estimate(plan)
    costs = {stage: estimate.stage(stage) for stage in STAGES if stage != "tables"}
    lines = [f"{'stage':12} {'runs':>5} {'steps':>14} {'arithmetic':>12} {'files':>10} {'hours':>10}"]
    for name, cost in [*costs.items(), ("total", sum(costs.values(), Cost()))]:
        steps, hours = f"{cost.steps:,}" if cost.steps else "-", _hours(cost.hours(rate))
        work, files = _scaled(2 * cost.macs, "FLOP"), _scaled(cost.stored, "B")
        lines.append(f"{name:12} {cost.runs:5} {steps:>14} {work:>12} {files:>10} {hours:>10}")
    for name, images in estimate.images.items():
        train, val, test = f"{images.train:,}", f"{images.val:,}", f"{images.test:,}"
        origin = "counted" if images.counted else "known sizes, no data were read"
        lines.append(f"{name}: {train} images to train on, {val} held out, {test} to test ({origin})")
    lines.append("steps: of pixels in synthesize, else of weights, all seeds; files: the large ones, uncompressed")
    if plan.analysis:
        lines.append("not included: analysis, minutes beside the rest")
    lines.append(f"hours: on {device} at {rate:.3g} TFLOP/s; augmentation, statistics and optimisers come on top")
    return "\n".join(lines)


def _scaled(value: float, unit: str) -> str:
    """Three digits with a decimal prefix, as in 33.1 PFLOP; a dash for nothing."""
    for prefix in ("", "k", "M", "G", "T", "P"):
        if value < 999.5:
            return f"{value:.3g} {prefix}{unit}" if value else "-"
        value /= 1000
    return f"{value:,.3g} E{unit}"


def _hours(value: float) -> str:
    if value < 0.001:
        return "< 0.001" if value else "-"
    return f"{value:.3f}" if value < 10 else f"{value:,.1f}"
