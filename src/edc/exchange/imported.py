"""Imported sets, runs/imported/NAME: the images of a synthesize row and the labels of a relabel row.

A recipe names such a set as ``NAME@FINGERPRINT``, so its runs refuse another set that was imported under the same name.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from edc.condense.initialise import InitialisationInputs
from edc.config.rows import RelabelRow, twice_chance
from edc.data.replay import VIEWS
from edc.errors import EdcError
from edc.exchange.sets import LabelledSet, check_fits, read_set, replay_choices
from edc.storage import RUNS, digest, read_tensors, run_folder, write_tensors

IMPORTED = RUNS / "imported"


def imported(inputs: InitialisationInputs) -> tuple[Tensor, Tensor]:
    """The images of an imported set and their classes: uint8 (N, C, S, S) and int64 (N,), class after class.

    Raises:
        EdcError: the set is missing, damaged or another than the recipe's, or does not fit the dataset or the row.
    """
    row, dataset = inputs.row, inputs.dataset
    if row.initialise.source is None:
        raise EdcError("initialise.source: missing; expected the name of a set imported with `edc import`")
    name, source = read_imported(row.initialise.source)
    images, folder = source.images, IMPORTED / name
    check_fits(images, dataset, inputs.train.classes, str(folder))
    if len(images) != row.ipc * dataset.classes:
        raise EdcError(f"{folder}: {len(images) // dataset.classes} images per class; expected ipc = {row.ipc}")
    return images.images, images.labels


def adopt_labels(context: Any) -> None:
    """Store the labels of an imported set as stage relabel stores those of teachers.

    Labels per epoch are stored only where the row has the augmentation they were made under. Where it has another one,
    or there are none, ``logits.npy`` has no epoch, and students can use the regimes static and hard.

    Raises:
        EdcError: the images are not imported or have no labels, or a row of the plan needs labels per epoch that are
            missing or were made under another augmentation.
    """
    row: RelabelRow = context.row
    where = f"relabel.{context.key}.source = 'imported'"
    condensed = context.manifest("synthesize", row.images)
    start = condensed["params"]["synthesize"]["initialise"]
    if start["method"] != "imported":
        raise EdcError(f"{where}: the images {row.images!r} are not imported; expected 'observers'")
    name, source = read_imported(start["source"])
    if not source.labels:
        raise EdcError(f"{where}: the set {name!r} was imported without labels; expected 'observers'")
    images = read_tensors(run_folder("synthesize", row.images) / "images.safetensors")["images"]
    if not torch.equal(images, source.images.images):
        raise EdcError(f"{where}: the images {row.images!r} differ from those of {name!r}, whose labels these are")
    unusable = why_unusable(source, row)
    for stage in ("evaluate", "slimming", "analysis") if unusable else ():
        for key, other in getattr(context.plan, stage).items():
            if other.labels == context.key and other.regime == "soft":
                raise EdcError(f"{where}: set {name!r}: {unusable}; regime 'soft' of {stage}.{key} needs them")
    static = source.labels["static"]
    logits = source.labels["logits"] if unusable is None else np.empty((0, *static.shape), np.float16)
    context.write_array("static.npy", static)
    context.write_array("logits.npy", logits)
    agreement = 100 * float((torch.from_numpy(np.array(static)).argmax(1) == source.images.labels).float().mean())
    files = ["logits.npy", "static.npy"]
    if row.replay == "stored":
        write_tensors(context.path(VIEWS), source.views)
        files.append(VIEWS)
    context.finish(
        files,
        dataset_digest=condensed["dataset_digest"],
        shape=list(logits.shape),
        dtype="float16",
        val_accuracy={},
        agreement=agreement,
    )


def check_order(start: Any, agreement: float, classes: int, key: str) -> None:
    """Refuse labels of images imported with numbers for classes that teachers recognise no better than by chance.

    Args:
        start: the synthesize row's ``initialise`` in a manifest.
        agreement: share of the images whose class is the teachers' answer.
        key: of the relabel row.
    """
    least = twice_chance(classes)
    if agreement >= least or start["method"] != "imported":
        return
    name, source = read_imported(start["source"])
    if source.origin.get("numbered"):
        actual = f"the teachers agree with the class of {100 * agreement:.1f} % of the images of {name!r}"
        remedy = "import it with folders named by class, if the numbers count the classes in another order"
        raise EdcError(f"relabel.{key}: {actual}; expected at least {100 * least:.1f} %: {remedy}")


def read_imported(source: str) -> tuple[str, LabelledSet]:
    """Name and content of the imported set ``NAME``, or of this very set and no other: ``NAME@FINGERPRINT``."""
    name, _, expected = source.partition("@")
    folder = IMPORTED / name
    if not (folder / "manifest.json").exists():
        raise EdcError(f"{folder}: no such imported set; run `edc import {name}`, or copy the folder here")
    labelled, manifest = read_set(folder)
    if expected and expected != digest(manifest):
        raise EdcError(f"{folder}: another set than the recipe's initialise.source = {source!r}")
    return name, labelled


def why_unusable(source: LabelledSet, row: RelabelRow) -> str | None:
    """Why a set's labels per epoch can't be those of a row, whose augmentation is another; None where they can."""
    if source.relabel is None or "logits" not in source.labels:
        return "no labels per epoch were imported"
    stored = replay_choices(source.relabel)
    for name, value in replay_choices(row).items():
        if stored[name] != value:
            return f"its labels per epoch were made with {name} = {stored[name]!r}, the row has {value!r}"
    return None
