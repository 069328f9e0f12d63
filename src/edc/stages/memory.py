"""What a class-incremental student may learn from: condensed images with teachers, or the training set."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from edc.config.rows import RelabelRow
from edc.data.augment import Normaliser
from edc.errors import EdcError
from edc.stages.context import Context
from edc.stages.observers import load_observers
from edc.stages.teachers import measure_teachers
from edc.storage import read_tensors, run_folder
from edc.training.incremental import CondensedMemory, Memory, RealMemory
from edc.training.sources import label_bytes
from edc.training.teachers import joint_label, teacher_logits


def class_memory(context: Context, normaliser: Normaliser) -> tuple[Memory, dict[str, Any]]:
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
        return RealMemory(train, dataset, row.batch, normaliser, context.device), facts
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
        measure_teachers(context, observers, normaliser, row.labels)
        teachers = list(observers.values())

    def label(x: Tensor) -> Tensor:
        return joint_label(teacher_logits(teachers, x), choices.ensemble).to(torch.float32)

    images, labels = stored["images"].to(context.device), stored["labels"].to(context.device)
    memory = CondensedMemory(images, labels, dataset.classes, choices, row.regime, row.batch, label, normaliser)
    facts = {
        "dataset_digest": manifest["dataset_digest"],
        "image_bytes": manifest["image_bytes"],
        "label_bytes": label_bytes(row.regime, [row.epochs, len(images), dataset.classes]),
    }
    return memory, facts
