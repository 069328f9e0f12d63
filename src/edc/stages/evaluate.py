"""Stage evaluate: fresh students trained on a condensed set and evaluated on real images, test or held-out ones."""

from __future__ import annotations

import functools
from typing import Any

from edc.data.augment import Normaliser
from edc.data.feed import Feed
from edc.data.replay import batch_count
from edc.reporting.figures import learning_curves
from edc.stages.context import Context
from edc.stages.progress import ProgressLog
from edc.stages.sources import training_data
from edc.training.evaluation import accuracy_scores, validation_epochs
from edc.training.students import Student, accuracies
from edc.training.trainer_group import TrainerGroup

HISTORY = ("seed", "epoch", "lr", "train_loss", "accuracy")


def run(context: Context) -> None:
    """Train one student per seed on the same images and labels, side by side; evaluate each on the row's split.

    The augmented batches are made once and serve every seed; seeds differ in the students' initial weights.
    """
    row, dataset, device = context.row, context.dataset, context.device
    normaliser = Normaliser(dataset.mean, dataset.std, device)
    data = training_data(context, normaliser)
    test = context.images(row.split)
    feed = Feed(test, dataset, normaliser, device)
    students = [Student(seed, row, dataset, device, context.precision) for seed in row.seeds]
    cohort = TrainerGroup(students)
    evaluated = validation_epochs(row.epochs, row.validations)

    start = 0
    if state := context.resume():
        start = state["epochs"]
        for student, saved in zip(students, state["students"], strict=True):
            student.load_state(saved)
    with ProgressLog(row.epochs, f"evaluate {context.key}", start, "epoch") as bar:
        for epoch in range(start, row.epochs):
            for student in students:
                student.begin_epoch(epoch)
            for x, targets, labels in data.source.epoch(epoch):
                cohort.step(x, targets, labels)
            losses = [context.finite(student.end_epoch(), f"epoch {epoch}") for student in students]
            rights: list[float | None] = [*accuracies(students, feed)] if epoch in evaluated else [None] * len(students)
            for student, loss, right in zip(students, losses, rights, strict=True):
                student.history.append([epoch, student.rate, loss, right])
            bar.set_postfix(shown(losses, rights))
            bar.update()
            context.checkpoint(functools.partial(position, epoch + 1, students))
    history = [[student.seed, *values] for student in students for values in student.history]
    context.write_table("history.csv", HISTORY, history)
    title = f"{row.recipe}, IPC {row.ipc}, {row.student}" + (", held-out images" if row.split == "val" else "")
    learning_curves(context.path("curves.png"), history, title)
    context.finish(
        ["history.csv"],
        dataset_digest=data.digest,
        test_digest=test.digest,
        test_images=len(test),
        scores=accuracy_scores([[h[3] for h in student.history if h[3] is not None] for student in students]),
        steps=row.epochs * batch_count(data.source.images, row.batch),
        image_bytes=data.image_bytes,
        label_bytes=data.label_bytes,
    )


def position(epochs: int, students: list[Student]) -> dict[str, Any]:
    """The state of a checkpoint."""
    return {"epochs": epochs, "students": [student.state() for student in students]}


def shown(losses: list[float], rights: list[float | None]) -> dict[str, str]:
    """Means over the seeds, for the progress line."""
    values = {"loss": f"{sum(losses) / len(losses):.3g}"}
    known = [right for right in rights if right is not None]
    return values | ({"accuracy": f"{sum(known) / len(known):.3g} %"} if known else {})
