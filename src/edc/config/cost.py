"""What a study will take, before anything starts: runs, optimiser steps, arithmetic, files, hours of a device.

Arithmetic is that of the networks' forward passes, counted from their own operations (:mod:`edc.nets.flops`); a step of
training costs three of them, a visit of synthesis two (the pixels' gradient needs none of the weights'). Statistics of
layers, augmentation and optimisers are left out: the sum is a floor, and hours follow from it at an assumed rate.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from edc import STAGES
from edc.config.choices import SCORED
from edc.errors import EdcError
from edc.config.rows import (
    ContinualRow,
    EvaluateRow,
    Plan,
    PretrainRow,
    RelabelRow,
    SlimmingRow,
    StatisticsRow,
    SynthesizeRow,
)
from edc.config.sizes import count_images

FORWARD, TO_PIXELS, TRAINING = 1, 2, 3
"""Cost of a pass over an image in forward passes: alone, with the gradient of the pixels, with that of the weights."""

REGULARISERS = {"none": 0, "logits": FORWARD, "statistics": FORWARD, "sam": FORWARD + 2, "densification": 0}
"""What each adds to a visit, in forward passes: the averaged images, or a step away and back through both losses."""


@dataclass(frozen=True)
class Cost:
    """What runs take.

    Attributes:
        runs: how many.
        steps: updates of weights or, in synthesis, of pixels.
        macs: multiply-accumulates, all passes together.
        kept: bytes of the large files they leave.
    """

    runs: int = 0
    steps: int = 0
    macs: int = 0
    kept: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.runs + other.runs, self.steps + other.steps, self.macs + other.macs, self.kept + other.kept)

    def hours(self, rate: float) -> float:
        """Hours at ``rate`` TFLOP/s."""
        return 2 * self.macs / (rate * 1e12) / 3600


class Study:
    """Prices the rows of a plan; there is a method for every stage that does arithmetic.

    Args:
        plan: the study, spelled out.

    Attributes:
        images: sizes of its datasets.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.images = {name: count_images(dataset) for name, dataset in plan.datasets.items()}

    def stage(self, stage: str) -> Cost:
        """All runs of one stage."""
        rows, price = getattr(self.plan, stage).values(), getattr(self, stage, None)
        costs = (price(row) for row in rows) if price is not None else ()
        return sum(costs, Cost(runs=len(rows)))

    def forward(self, dataset: str, networks: Iterable[str]) -> int:
        """Multiply-accumulates of one image through all of these networks."""
        from edc.nets.flops import arithmetic

        of = self.plan.datasets[dataset]
        return sum(arithmetic(network, of.classes, of.image_size, of.channels).macs for network in networks)

    def networks(self, observers: Iterable[str]) -> list[str]:
        return [self.plan.pretrain[key].network for key in observers]

    def pretrain(self, row: PretrainRow) -> Cost:
        """Training, and a look at the hold-out after each epoch."""
        from edc.data.replay import batch_count
        from edc.nets.flops import arithmetic

        of, images = self.plan.datasets[row.dataset], self.images[row.dataset]
        network = arithmetic(row.network, of.classes, of.image_size, of.channels)
        passes = row.epochs * (TRAINING * images.train + FORWARD * images.val)
        steps = row.epochs * batch_count(images.train, row.batch)
        return Cost(steps=steps, macs=network.macs * passes, kept=network.stored)

    def statistics(self, row: StatisticsRow) -> Cost:
        """Every observer over the training images once; a global vector and one per class, in float32."""
        of, networks = self.plan.datasets[row.dataset], self.networks(row.observers)
        sizes = (statistics_size(name, of.classes, of.image_size, of.channels, row.patch) for name in networks)
        macs = FORWARD * self.images[row.dataset].train * self.forward(row.dataset, networks)
        return Cost(macs=macs, kept=4 * (of.classes + 1) * sum(sizes))

    def synthesize(self, row: SynthesizeRow) -> Cost:
        """Each image is visited once an iteration, by the observers in turn; some initial images are scored before."""
        from edc.condense.initialise import groups_of

        of, images = self.plan.datasets[row.dataset], images_of(self.plan, row)
        macs = steps = 0
        if row.initialise.method in SCORED:
            macs = self.scored(row) * self.forward(row.dataset, self.networks(row.scorers))
        if row.optimise.iterations:
            groups = groups_of(of.classes, row.ipc, row.optimise.group, row.optimise.rounds)
            steps = len(groups) * row.optimise.iterations
            visit = TO_PIXELS + REGULARISERS.get(row.regularise.method, 0)
            passes = self.forward(row.dataset, self.networks(row.observers)) // len(row.observers)
            macs += visit * images * row.optimise.iterations * passes
        return Cost(steps=steps, macs=macs, kept=images * (of.channels * of.image_size**2 + 8))

    def scored(self, row: SynthesizeRow) -> int:
        """Forward passes of a scorer: crops of the candidates, or every training image once."""
        classes, train = self.plan.datasets[row.dataset].classes, self.images[row.dataset].train
        if row.initialise.method != "composites":
            return train
        return classes * min(row.initialise.candidates, train // classes) * row.initialise.crops

    def relabel(self, row: RelabelRow) -> Cost:
        """All observers over all views and the plain images, after a test on held-out images."""
        from edc.stages.evaluate import label_bytes
        from edc.stages.relabel import SANITY_IMAGES

        images, of = images_of(self.plan, self.plan.synthesize[row.images]), self.images[row.dataset]
        passes = images * (row.epochs + 1) + min(SANITY_IMAGES, of.val or of.train)
        shape = [row.epochs, images, self.plan.datasets[row.dataset].classes]
        return Cost(
            macs=FORWARD * passes * self.forward(row.dataset, self.networks(row.observers)),
            kept=label_bytes("soft", shape) + label_bytes("static", shape),
        )

    def evaluate(self, row: EvaluateRow) -> Cost:
        """Every seed's training and looks at the images it is judged on."""
        from edc.data.replay import batch_count
        from edc.stages.evaluate import validation_epochs

        of = self.images[row.dataset]
        images = of.train if row.images is None else images_of(self.plan, self.plan.synthesize[row.images])
        looks = len(validation_epochs(row.epochs, row.validations))
        judged = of.val if row.split == "val" else of.test
        passes = TRAINING * row.epochs * images + FORWARD * looks * judged
        return Cost(
            steps=len(row.seeds) * row.epochs * batch_count(images, row.batch),
            macs=len(row.seeds) * passes * self.forward(row.dataset, [row.student]),
        )

    def continual(self, row: ContinualRow) -> Cost:
        """In every order and step the observers label what is remembered, and every seed trains and is tested."""
        from edc.data.replay import batch_count

        of = self.images[row.dataset]
        images = of.train if row.images is None else images_of(self.plan, self.plan.synthesize[row.images])
        student, label = self.forward(row.dataset, [row.student]), 0
        if row.labels is not None:
            label = self.forward(row.dataset, self.networks(self.plan.relabel[row.labels].observers))
        steps = macs = 0
        for step in range(1, row.steps + 1):
            memory, seeds = images * step // row.steps, len(row.seeds)
            steps += seeds * row.epochs * batch_count(memory, row.batch)
            looks = seeds * (TRAINING * row.epochs * memory + FORWARD * (of.test * step // row.steps))
            macs += looks * student + FORWARD * row.epochs * memory * label
        return Cost(steps=len(row.orders) * steps, macs=len(row.orders) * macs)

    def slimming(self, row: SlimmingRow) -> Cost:
        """Training, then mending after every cut; smaller networks are priced as the whole one, so at most so much."""
        from edc.data.replay import batch_count

        images = self.images[row.dataset].train
        if row.images is not None:
            images = images_of(self.plan, self.plan.synthesize[row.images])
        cuts = len({ratio for ratio in row.ratios if ratio > 0})
        epochs = len(row.seeds) * (row.epochs + cuts * row.finetune)
        looks = len(row.seeds) * (1 + 2 * cuts) * self.images[row.dataset].test
        passes = TRAINING * epochs * images + FORWARD * looks
        return Cost(
            steps=epochs * batch_count(images, row.batch), macs=passes * self.forward(row.dataset, [row.student])
        )


def images_of(plan: Plan, row: SynthesizeRow) -> int:
    """Images of a condensed set."""
    return plan.datasets[row.dataset].classes * row.ipc


@cache
def statistics_size(network: str, classes: int, image_size: int, channels: int, patch: int) -> int:
    """D, the length of an observer's statistics vector; its layers are watched without values."""
    from edc.nets.flops import skeleton
    from edc.condense.watching import Watcher

    watcher = Watcher(skeleton(network, classes, image_size, channels), patch, (channels, image_size, image_size))
    watcher.close()
    return watcher.size


def report(plan: Plan, rate: float, device: str) -> str:
    """The cost of a study, stage by stage, as a table with what it assumes.

    Args:
        plan: the study, spelled out.
        rate: of the device in TFLOP/s, as real networks reach it.
        device: its name, for the reader.

    Raises:
        EdcError: the rate is not above 0, the size of a dataset isn't known, or a network cannot take its images.
    """
    if not rate > 0:
        raise EdcError(f"--rate {rate:g}: expected TFLOP/s above 0")
    study = Study(plan)
    costs = {stage: study.stage(stage) for stage in STAGES}
    lines = [f"{'stage':12} {'runs':>5} {'steps':>14} {'arithmetic':>12} {'files':>10} {'hours':>10}"]
    for name, cost in [*costs.items(), ("total", sum(costs.values(), Cost()))]:
        steps, hours = f"{cost.steps:,}" if cost.steps else "-", _hours(cost.hours(rate))
        work, files = _scaled(2 * cost.macs, "FLOP"), _scaled(cost.kept, "B")
        lines.append(f"{name:12} {cost.runs:5} {steps:>14} {work:>12} {files:>10} {hours:>10}")
    for name, images in study.images.items():
        train, held, test = f"{images.train:,}", f"{images.val:,}", f"{images.test:,}"
        origin = "counted" if images.counted else "known sizes, no data were read"
        lines.append(f"{name}: {train} images to train on, {held} held out, {test} to test ({origin})")
    lines.append("steps: of pixels in synthesize, else of weights, all seeds; files: the large ones, uncompressed")
    if plan.analysis:
        lines.append("not priced: analysis, minutes beside the rest")
    lines.append(
        f"hours: on {device} at an assumed {rate:g} TFLOP/s; small images and batches reach less, so at least so many"
    )
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
