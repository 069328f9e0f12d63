"""Stage evaluate: fresh students trained on a condensed set and evaluated on real images, test or held-out ones."""

from __future__ import annotations

import functools
from statistics import fmean
from typing import Any

import numpy as np

from edc.data.replay import batch_count
from edc.reporting.figures import learning_curves
from edc.stages.context import Context
from edc.stages.progress import ProgressLog
from edc.stages.sources import training_data
from edc.training.evaluation import accuracy_scores, percentages, validation_epochs
from edc.training.students import Student, correct, train_epoch
from edc.training.trainer_group import TrainerGroup

HISTORY = ("seed", "epoch", "lr", "train_loss", "accuracy")


def run(context: Context) -> None:
    """Train one student per seed on the same images and labels, side by side; evaluate each on the row's split.

    ``correct.npy`` has which of the images each student gets right after the last epoch: uint8, one row a seed, bits
    as np.packbits packs them.

    The augmented batches are made once and serve every seed; seeds differ in the students' initial weights.
    """
    row, dataset, device = context.row, context.dataset, context.device
    data = training_data(context)
    test = context.images(row.split)
    feed = context.feed(test)
    students = [Student(seed, row, dataset, device, context.precision) for seed in row.seeds]
    cohort = TrainerGroup(students)
    evaluated = validation_epochs(row.epochs, row.validations)

    start = 0
    if state := context.resume():
        start = state["epochs"]
        for student, saved in zip(students, state["students"], strict=True):
            student.load_state(saved)
    right = correct(students, feed) if start == row.epochs else None  # resumed after the last epoch
    bar = ProgressLog(row.epochs, f"evaluate {context.key}", start, "epoch")
    for epoch in range(start, row.epochs):
        train_epoch(students, epoch, data.source.epoch(epoch), cohort, context.finite)
        shown = {"loss": f"{fmean(student.history[-1][2] for student in students):.3g}"}
        if epoch in evaluated:
            right = correct(students, feed)
            accuracies = percentages(right)
            shown["accuracy"] = f"{fmean(accuracies):.3g} %"
            for student, accuracy in zip(students, accuracies, strict=True):
                student.history[-1][3] = accuracy
        bar.update(values=shown)
        context.checkpoint(functools.partial(position, epoch + 1, students))
    history = [[student.seed, *values] for student in students for values in student.history]
    context.write_table("history.csv", HISTORY, history)
    assert right is not None, "the last epoch is always evaluated"
    context.write_array("correct.npy", np.packbits(right.numpy(), axis=1))
    title = f"{row.recipe}, IPC {row.ipc}, {row.student}" + (", held-out images" if row.split == "val" else "")
    learning_curves(context.path("curves.png"), history, title)
    context.finish(
        ["history.csv", "correct.npy"],
        dataset_digest=data.digest,
        test_digest=test.digest,
        test_images=len(test),
        scores=accuracy_scores([[h[3] for h in student.history if h[3] is not None] for student in students]),
        steps=row.epochs * batch_count(data.source.images, row.batch),
        image_bytes=data.image_bytes,
        label_bytes=data.label_bytes,
    )


def position(epochs: int, students: list[Student]) -> dict[str, Any]:
    return {"epochs": epochs, "students": [student.state() for student in students]}
