"""Stage statistics: what an observer's layers see of the dataset, globally and per class."""

from __future__ import annotations

import functools
import math

import torch

from edc.data.augment import Normaliser
from edc.data.feed import Feed
from edc.stages.context import Job
from edc.condense.moments import Layout
from edc.stages.observers import load_observer
from edc.stages.progress import bar
from edc.training.cuda_graphs import Recorded
from edc.data.rng import generator
from edc.condense.watching import Watcher, running_statistics


def run(job: Job) -> None:
    """One epoch over the training images, all observers on the same augmented batches (EDC section 3.1).

    For every observer the global vector (D,) and the class table (K, D) of :mod:`edc.condense.matching`: globally the mean over
    mini-batches, weighted by their size, of batch statistics (BN layers: their own running statistics); per class the
    mean over images of each image's own statistics.
    """
    row, dataset, device = job.row, job.dataset, torch.device(job.device)
    train = job.load("train")
    observers = {key: load_observer(job, key) for key in row.observers}
    watchers = {key: Watcher(model, row.patch, train.shape) for key, model in observers.items()}
    moments = {key: Recorded(watcher.moments) for key, watcher in watchers.items()}
    sums = {key: ClassSums(w.layout, dataset.classes, device) for key, w in watchers.items()}
    normaliser = Normaliser(dataset.mean, dataset.std, device)
    feed = Feed(train, dataset, normaliser, device)
    count = math.ceil(len(feed) / row.batch)

    checkpoint = job.checkpoint()
    start = 0
    if state := job.resume(checkpoint):
        start = state["batches"]
        for key, held in sums.items():
            held.load(state["sums"][key])
    with job.track() as tracked, bar(count, f"statistics {job.key}", start, "batch") as progress:
        tracked.dataset(row.dataset, train.digest)
        batches = feed.epoch(generator(row.seed, "statistics"), row.batch, join=False, start=start)
        for i, (x, labels) in enumerate(batches, start):
            for key, measured in moments.items():
                sums[key].add(*measured(x), labels)
            progress.update()
            job.keep(checkpoint, functools.partial(position, i + 1, sums))
        files = []
        for key, held in sums.items():
            everything, classes = held.result(row.class_variance)
            everything = running_statistics(observers[key], watchers[key].hooks, everything)
            files.append(f"{key}.safetensors")
            job.tensors(files[-1], {"global": everything, "classes": classes})
        sizes = {key: watcher.size for key, watcher in watchers.items()}
        tracked.metrics({f"size_{key}": float(size) for key, size in sizes.items()}, step=0)
        job.finish(files, dataset_digest=train.digest, images=len(train), sizes=sizes)


def position(batches: int, sums: dict[str, ClassSums]) -> dict[str, object]:
    """What a checkpoint keeps."""
    return {"batches": batches, "sums": {key: held.state() for key, held in sums.items()}}


class ClassSums:
    """Running sums of per-image statistics, in float32, from which both targets follow.

    A batch's variance over (image, pixel) is the mean of the images' variances plus the variance of their means, so the
    per-image statistics are all that has to be measured.

    Args:
        layout: of the statistics.
        classes: K.
        device: of the sums.
    """

    def __init__(self, layout: Layout, classes: int, device: torch.device) -> None:
        self.layout = layout
        self.means = torch.zeros(classes, layout.half, device=device)
        self.variances, self.squares = torch.zeros_like(self.means), torch.zeros_like(self.means)
        self.everything = torch.zeros(2, layout.half, device=device)
        self.counts = torch.zeros(classes, device=device)

    def add(self, means: torch.Tensor, variances: torch.Tensor, labels: torch.Tensor) -> None:
        """Take in one batch: every image's means and variances (B, D / 2), and classes (B,)."""
        mean = means.mean(dim=0)
        spread = (means - mean).square_().mean(dim=0)
        self.everything += torch.stack([mean, variances.mean(dim=0) + spread]) * len(labels)
        self.means.index_add_(0, labels, means)
        self.variances.index_add_(0, labels, variances)
        self.squares.index_add_(0, labels, means * means)
        self.counts.index_add_(0, labels, torch.ones_like(labels, dtype=self.counts.dtype))

    def result(self, class_variance: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Global vector (D,) and class table (K, D); "mixture" adds the variance of the images' means to a class's."""
        means, variances, squares = (
            table / self.counts[:, None] for table in (self.means, self.variances, self.squares)
        )
        if class_variance == "mixture":
            variances += (squares - means * means).clamp_min_(0)
        mean, variance = (self.everything / self.counts.sum()).unsqueeze(1)
        return self.layout.vector(mean, variance)[0], self.layout.vector(means, variances)

    def state(self) -> dict[str, torch.Tensor]:
        """For the checkpoint."""
        return {name: getattr(self, name) for name in ("means", "variances", "squares", "everything", "counts")}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """From the checkpoint."""
        for name, tensor in state.items():
            getattr(self, name).copy_(tensor)
