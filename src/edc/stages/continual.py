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

from edc.training.cohort import Cohort
from edc.data.augment import Normaliser
from edc.data.feed import Feed
from edc.data.replay import Replay
from edc.errors import EdcError
from edc.stages.evaluate import label_bytes
from edc.reporting.figures import lines
from edc.stages.context import Job
from edc.nets import build
from edc.nets.placing import answers
from edc.stages.observers import load_observer
from edc.config.rows import RelabelRow
from edc.nets.passes import images_at_once
from edc.stages.progress import bar
from edc.stages.relabel import all_logits, ensemble, measure
from edc.data.rng import generator
from edc.storage import RESULTS, read_tensors
from edc.training.students import Student

HISTORY = ("order", "seed", "step", "classes", "portion", "accuracy")
ALL = "all"  # instead of a portion: the test images of all classes seen


def run(job: Job) -> None:
    """For every order of the classes and every step, train a fresh student on the images of all classes seen so far.

    It answers among those classes only, and is tested on all their real test images (EDC section 4 and Figure 4; the
    protocol is that of GDumb and DM).

    Raises:
        EdcError: the labels came with an imported set, or an observer is implausibly bad.
    """
    row, dataset, device = job.row, job.dataset, torch.device(job.device)
    normaliser = Normaliser(dataset.mean, dataset.std, device)
    memory: Condensed | Real = Real(job, normaliser) if row.images is None else Condensed(job, normaliser)
    test = job.load("test")
    feed = Feed(test, dataset, normaliser, device)
    portions = {order: class_portions(dataset.classes, row.steps, order) for order in row.orders}
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
            parts = portions[order][: step + 1]
            seen = np.concatenate(parts)
            students = [fresh(job, seed, len(seen), device) for seed in row.seeds]
            for student, kept in zip(students, state.pop("students", []), strict=False):
                student.load_state(kept)
            cohort = Cohort(students)
            for epoch in range(state.pop("epoch", 0), row.epochs):
                for student in students:
                    student.begin_epoch(epoch)
                for x, targets, labels in memory.epoch(epoch, seen):
                    cohort.step(x, targets, labels)
                for student in students:
                    loss = job.finite(student.end_epoch(), f"epoch {epoch}")
                    student.history.append([epoch, student.rate, loss, None])
                progress.update()
                job.keep(checkpoint, functools.partial(position, unit, epoch + 1, history, students))
            for student in students:
                found = accuracies(student, feed, dataset.classes, parts)
                history += [[order, student.seed, step, len(seen), p, value] for p, value in found.items()]
            checkpoint.save({**position(unit + 1, 0, history, []), "seconds": job.seconds})
        scores = summary(history, row.steps)
        for step, values in measured(scores):
            tracked.metrics(values, step=step)
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
            label_bytes=memory.label_bytes,
        )


def measured(scores: dict[str, Any]) -> list[tuple[int, dict[str, float]]]:
    """Steps and values as a tracked run shows them."""
    steps = list(zip(scores["accuracy_mean"], scores["classes"], strict=True))
    found = [(i, {"seen_accuracy": value, "classes": float(classes)}) for i, (value, classes) in enumerate(steps)]
    return [*found, (len(steps), {name: scores[f"{name}_mean"] for name in ("average", "forgetting")})]


def fresh(job: Job, seed: int, classes: int, device: torch.device) -> Student:
    """A student with one output for every class seen so far."""
    row, dataset = job.row, job.dataset
    size, channels = dataset.image_size, dataset.channels
    model = build(row.student, classes=classes, image_size=size, channels=channels, seed=seed)
    return Student(seed, row, dataset, device, job.precision, model)


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
        label_bytes: what the labels of the last step would take if they were stored, as those of an evaluation are.
        digest: of the dataset the images come from.

    Raises:
        EdcError: the labels came with an imported set, or an observer is implausibly bad.
    """

    def __init__(self, job: Job, normaliser: Normaliser) -> None:
        self.row, self.normaliser, device = job.row, normaliser, torch.device(job.device)
        self.classes = job.dataset.classes
        manifest = job.upstream("synthesize", self.row.images)
        stored = read_tensors(RESULTS / "synthesize" / self.row.images / "images.safetensors")
        self.images, self.labels = stored["images"].to(device), stored["labels"].to(device)
        self.choices: RelabelRow = job.plan.relabel[self.row.labels]
        self._replayed: tuple[np.ndarray, Replay] | None = None  # of the classes seen last
        self.observers: list[nn.Module] = []
        if self.row.regime != "hard":
            if self.choices.source != "observers":
                raise EdcError(
                    f"continual.{job.key}.labels = {self.row.labels!r}: those labels are {self.choices.source}; only "
                    "observers can label the images anew in every step (regime: hard needs no labels)"
                )
            named = {key: load_observer(job, key) for key in self.choices.observers}
            measure(job, named, normaliser, self.row.labels)
            self.observers = list(named.values())
        if self.row.regime == "static":  # in the batches the relabel stage makes them in, so they are the same
            parts = self.images.split(self.choices.batch)
            self.static = torch.cat([self._label(normaliser.encode(part)) for part in parts])
        self.digest, self.image_bytes = manifest["dataset_digest"], manifest["image_bytes"]
        self.label_bytes = label_bytes(self.row.regime, [self.row.epochs, len(self.images), self.classes])

    def epoch(self, epoch: int, seen: np.ndarray) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
        """Batches of images (B, C, S, S), soft labels (B, len(seen)) or None, and classes as positions in ``seen``.

        Only images of those classes are replayed, so no other can be mixed in.
        """
        place, columns = (
            places(seen, self.classes).to(self.labels.device),
            torch.from_numpy(seen).to(self.labels.device),
        )
        mine = (place[self.labels] >= 0).nonzero().flatten()
        if len(mine) == 1:  # batch norm has nothing to compare a single image with
            mine = mine.repeat(2)
        if self._replayed is None or not np.array_equal(self._replayed[0], seen):
            self._replayed = (seen.copy(), Replay(self.images[mine], self.choices, self.normaliser))
        classes = place[self.labels[mine]]
        for index, x in self._replayed[1].epoch(epoch, self.row.batch, mix=self.row.regime == "soft"):
            targets = None
            if self.row.regime == "soft":
                targets = self._label(x)[:, columns]
            elif self.row.regime == "static":
                targets = self.static[mine[index]][:, columns]
            yield x, targets, classes[index]

    def _label(self, x: Tensor) -> Tensor:
        return ensemble(all_logits(self.observers, x), self.choices).to(torch.float32)


class Real:
    """All training images of the classes seen, with hard labels: the ceiling. See :class:`Condensed`."""

    def __init__(self, job: Job, normaliser: Normaliser) -> None:
        self.job, self.row, self.normaliser, self.train = job, job.row, normaliser, job.load("train")
        self.digest = self.train.digest
        self.image_bytes = len(self.train) * int(np.prod(self.train.shape))
        self.label_bytes = label_bytes("hard", [self.row.epochs, len(self.train), job.dataset.classes])

    def epoch(self, epoch: int, seen: np.ndarray) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
        """Batches of images (B, C, S, S), no soft labels, and classes as positions in ``seen``."""
        place = places(seen, len(self.train.classes))
        part = self.train.select((place[self.train.labels] >= 0).nonzero().flatten())
        feed = Feed(part, self.job.dataset, self.normaliser, self.job.device)
        place = place.to(self.job.device)
        for x, labels in feed.epoch(generator(0, "real", epoch), self.row.batch):
            yield x, None, place[labels]


def places(seen: np.ndarray, classes: int) -> Tensor:
    """Where every class stands among those seen: (classes,), -1 for one that is still to come."""
    place = torch.full((classes,), -1)
    place[torch.from_numpy(seen)] = torch.arange(len(seen))
    return place


@torch.no_grad()
def accuracies(student: Student, feed: Feed, classes: int, portions: Sequence[np.ndarray]) -> dict[int | str, float]:
    """Accuracy in percent on the test images of every portion seen and of all; answers among all classes seen."""
    seen = np.concatenate(portions)
    names = torch.from_numpy(seen).to(feed.labels.device)
    wanted = torch.isin(feed.labels, names).nonzero().flatten()
    right = torch.zeros(classes, dtype=torch.int64, device=names.device)
    student.model.eval()
    with student.average.swapped() if student.average is not None else contextlib.nullcontext():
        for x, labels in feed.plain(images_at_once(feed.dataset.image_size), wanted):
            said = names[answers(student.model, x).argmax(1)]
            right += torch.bincount(labels[said == labels], minlength=classes)
    found, count = right.tolist(), torch.bincount(feed.labels, minlength=classes).tolist()
    parts: dict[int | str, np.ndarray] = {**dict(enumerate(portions)), ALL: seen}
    return {name: 100 * sum(found[c] for c in part) / sum(count[c] for c in part) for name, part in parts.items()}


def summary(history: list[list[Any]], steps: int) -> dict[str, Any]:
    """Mean and standard deviation (n - 1) over orders and seeds.

    ``accuracy`` after every step, on all the ``classes`` seen by then; ``average`` of those over the steps (average
    incremental accuracy); ``forgetting``: how much lower a portion ends than it was at its best before the last step,
    averaged over all portions but the last (Chaudhry et al., ECCV 2018), in percent points; negative where the last
    step made them better.
    """
    runs: dict[tuple[int, int], np.ndarray] = {}
    classes = [0] * steps
    for order, seed, step, count, portion, value in history:
        matrix = runs.setdefault((order, seed), np.full((steps, steps + 1), np.nan))
        matrix[step, -1 if portion == ALL else portion] = value
        classes[step] = count
    accuracy = np.array([matrix[:, -1] for matrix in runs.values()])
    forgetting = [float(np.mean(np.nanmax(m[:-1, :-2], axis=0) - m[-1, :-2])) for m in runs.values()]
    found: dict[str, Any] = {"classes": classes}
    found |= {"accuracy_mean": accuracy.mean(0).tolist(), "accuracy_std": [_spread(list(a)) for a in accuracy.T]}
    for name, values in (("average", accuracy.mean(1).tolist()), ("forgetting", forgetting)):
        found |= {f"{name}_mean": descriptive.fmean(values), f"{name}_std": _spread(values)}
    return found


def _spread(values: list[float]) -> float | None:
    return descriptive.stdev(map(float, values)) if len(values) > 1 else None
