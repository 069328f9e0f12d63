"""The images and labels a student of this run learns from: those of earlier runs, or the training set."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edc.config.rows import RelabelRow
from edc.data.replay import VIEWS
from edc.errors import EdcError
from edc.stages.context import Context
from edc.stages.observers import load_observers, measure_teachers
from edc.storage import read_array, read_tensors, run_folder
from edc.training.incremental import CondensedMemory, Memory, RealMemory
from edc.training.label_store import label_bytes, open_store
from edc.training.sources import Condensed, Real, Source
from edc.training.teachers import joint_label, teacher_logits, view_logits


@dataclass(frozen=True)
class TrainingData:
    """What a student is given: batches, digest of the dataset the images come from, bytes of images and labels."""

    source: Source
    digest: str
    image_bytes: int
    label_bytes: int


def training_data(context: Context) -> TrainingData:
    """The condensed set and labels a row names, or the training set where it names none.

    Raises:
        EdcError: images or labels are missing, damaged, or of another shape than the row needs.
    """
    row, dataset = context.row, context.dataset
    if row.images is None:
        train = context.images("train")
        size = len(train) * math.prod(train.shape)
        labels = label_bytes("hard", [row.epochs, len(train), dataset.classes])
        return TrainingData(Real(context.feed(train), row.batch), train.digest, size, labels)
    condensed, labelled = context.manifest("synthesize", row.images), context.manifest("relabel", row.labels)
    stored = read_tensors(run_folder("synthesize", row.images) / "images.safetensors")
    folder = run_folder("relabel", row.labels)
    choices = RelabelRow(**labelled["params"]["relabel"])  # what was replayed when the labels were made

    def read(name: str) -> np.ndarray:
        return read_array(folder / f"{name}.npy")

    soft = row.regime == "soft"
    targets = open_store(read, dataset.classes, choices, row.loss.name) if soft else read("static")
    expected = (len(stored["images"]), dataset.classes)
    if targets.shape != ((choices.epochs, *expected) if soft else expected):
        raise EdcError(
            f"{folder}: labels of shape {list(targets.shape)}; expected {expected[0]} images and {expected[1]} classes"
        )
    images, classes = (stored[name].to(context.device) for name in ("images", "labels"))
    phases = row.regimes(row.regime) if row.phases else ()
    views = read_tensors(folder / VIEWS) if choices.replay == "stored" else {}
    batches = (row.batch, context.normaliser, row.reuse, phases, row.loss.hard, views)
    source = Condensed(images, classes, targets, row.regime, choices, *batches)
    labels = label_bytes(row.regime, labelled["shape"], choices) + (soft and sum(v.nbytes for v in views.values()))
    return TrainingData(source, condensed["dataset_digest"], condensed["image_bytes"], labels)


def class_memory(context: Context) -> tuple[Memory, dict[str, Any]]:
    """What the student learns from, and its facts for the manifest.

    ``label_bytes`` is what the labels of the last step would take if they were stored, as an evaluation's are.

    Raises:
        EdcError: the labels came with an imported set, or a teacher is implausibly bad.
    """
    row, dataset = context.row, context.dataset
    if row.images is None:
        train = context.images("train")
        facts = {
            "dataset_digest": train.digest,
            "image_bytes": len(train) * math.prod(train.shape),
            "label_bytes": label_bytes("hard", [row.epochs, len(train), dataset.classes]),
        }
        return RealMemory(train, dataset, row.batch, context.normaliser, context.device), facts
    manifest = context.manifest("synthesize", row.images)
    stored = read_tensors(run_folder("synthesize", row.images) / "images.safetensors")
    choices: RelabelRow = context.plan.relabel[row.labels]
    teachers: list[torch.nn.Module] = []
    if row.regime != "hard":
        if choices.source != "observers":
            raise EdcError(
                f"continual.{context.key}.labels = {row.labels!r}: those labels are {choices.source}; only observers "
                "can label the images again in every step (regime: hard needs no labels)"
            )
        observers = load_observers(context, choices.observers)
        measure_teachers(context, observers, row.labels)
        teachers = list(observers.values())

    def label(x: Tensor) -> Tensor:
        logits = view_logits(teachers, x, choices) if row.regime == "soft" else teacher_logits(teachers, x)
        return joint_label(logits, choices.ensemble).to(torch.float32)

    images, labels = stored["images"].to(context.device), stored["labels"].to(context.device)
    memory = CondensedMemory(images, labels, dataset.classes, choices, row.regime, row.batch, label, context.normaliser)
    facts = {
        "dataset_digest": manifest["dataset_digest"],
        "image_bytes": manifest["image_bytes"],
        "label_bytes": label_bytes(row.regime, [row.epochs, len(images), dataset.classes]),
    }
    return memory, facts
