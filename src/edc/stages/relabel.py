"""Stage relabel: teachers label the images under the augmentation the students will replay."""

from __future__ import annotations

import functools
import zlib

import numpy as np

from edc.config.registry import LABELS, implementation
from edc.data.replay import Replay
from edc.exchange.imported import check_order
from edc.nets.passes import images_at_once
from edc.stages.context import Context
from edc.stages.observers import load_observers, measure_teachers
from edc.stages.progress import ProgressLog
from edc.storage import partial_array, read_tensors, run_folder
from edc.training.label_store import compress, files
from edc.training.teachers import label_epochs, static_labels


def run(context: Context) -> None:
    """Store soft labels, of the teachers or those that came with an imported set."""
    implementation(LABELS, context.row.source)(context)


def label(context: Context) -> None:
    """Store the joint logits of the teachers: (epochs, N, K) for the augmented views, (N, K) for the plain images."""
    row, dataset = context.row, context.dataset
    condensed = context.manifest("synthesize", row.images)
    stored = read_tensors(run_folder("synthesize", row.images) / "images.safetensors")
    images = stored["images"].to(context.device)
    teachers = load_observers(context, row.observers)
    networks = list(teachers.values())
    replay = Replay(images, row, context.normaliser)
    shape = (row.epochs, len(images), dataset.classes)
    partial = context.checkpoint_path(".npy")
    state = context.resume() or {}
    accuracies = state.get("accuracy") or measure_teachers(context, teachers, context.key)
    static = static_labels(networks, (context.normaliser.encode(x) for x in images.split(row.batch)), row.ensemble)
    agreement = float((static.argmax(1).cpu() == stored["labels"]).float().mean())
    check_order(condensed["params"]["synthesize"]["initialise"], agreement, dataset.classes, context.key)
    logits = partial_array(partial, shape, np.float16)
    start, crc = int(state.get("epochs", 0)), state.get("crc", 0)
    if not start or zlib.crc32(logits[:start].data) != crc:
        context.clear_checkpoint()  # another run's checkpoint must not come to speak for the file begun here
        start, crc = 0, 0
    bar = ProgressLog(row.epochs, f"relabel {context.key}", start, "epoch")
    at_once = images_at_once(dataset.image_size)
    block = max(1, at_once // len(images))
    for first in range(start, row.epochs, block):
        epochs = range(first, min(first + block, row.epochs))
        label_epochs(logits, replay, epochs, row.batch, row.ensemble, networks, at_once)
        crc = zlib.crc32(logits[epochs.start : epochs.stop].data, crc)
        bar.update(len(epochs))
        context.checkpoint(functools.partial(position, logits, epochs.stop, accuracies, crc))
    logits.flush()
    del logits
    arrays = files(row, dataset.classes)
    if arrays == ["logits"]:
        context.move(partial, "logits.npy")
    else:
        for name, array in compress(np.load(partial, mmap_mode="r"), row).items():
            context.write_array(f"{name}.npy", array)
        partial.unlink()
    context.write_array("static.npy", static.cpu().numpy())
    context.finish(
        [*(f"{name}.npy" for name in arrays), "static.npy"],
        dataset_digest=condensed["dataset_digest"],
        shape=list(shape),
        dtype="float16",
        val_accuracy=accuracies,
        agreement=100 * agreement,
    )


def position(logits: np.memmap, epochs: int, accuracies: dict[str, float], crc: int) -> dict[str, object]:
    """The state of a checkpoint; the labels it speaks for, whose CRC-32 it has, are on the disk before it is."""
    logits.flush()
    return {"epochs": epochs, "accuracy": accuracies, "crc": crc}
