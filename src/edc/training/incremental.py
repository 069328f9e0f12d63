"""Class-incremental learning: classes come in steps; a student trains on condensed images of those seen so far."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from edc.config.rows import Dataset, RelabelRow
from edc.data.augment import Normaliser
from edc.data.feed import Feed
from edc.data.images import Images
from edc.data.replay import Replay
from edc.data.rng import generator
from edc.nets.passes import images_at_once
from edc.nets.placing import compute_logits
from edc.training.evaluation import spread
from edc.training.sources import Batch, Regime
from edc.training.students import Student

HISTORY = ("order", "seed", "step", "classes", "classes_of_step", "accuracy")
ALL = "all"
"""Instead of a step: the test images of all classes seen."""


def class_steps(classes: int, steps: int, order: int) -> list[np.ndarray]:
    """The new classes of every step, in steps whose sizes differ by one at most.

    Order 0 is that of the labels, any other the seed of a permutation.
    """
    every = np.arange(classes) if order == 0 else generator(order, "continual").permutation(classes)
    return list(np.array_split(every, steps))


class Memory(Protocol):
    """Images a student may learn from, by the classes seen so far."""

    def epoch(self, epoch: int, seen: np.ndarray) -> Iterator[Batch]:
        """Batches of one epoch: images (B, C, S, S), soft labels (B, len(seen)) or None, positions in ``seen``."""


@dataclass(eq=False)
class CondensedMemory:
    """The condensed images of the classes seen, labelled by the teachers in every step.

    Only images of those classes are replayed, so no other can be mixed in. Images (N, C, S, S) uint8 and labels (N,)
    are on the device; `classes` is K; `label` gives joint logits (B, K) of normalised images and isn't called under
    hard labels.
    """

    images: Tensor
    labels: Tensor
    classes: int
    choices: RelabelRow
    regime: Regime
    batch: int
    label: Callable[[Tensor], Tensor]
    normaliser: Normaliser

    def __post_init__(self) -> None:
        self._replay: tuple[np.ndarray, Replay] | None = None  # of the classes of the previous call
        if self.regime == "static":  # in the batches of the relabel stage, so the labels are the same
            parts = self.images.split(self.choices.batch)
            self.static = torch.cat([self.label(self.normaliser.encode(part)) for part in parts])

    def epoch(self, epoch: int, seen: np.ndarray) -> Iterator[Batch]:
        position = positions(seen, self.classes).to(self.labels.device)
        columns = torch.from_numpy(seen).to(self.labels.device)
        members = (position[self.labels] >= 0).nonzero().flatten()
        if len(members) == 1:  # batch norm needs two images
            members = members.repeat(2)
        if self._replay is None or not np.array_equal(self._replay[0], seen):
            self._replay = (seen.copy(), Replay(self.images[members], self.choices, self.normaliser))
        classes = position[self.labels[members]]
        for index, x in self._replay[1].epoch(epoch, self.batch, mix=self.regime == "soft"):
            targets = None
            if self.regime == "soft":
                targets = self.label(x)[:, columns]
            elif self.regime == "static":
                targets = self.static[members[index]][:, columns]
            yield x, targets, classes[index]


@dataclass(eq=False)
class RealMemory:
    """All training images of the classes seen, with hard labels: the upper bound."""

    train: Images
    dataset: Dataset
    batch: int
    normaliser: Normaliser
    device: torch.device

    def epoch(self, epoch: int, seen: np.ndarray) -> Iterator[Batch]:
        position = positions(seen, len(self.train.classes))
        part = self.train.select((position[self.train.labels] >= 0).nonzero().flatten())
        feed = Feed(part, self.dataset, self.normaliser, self.device)
        position = position.to(self.device)
        for x, labels in feed.epoch(generator(0, "real", epoch), self.batch):
            yield x, None, position[labels]


def positions(seen: np.ndarray, classes: int) -> Tensor:
    """Position of every class among those seen: (classes,), -1 for classes of later steps."""
    position = torch.full((classes,), -1)
    position[torch.from_numpy(seen)] = torch.arange(len(seen))
    return position


@torch.no_grad()
def step_accuracies(student: Student, feed: Feed, classes: int, steps: Sequence[np.ndarray]) -> dict[int | str, float]:
    """Accuracy in percent on the test images of every step's classes and of all; predictions among all classes seen."""
    seen = np.concatenate(steps)
    names = torch.from_numpy(seen).to(feed.labels.device)
    tested = torch.isin(feed.labels, names).nonzero().flatten()
    correct = torch.zeros(classes, dtype=torch.int64, device=names.device)
    student.model.eval()
    with student.averaged_weights():
        for x, labels in feed.plain(images_at_once(feed.dataset.image_size), tested):
            predicted = names[compute_logits(student.model, x).argmax(1)]
            correct += torch.bincount(labels[predicted == labels], minlength=classes)
    hits, count = correct.tolist(), torch.bincount(feed.labels, minlength=classes).tolist()
    parts: dict[int | str, np.ndarray] = {**dict(enumerate(steps)), ALL: seen}
    return {name: 100 * sum(hits[c] for c in part) / sum(count[c] for c in part) for name, part in parts.items()}


def incremental_scores(history: list[list[Any]], steps: int) -> dict[str, Any]:
    """Mean and standard deviation (n - 1) over orders and seeds, and each value, of a `HISTORY`.

    ``accuracy`` after every step, on all the ``classes`` seen by then; ``average`` of those over the steps (average
    incremental accuracy); ``forgetting``: how much lower the classes of a step end than they were at their best before
    the last step, averaged over all steps but the last (Chaudhry et al., ECCV 2018), in percentage points.
    """
    runs: dict[tuple[int, int], np.ndarray] = {}
    classes = [0] * steps
    for order, seed, step, count, of_step, value in history:
        matrix = runs.setdefault((order, seed), np.full((steps, steps + 1), np.nan))
        matrix[step, -1 if of_step == ALL else of_step] = value
        classes[step] = count
    accuracy = np.array([matrix[:, -1] for matrix in runs.values()])
    forgetting = [float(np.mean(np.nanmax(m[:-1, :-2], axis=0) - m[-1, :-2])) for m in runs.values()]
    scores: dict[str, Any] = {"classes": classes, "accuracy": accuracy.tolist()}
    scores |= {"accuracy_mean": accuracy.mean(0).tolist(), "accuracy_std": [spread(list(a)) for a in accuracy.T]}
    for name, values in (("average", accuracy.mean(1).tolist()), ("forgetting", forgetting)):
        scores |= {name: values, f"{name}_mean": statistics.fmean(values), f"{name}_std": spread(values)}
    return scores
