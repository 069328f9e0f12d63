"""Stage evaluate: fresh students trained on a condensed set, judged on real images: the test set or held-out ones."""

from __future__ import annotations

import contextlib
import functools
import math
import statistics as descriptive
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edc.training.cohort import Cohort
from edc.data.augment import Normaliser
from edc.data.feed import Feed
from edc.data.replay import Replay, batch_count
from edc.errors import EdcError
from edc.reporting.figures import learning_curves
from edc.stages.context import Job
from edc.config.rows import RelabelRow
from edc.stages.progress import bar
from edc.data.rng import generator
from edc.storage import RESULTS, read_array, read_tensors
from edc.training.students import Student, accuracies

HISTORY = ("seed", "epoch", "lr", "train_loss", "test_accuracy")


def run(job: Job) -> None:
    """Train one student per seed on the same images and labels, side by side; split each on the test set.

    Under ``split: val`` training images that nobody trains on stand in for the test set, under the same names.
    The augmented batches are made once and serve every seed; seeds differ in the students' initial weights.
    """
    row, dataset, device = job.row, job.dataset, torch.device(job.device)
    normaliser = Normaliser(dataset.mean, dataset.std, device)
    source: Condensed | Real = Real(job, normaliser) if row.images is None else Condensed(job, normaliser)
    test = job.load(row.split)
    feed = Feed(test, dataset, normaliser, device)
    students = [Student(seed, row, dataset, device, job.precision) for seed in row.seeds]
    cohort = Cohort(students)
    looks = validation_epochs(row.epochs, row.validations)

    checkpoint = job.checkpoint()
    start = 0
    if state := job.resume(checkpoint):
        start = state["epochs"]
        for student, kept in zip(students, state["students"], strict=True):
            student.load_state(kept)
    with contextlib.ExitStack() as stack:
        tracked = [stack.enter_context(job.track(seed=seed)) for seed in row.seeds]
        for entry in tracked:
            entry.dataset(row.dataset, source.digest)
        progress = stack.enter_context(bar(row.epochs, f"evaluate {job.key}", start, "epoch"))
        for epoch in range(start, row.epochs):
            for student in students:
                student.begin_epoch(epoch)
            for x, targets, labels in source.epoch(epoch):
                cohort.step(x, targets, labels)
            losses = [job.finite(student.end_epoch(), f"epoch {epoch}") for student in students]
            rights = accuracies(students, feed) if epoch in looks else [None] * len(students)
            for student, entry, loss, right in zip(students, tracked, losses, rights, strict=True):
                values = {"train_loss": loss, "lr": student.rate}
                if right is not None:
                    values["test_accuracy"] = right
                student.history.append([epoch, student.rate, loss, right])
                entry.metrics(values, step=epoch)
            progress.update()
            job.keep(checkpoint, functools.partial(position, epoch + 1, students))
        history = [[student.seed, *values] for student in students for values in student.history]
        table = job.table("history.csv", HISTORY, history)
        title = f"{row.recipe}, IPC {row.ipc}, {row.student}" + (", held out" if row.split == "val" else "")
        curves = learning_curves(job.path("curves.png"), history, title)
        scores = summary(students)
        for student, entry in zip(students, tracked, strict=True):
            last, best = (scores[name][students.index(student)] for name in ("final", "best"))
            entry.metrics({"final_accuracy": last, "best_accuracy": best}, step=row.epochs)
            for picture in (table, curves, *source.pictures):
                entry.artifact(picture)
        job.finish(
            ["history.csv"],
            dataset_digest=source.digest,
            test_digest=test.digest,
            test_images=len(test),
            scores=scores,
            steps=row.epochs * batch_count(source.images, row.batch),
            image_bytes=source.image_bytes,
            label_bytes=source.label_bytes,
        )


class Condensed:
    """A condensed set with its stored labels, augmented as they were made.

    Args:
        job: of this stage.
        normaliser: into the space networks see.

    Attributes:
        images: N.
        image_bytes, label_bytes: what the student was given.
        digest: of the dataset the images come from.
        pictures: files to show beside the result.
    """

    def __init__(self, job: Job, normaliser: Normaliser) -> None:
        self.row, dataset, device = job.row, job.dataset, torch.device(job.device)
        row = self.row
        condensed, labelled = job.upstream("synthesize", row.images), job.upstream("relabel", row.labels)
        stored = read_tensors(RESULTS / "synthesize" / row.images / "images.safetensors")
        images, self.classes = stored["images"].to(device), stored["labels"].to(device)
        name = "logits.npy" if row.regime == "soft" else "static.npy"
        self.targets = read_array(RESULTS / "relabel" / row.labels / name)
        choices = RelabelRow(**labelled["params"]["relabel"])  # what was replayed when the labels were made
        self.replay = Replay(images, choices, normaliser)
        expected = (len(images), dataset.classes)
        whole = (choices.epochs, *expected) if row.regime == "soft" else expected
        if self.targets.shape != whole:
            raise EdcError(
                f"results/relabel/{row.labels}: labels of shape {list(self.targets.shape)}; expected "
                f"{len(images)} images and {dataset.classes} classes"
            )
        self.images, self.digest = len(images), condensed["dataset_digest"]
        self.image_bytes = condensed["image_bytes"]
        self.label_bytes = label_bytes(row.regime, labelled["shape"])
        self.pictures = [RESULTS / "synthesize" / row.images / "contact_sheet.png"]

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
        """Batches of images (B, C, S, S), soft labels (B, K) or None, and classes (B,)."""
        targets = soft_targets(self.targets, self.row.regime, epoch, self.classes.device)
        for index, x in self.replay.epoch(epoch, self.row.batch, mix=self.row.regime == "soft"):
            yield x, None if targets is None else targets[index].to(torch.float32), self.classes[index]


class Real:
    """The whole training set with its hard labels: what condensation is measured against. See :class:`Condensed`."""

    def __init__(self, job: Job, normaliser: Normaliser) -> None:
        self.row, train = job.row, job.load("train")
        self.feed = Feed(train, job.dataset, normaliser, torch.device(job.device))
        self.images, self.digest = len(train), train.digest
        self.image_bytes = len(train) * math.prod(train.shape)
        self.label_bytes = label_bytes("hard", [self.row.epochs, len(train), job.dataset.classes])
        self.pictures: list[Path] = []

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
        """Batches of images (B, C, S, S), no soft labels, and classes (B,)."""
        for x, labels in self.feed.epoch(generator(0, "real", epoch), self.row.batch):
            yield x, None, labels


def position(epochs: int, students: list[Student]) -> dict[str, Any]:
    """What a checkpoint keeps."""
    return {"epochs": epochs, "students": [student.state() for student in students]}


def soft_targets(targets: Any, regime: str, epoch: int, device: torch.device) -> torch.Tensor | None:
    """The soft labels of one epoch as logits (N, K) in half precision, on the device; None under hard labels."""
    if regime == "hard":
        return None
    rows = targets[epoch] if regime == "soft" else targets
    return torch.from_numpy(np.array(rows)).to(device)


def validation_epochs(epochs: int, count: int) -> set[int]:
    """Evenly spread epochs after which the test set is looked at, the last one always among them."""
    count = min(count, epochs)
    return {math.ceil(epochs * (i + 1) / count) - 1 for i in range(count)}


def summary(students: list[Student]) -> dict[str, Any]:
    """Accuracy in percent per seed, with mean and standard deviation (n - 1) over the seeds."""
    measured = [[h[3] for h in student.history if h[3] is not None] for student in students]
    found: dict[str, Any] = {"final": [m[-1] for m in measured], "best": [max(m) for m in measured]}
    for name in ("final", "best"):
        values = found[name]
        found[f"{name}_mean"] = descriptive.fmean(values)
        found[f"{name}_std"] = descriptive.stdev(values) if len(values) > 1 else None
    return found


def label_bytes(regime: str, shape: list[int]) -> int:
    """Size of the labels a student needs: fp16 logits per epoch, per image, or the fewest whole bytes for a class."""
    epochs, images, classes = shape
    if regime == "hard":
        return images * math.ceil(math.log2(classes) / 8)
    return 2 * images * classes * (epochs if regime == "soft" else 1)
