"""The images and labels a student of this run learns from, read from earlier runs or from the dataset."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edc.config.rows import RelabelRow
from edc.data.augment import Normaliser
from edc.data.feed import Feed
from edc.errors import EdcError
from edc.stages.context import Context
from edc.storage import read_array, read_tensors, run_folder
from edc.training.sources import Condensed, Real, Source, label_bytes


@dataclass(frozen=True)
class TrainingData:
    """What a student is given.

    Attributes:
        source: its batches.
        digest: of the dataset the images come from.
        image_bytes, label_bytes: what images and labels take.
    """

    source: Source
    digest: str
    image_bytes: int
    label_bytes: int


def training_data(context: Context, normaliser: Normaliser) -> TrainingData:
    """The condensed set and labels a row names, or the training set where it names none.

    Raises:
        EdcError: images or labels are missing, damaged, or of another shape than the row needs.
    """
    row, dataset = context.row, context.dataset
    if row.images is None:
        train = context.images("train")
        size = len(train) * math.prod(train.shape)
        labels = label_bytes("hard", [row.epochs, len(train), dataset.classes])
        feed = Feed(train, dataset, normaliser, context.device)
        return TrainingData(Real(feed, row.batch), train.digest, size, labels)
    condensed, labelled = context.manifest("synthesize", row.images), context.manifest("relabel", row.labels)
    stored = read_tensors(run_folder("synthesize", row.images) / "images.safetensors")
    folder = run_folder("relabel", row.labels)
    targets = read_array(folder / ("logits.npy" if row.regime == "soft" else "static.npy"))
    choices = RelabelRow(**labelled["params"]["relabel"])  # what was replayed when the labels were made
    expected = (len(stored["images"]), dataset.classes)
    shape = (choices.epochs, *expected) if row.regime == "soft" else expected
    if targets.shape != shape:
        raise EdcError(
            f"{folder}: labels of shape {list(targets.shape)}; expected {expected[0]} images and {expected[1]} classes"
        )
    source = Condensed(
        stored["images"].to(context.device),
        stored["labels"].to(context.device),
        targets,
        row.regime,
        choices,
        row.batch,
        normaliser,
    )
    labels = label_bytes(row.regime, labelled["shape"])
    return TrainingData(source, condensed["dataset_digest"], condensed["image_bytes"], labels)
