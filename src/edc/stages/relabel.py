"""Stage relabel: the observers label the images under the augmentation the students will replay."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor, nn

from edc.config.choices import ENSEMBLE, LABELS, implementation
from edc.data.augment import Normaliser
from edc.data.feed import Feed
from edc.data.replay import Replay
from edc.errors import EdcError
from edc.stages.context import Job
from edc.nets.placing import answers
from edc.stages.observers import load_observer
from edc.config.rows import RelabelRow, twice_chance
from edc.nets.passes import images_at_once
from edc.stages.progress import bar
from edc.storage import RESULTS, partial_array, read_tensors, replacing
from edc.training.optimisers import accuracy

SANITY_IMAGES = 2000


def run(job: Job) -> None:
    """Store soft labels, of the observers or those that came with an imported set."""
    implementation(LABELS, job.row.source)(job)


def observe(job: Job) -> None:
    """Store the joint logits of the observers: (epochs, N, K) for the augmented views, (N, K) for the plain images."""
    row, dataset, device = job.row, job.dataset, torch.device(job.device)
    made = job.upstream("synthesize", row.images)
    stored = read_tensors(RESULTS / "synthesize" / row.images / "images.safetensors")
    images = stored["images"].to(device)
    observers = {key: load_observer(job, key) for key in row.observers}
    normaliser = Normaliser(dataset.mean, dataset.std, device)
    replay = Replay(images, row, normaliser)
    shape = (row.epochs, len(images), dataset.classes)
    checkpoint, partial = job.checkpoint(), job.checkpoint_path(".npy")
    state = job.resume(checkpoint) or {}
    measured = state.get("accuracy") or measure(job, observers, normaliser)
    whole = partial.exists() and partial.stat().st_size == state.get("bytes")
    start = int(state.get("epochs", 0)) if whole else 0
    if not start:
        checkpoint.clear()  # another run's checkpoint must not come to speak for the file begun here
    logits = partial_array(partial, shape, np.float16, resume=start > 0)
    size = partial.stat().st_size
    with job.track() as tracked, bar(row.epochs, f"relabel {job.key}", start, "epoch") as progress:
        tracked.dataset(row.dataset, made["dataset_digest"])
        tracked.metrics({f"holdout_accuracy_{key}": value for key, value in measured.items()}, step=0)
        at_once = images_at_once(dataset.image_size)
        block = max(1, at_once // len(images))
        for first in range(start, row.epochs, block):
            epochs = range(first, min(first + block, row.epochs))
            label_epochs(logits, replay, epochs, row, list(observers.values()), at_once)
            progress.update(len(epochs))
            if checkpoint.due():
                logits.flush()
            job.keep(checkpoint, functools.partial(dict, epochs=epochs.stop, accuracy=measured, bytes=size))
        logits.flush()
        del logits
        job.adopt("logits.npy", partial)
        plain = torch.cat(
            [ensemble(all_logits(list(observers.values()), normaliser.encode(x)), row) for x in images.split(row.batch)]
        )
        with replacing(job.path("static.npy")) as temporary, temporary.open("wb") as file:
            np.save(file, plain.cpu().numpy())
        right = (plain.argmax(1).cpu() == stored["labels"]).float().mean()
        tracked.metrics({"agreement": 100 * float(right)}, step=0)
        job.finish(
            ["logits.npy", "static.npy"],
            dataset_digest=made["dataset_digest"],
            shape=list(shape),
            dtype="float16",
            val_accuracy=measured,
            agreement=100 * float(right),
        )


def label_epochs(
    logits: np.ndarray, replay: Replay, epochs: range, row: RelabelRow, observers: list[nn.Module], at_once: int
) -> None:
    """Label a block of epochs in forward passes of about ``at_once`` images, whatever the students' batch is.

    Blocks and passes are cut the same way whether or not a run was interrupted, so the last bits are the same too.
    """
    pending: list[tuple[int, np.ndarray, Tensor]] = []

    def forward() -> None:
        found = all_logits(observers, torch.cat([x for _, _, x in pending]))
        offset = 0
        for epoch, index, x in pending:
            # One batch at a time: some ensembles weigh the observers by what they say of the whole batch.
            label = ensemble(found[:, offset : offset + len(x)], row)
            logits[epoch, index] = label.cpu().numpy()
            offset += len(x)
        pending.clear()

    for epoch in epochs:
        for index, x in replay.epoch(epoch, row.batch):
            pending.append((epoch, index.cpu().numpy(), x))
            if sum(len(x) for _, _, x in pending) >= at_once:
                forward()
    if pending:
        forward()


@torch.no_grad()
def all_logits(observers: list[nn.Module], x: Tensor) -> Tensor:
    """What every observer says: (M, B, K)."""
    return torch.stack([answers(observer, x) for observer in observers])


def ensemble(logits: Tensor, row: RelabelRow) -> Tensor:
    """One label from the observers' logits (M, B, K), in half precision: (B, K)."""
    label: Tensor = implementation(ENSEMBLE, row.ensemble)(logits)
    return label.to(torch.float16)


def measure(
    job: Job, observers: dict[str, nn.Module], normaliser: Normaliser, key: str | None = None
) -> dict[str, float]:
    """Accuracy of every observer, percent, on held-out training images (on training images where none are held out).

    Args:
        job: whose dataset it is.
        observers: by row.
        normaliser: into the space they see.
        key: the relabel row that says what is expected of them; None: the job's own.

    Raises:
        EdcError: one is implausibly bad; most often its classes are in another order.
    """
    held = job.load("val" if job.dataset.val_fraction else "train")
    spread = torch.linspace(0, len(held) - 1, min(SANITY_IMAGES, len(held))).long()
    feed = Feed(held.select(spread), job.dataset, normaliser, job.device)
    key = key or job.key
    given = job.plan.relabel[key].min_accuracy
    least = given if given is not None else twice_chance(job.dataset.classes)
    measured = {}
    for name, observer in observers.items():
        measured[name] = accuracy(observer, feed)
        if measured[name] < 100 * least:
            raise EdcError(
                f"observer {name} is right on {measured[name]:.1f} % of held-out images, at least "
                f"{100 * least:.1f} % was expected (relabel.{key}.min_accuracy); "
                "train it longer, or check the order of its classes"
            )
    return measured
