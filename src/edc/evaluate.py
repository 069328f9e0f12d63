"""Stage evaluate: fresh students trained on a condensed set and judged on the real test set."""

from __future__ import annotations

import contextlib
import functools
import math
import statistics as descriptive
from typing import Any

import torch

from edc.data.augment import Normaliser
from edc.data.replay import Replay, batches_of
from edc.errors import EdcError
from edc.figures import learning_curves
from edc.job import Job
from edc.params import RelabelRow
from edc.progress import bar
from edc.storage import RESULTS, read_array, read_tensors
from edc.students import Student

HISTORY = ("seed", "epoch", "lr", "train_loss", "test_accuracy")


def run(job: Job) -> None:
    """Train one student per seed on the same stored labels, epoch by epoch side by side; judge each on the test set.

    The augmented batches are made once an epoch and serve every seed; seeds differ in the students' initial weights.
    """
    row, dataset, device = job.row, job.dataset, torch.device(job.device)
    condensed, labels_row = job.upstream("synthesize", row.images), job.upstream("relabel", row.labels)
    stored = read_tensors(RESULTS / "synthesize" / row.images / "images.safetensors")
    images, labels = stored["images"].to(device), stored["labels"].to(device)
    targets = read_array(RESULTS / "relabel" / row.labels / ("logits.npy" if row.regime == "soft" else "fixed.npy"))
    normaliser = Normaliser(dataset.mean, dataset.std, device)
    labelled = RelabelRow(**labels_row["params"]["relabel"])  # what was replayed when the labels were made
    replay = Replay(images, labelled, normaliser)
    expected = (labelled.epochs, *targets.shape[-2:]) if row.regime == "soft" else targets.shape[-2:]
    if targets.shape != expected or targets.shape[-2:] != (len(images), dataset.classes):
        raise EdcError(
            f"results/relabel/{row.labels}: labels of shape {list(targets.shape)}; expected {len(images)} images "
            f"and {dataset.classes} classes"
        )
    test = job.load("test")
    test_images, test_labels = test.images.to(device), test.labels.to(device)
    students = [Student(seed, row, dataset, device) for seed in row.seeds]
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
            entry.dataset(row.dataset, condensed["dataset_digest"])
        progress = stack.enter_context(bar(row.epochs, f"evaluate {job.key}", start, "epoch"))
        for epoch in range(start, row.epochs):
            batches = []
            for index, x in replay.epoch(epoch, row.batch, mix=row.regime == "soft"):
                batches.append((x, soft_targets(targets, row.regime, epoch, index), labels[index]))
            for student, entry in zip(students, tracked, strict=True):
                loss, rate = student.train_epoch(epoch, batches)
                values = {"train_loss": loss, "lr": rate}
                right = None
                if epoch in looks:
                    right = student.test(test_images, test_labels, normaliser)
                    values["test_accuracy"] = right
                student.history.append([epoch, rate, loss, right])
                entry.metrics(values, step=epoch)
            progress.update()
            job.keep(checkpoint, functools.partial(position, epoch + 1, students))
        history = [[student.seed, *values] for student in students for values in student.history]
        table = job.table("history.csv", HISTORY, history)
        curves = learning_curves(job.path("curves.png"), history, f"{row.recipe}, IPC {row.ipc}, {row.student}")
        scores = summary(students)
        for student, entry in zip(students, tracked, strict=True):
            last, best = (scores[name][students.index(student)] for name in ("last", "best"))
            entry.metrics({"last_accuracy": last, "best_accuracy": best}, step=row.epochs)
            entry.artifact(table)
            entry.artifact(curves)
            entry.artifact(RESULTS / "synthesize" / row.images / "contact_sheet.png")
        job.finish(
            ["history.csv"],
            dataset_digest=condensed["dataset_digest"],
            test_digest=test.digest,
            test_images=len(test),
            scores=scores,
            steps=row.epochs * len(batches_of(torch.arange(len(images)), row.batch)),
            image_bytes=condensed["image_bytes"],
            label_bytes=label_bytes(row.regime, labels_row["shape"]),
        )


def position(epochs: int, students: list[Student]) -> dict[str, Any]:
    """What a checkpoint keeps."""
    return {"epochs": epochs, "students": [student.state() for student in students]}


def soft_targets(targets: Any, regime: str, epoch: int, index: torch.Tensor) -> torch.Tensor | None:
    """The soft labels of one batch as float32 logits (B, K), or None under hard labels."""
    if regime == "hard":
        return None
    rows = targets[epoch] if regime == "soft" else targets
    return torch.from_numpy(rows[index.cpu().numpy()]).to(index.device, torch.float32)


def validation_epochs(epochs: int, count: int) -> set[int]:
    """Evenly spread epochs after which the test set is looked at, the last one always among them."""
    count = min(count, epochs)
    return {math.ceil(epochs * (i + 1) / count) - 1 for i in range(count)}


def summary(students: list[Student]) -> dict[str, Any]:
    """Accuracy in percent per seed, with mean and standard deviation (n - 1) over the seeds."""
    measured = [[h[3] for h in student.history if h[3] is not None] for student in students]
    found: dict[str, Any] = {"last": [m[-1] for m in measured], "best": [max(m) for m in measured]}
    for name in ("last", "best"):
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
