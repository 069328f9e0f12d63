"""Stage continual: class-incremental learning from condensed images alone (EDC section 4 and Figure 4)."""

from __future__ import annotations

import functools
from statistics import fmean
from typing import Any

import numpy as np

from edc.reporting.figures import lines
from edc.stages.context import Context
from edc.stages.progress import ProgressLog
from edc.stages.sources import class_memory
from edc.training.incremental import HISTORY, class_steps, incremental_scores, step_accuracies
from edc.training.students import Student, train_epoch
from edc.training.trainer_group import TrainerGroup


def run(context: Context) -> None:
    """For every order of the classes and every step, train a fresh student on the images of all classes seen so far.

    It predicts among those classes only, and is evaluated on all their real test images (the protocol of GDumb and DM).

    Raises:
        EdcError: the labels came with an imported set, or a teacher is implausibly bad.
    """
    row, dataset = context.row, context.dataset
    memory, facts = class_memory(context)
    test = context.images("test")
    feed = context.feed(test)
    steps_of = {order: class_steps(dataset.classes, row.steps, order) for order in row.orders}
    units = [(order, step) for order in row.orders for step in range(row.steps)]

    state = context.resume() or {"unit": 0, "epoch": 0, "history": [], "students": []}
    history: list[list[Any]] = state["history"]
    done = state["unit"] * row.epochs + state["epoch"]
    bar = ProgressLog(len(units) * row.epochs, f"continual {context.key}", done, "epoch")
    for unit in range(state["unit"], len(units)):
        order, step = units[unit]
        steps = steps_of[order][: step + 1]
        seen = np.concatenate(steps)
        students = [fresh(context, seed, len(seen)) for seed in row.seeds]
        for student, saved in zip(students, state.pop("students", []), strict=False):
            student.load_state(saved)
        cohort = TrainerGroup(students)
        for epoch in range(state.pop("epoch", 0), row.epochs):
            train_epoch(students, epoch, memory.epoch(epoch, seen), cohort, context.finite)
            bar.update(values={"loss": f"{fmean(student.history[-1][2] for student in students):.3g}"})
            context.checkpoint(functools.partial(position, unit, epoch + 1, history, students))
        for student in students:
            accuracies = step_accuracies(student, feed, dataset.classes, steps)
            history += [[order, student.seed, step, len(seen), part, value] for part, value in accuracies.items()]
        context.checkpoint(functools.partial(position, unit + 1, 0, history, []), now=True)
    scores = incremental_scores(history, row.steps)
    context.write_table("history.csv", HISTORY, history)
    title = f"{row.recipe}, IPC {row.ipc or 'all'}, {row.student}"
    curve = {title: list(zip(scores["classes"], scores["accuracy_mean"], scores["accuracy_std"], strict=True))}
    lines(context.path("curves.png"), curve, "classes seen", "accuracy on them, %")
    context.finish(["history.csv"], **facts, test_digest=test.digest, test_images=len(test), scores=scores)


def fresh(context: Context, seed: int, classes: int) -> Student:
    """A student with one output for every class seen so far."""
    dataset = context.dataset.model_copy(update={"classes": classes})
    return Student(seed, context.row, dataset, context.device, context.precision)


def position(unit: int, epoch: int, history: list[list[Any]], students: list[Student]) -> dict[str, Any]:
    return {"unit": unit, "epoch": epoch, "history": history, "students": [student.state() for student in students]}
