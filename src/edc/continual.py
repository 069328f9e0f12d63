"""Stage continual: classes come portion by portion, and condensed images of those seen are all a student has."""

from __future__ import annotations

import contextlib
import functools
import statistics as descriptive
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edc.data.augment import Normaliser
from edc.data.feed import Feed
from edc.data.replay import Replay
from edc.figures import lines
from edc.job import Job
from edc.nets import build
from edc.observers import load_observer
from edc.params import RelabelRow
from edc.progress import bar
from edc.relabel import all_logits, ensemble, measure
from edc.rng import generator
from edc.storage import RESULTS, read_tensors
from edc.students import Student

HISTORY = ("order", "seed", "step", "classes", "portion", "accuracy")
ALL = "all"  # instead of a portion: the test images of all classes seen


def run(job: Job) -> None:
    """For every order of the classes and every step, train a fresh student on the images of all classes seen so far.

    It answers among those classes only, and is tested on all their real test images (EDC section 4 and Figure 4; the
    protocol is that of GDumb and DM).
    """
    row, dataset, device = job.row, job.dataset, torch.device(job.device)
    normaliser = Normaliser(dataset.mean, dataset.std, device)
    memory: Condensed | Real = Real(job, normaliser) if row.images is None else Condensed(job, normaliser)
    test = job.load("test")
    feed = Feed(test, dataset, normaliser, device)
    units = [(order, step) for order in row.orders for step in range(row.steps)]

    checkpoint = job.checkpoint()
    state = job.resume(checkpoint) or {"unit": 0, "epoch": 0, "history": [], "students": []}
    history: list[list[Any]] = state["history"]
    done = state["unit"] * row.epochs + state["epoch"]
    with contextlib.ExitStack() as stack:
        tracked = stack.enter_context(job.track())
        tracked.dataset(row.dataset, memory.digest)
        progress = stack.enter_context(bar(len(units) * row.epochs, f"continual {job.key}", done, "epoch"))
        for unit in range(state["unit"], len(units)):
            order, step = units[unit]
            portions = class_portions(dataset.classes, row.steps, order)
            seen = np.concatenate(portions[: step + 1])
            students = [fresh(job, seed, len(seen), device) for seed in row.seeds]
            for student, kept in zip(students, state.pop("students", []), strict=False):
                student.load_state(kept)
            for epoch in range(state.pop("epoch", 0), row.epochs):
                for student in students:
                    student.begin_epoch(epoch)
                for x, targets, labels in memory.epoch(epoch, seen):
                    for student in students:
                        student.step(x, targets, labels)
                for student in students:
                    student.history.append([epoch, student.rate, student.end_epoch(), None])
                progress.update()
                job.keep(checkpoint, functools.partial(position, unit, epoch + 1, history, students))
            for student in students:
                found = accuracies(student, feed, seen, portions[: step + 1])
                history += [[order, student.seed, step, len(seen), p, value] for p, value in found.items()]
            checkpoint.save({**position(unit + 1, 0, history, []), "seconds": job.seconds})
        scores = summary(history, row.steps, [len(np.concatenate(portions[: s + 1])) for s in range(row.steps)])
        for step, value in enumerate(scores["accuracy_mean"]):
            tracked.metrics({"seen_accuracy": value, "classes": float(scores["classes"][step])}, step=step)
        tracked.metrics({name: scores[f"{name}_mean"] for name in ("average", "forgetting")}, step=row.steps)
        tracked.artifact(job.table("history.csv", HISTORY, history))
        title = f"{row.recipe}, IPC {row.ipc or 'all'}, {row.student}"
        curve = {title: list(zip(scores["classes"], scores["accuracy_mean"], scores["accuracy_std"], strict=True))}
        tracked.artifact(lines(job.path("curves.png"), curve, "classes seen", "accuracy on them, %"))
        job.finish(
            ["history.csv"],
            dataset_digest=memory.digest,
            test_digest=test.digest,
            scores=scores,
            image_bytes=memory.image_bytes,
        )


def fresh(job: Job, seed: int, classes: int, device: torch.device) -> Student:
    """A student with one output for every class seen so far."""
    row, dataset = job.row, job.dataset
    size, channels = dataset.image_size, dataset.channels
    model = build(row.student, classes=classes, image_size=size, channels=channels, seed=seed)
    return Student(seed, row, dataset, device, model=model)


def position(unit: int, epoch: int, history: list[list[Any]], students: list[Student]) -> dict[str, Any]:
    """What a checkpoint keeps."""
    return {"unit": unit, "epoch": epoch, "history": history, "students": [student.state() for student in students]}


def class_portions(classes: int, steps: int, order: int) -> list[np.ndarray]:
    """The classes of every step.

    Args:
        classes: K.
        steps: number of portions; sizes differ by one at most.
        order: 0 for the order of the labels, otherwise the seed of a permutation.
    """
    every = np.arange(classes) if order == 0 else generator(order, "continual").permutation(classes)
    return list(np.array_split(every, steps))


class Condensed:
    """The condensed images of the classes seen, labelled by the observers on the way, augmented as the recipe says.

    Args:
        job: of this stage.
        normaliser: into the space networks see.

    Attributes:
        image_bytes: of the whole set.
        digest: of the dataset the images come from.
    """

    def __init__(self, job: Job, normaliser: Normaliser) -> None:
        self.row, self.normaliser, device = job.row, normaliser, torch.device(job.device)
        manifest = job.upstream("synthesize", self.row.images)
        stored = read_tensors(RESULTS / "synthesize" / self.row.images / "images.safetensors")
        self.images, self.labels = stored["images"].to(device), stored["labels"].to(device)
        self.choices: RelabelRow = job.plan.relabel[self.row.labels]
        self.observers: list[nn.Module] = []
        if self.row.regime != "hard":
            named = {key: load_observer(job, key) for key in self.choices.observers}
            measure(job, named, normaliser, self.row.labels)
            self.observers = list(named.values())
        self.digest, self.image_bytes = manifest["dataset_digest"], manifest["image_bytes"]

    def epoch(self, epoch: int, seen: np.ndarray) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
        """Batches of images (B, C, S, S), soft labels (B, len(seen)) or None, and classes as positions in ``seen``."""
        place = torch.full((int(self.labels.max()) + 1,), -1, device=self.labels.device)
        columns = torch.from_numpy(seen).to(self.labels.device)
        place[columns] = torch.arange(len(seen), device=place.device)
        mine = (place[self.labels] >= 0).nonzero().flatten()
        replay = Replay(self.images[mine], self.choices, self.normaliser)
        classes = place[self.labels[mine]]
        for index, x in replay.epoch(epoch, self.row.batch, mix=self.row.regime == "soft"):
            targets = None
            if self.row.regime == "soft":
                targets = self._label(x)[:, columns]
            elif self.row.regime == "fixed":
                targets = self._label(self.normaliser.encode(self.images[mine[index]]))[:, columns]
            yield x, targets, classes[index]

    def _label(self, x: Tensor) -> Tensor:
        return ensemble(all_logits(self.observers, x), self.choices).to(torch.float32)


class Real:
    """All training images of the classes seen, with hard labels: the ceiling. See :class:`Condensed`."""

    def __init__(self, job: Job, normaliser: Normaliser) -> None:
        self.job, self.row, self.normaliser, self.train = job, job.row, normaliser, job.load("train")
        self.digest = self.train.digest
        self.image_bytes = len(self.train) * int(np.prod(self.train.shape))

    def epoch(self, epoch: int, seen: np.ndarray) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
        """Batches of images (B, C, S, S), no soft labels, and classes as positions in ``seen``."""
        place = torch.full((len(self.train.classes),), -1)
        place[torch.from_numpy(seen)] = torch.arange(len(seen))
        part = self.train.select((place[self.train.labels] >= 0).nonzero().flatten())
        feed = Feed(part, self.job.dataset, self.normaliser, self.job.device)
        place = place.to(self.job.device)
        for x, labels in feed.epoch(generator(0, "real", epoch), self.row.batch):
            yield x, None, place[labels]


@torch.no_grad()
def accuracies(
    student: Student, feed: Feed, seen: np.ndarray, portions: Sequence[np.ndarray]
) -> dict[int | str, float]:
    """Accuracy in percent on the test images of every portion seen and of all; answers among all classes seen."""
    names = torch.from_numpy(seen).to(feed.labels.device)
    wanted = torch.isin(feed.labels, names).nonzero().flatten()
    right = torch.zeros(int(feed.labels.max()) + 1, device=names.device)
    count = torch.zeros_like(right)
    student.model.eval()
    with student.average.swapped() if student.average is not None else contextlib.nullcontext():
        for x, labels in feed.plain(500, wanted):
            answers = names[student.model(x).argmax(1)]
            right.index_add_(0, labels, (answers == labels).float())
            count.index_add_(0, labels, torch.ones_like(labels, dtype=count.dtype))
    parts: dict[int | str, np.ndarray] = {**dict(enumerate(portions)), ALL: seen}
    index = {name: torch.from_numpy(part).to(names.device) for name, part in parts.items()}
    return {name: 100 * float(right[part].sum() / count[part].sum()) for name, part in index.items()}


def summary(history: list[list[Any]], steps: int, classes: list[int]) -> dict[str, Any]:
    """Mean and standard deviation (n - 1) over orders and seeds.

    ``accuracy`` after every step, on all classes seen; ``average`` of those over the steps (average incremental
    accuracy); ``forgetting``: how much lower than its best a portion ends, averaged over all but
    the last (Chaudhry et al. 2018), in percent points.
    """
    runs: dict[tuple[int, int], np.ndarray] = {}
    for order, seed, step, _, portion, value in history:
        matrix = runs.setdefault((order, seed), np.full((steps, steps + 1), np.nan))
        matrix[step, -1 if portion == ALL else portion] = value
    accuracy = np.array([matrix[:, -1] for matrix in runs.values()])
    forgetting = [float(np.mean(np.nanmax(m[:, : steps - 1], axis=0) - m[-1, : steps - 1])) for m in runs.values()]
    found: dict[str, Any] = {"classes": classes}
    found |= {"accuracy_mean": accuracy.mean(0).tolist(), "accuracy_std": [_spread(list(a)) for a in accuracy.T]}
    for name, values in (("average", accuracy.mean(1).tolist()), ("forgetting", forgetting)):
        found |= {f"{name}_mean": descriptive.fmean(values), f"{name}_std": _spread(values)}
    return found


def _spread(values: list[float]) -> float | None:
    return descriptive.stdev(map(float, values)) if len(values) > 1 else None
