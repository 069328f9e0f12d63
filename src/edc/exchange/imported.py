"""Condensed sets made elsewhere, as `edc import` stored them: a synthesize row's images and a relabel row's labels.

A recipe names such a set as ``NAME@FINGERPRINT``: should another set come to stand under the name, its runs refuse what
they find instead of passing it off as the first.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from edc.errors import EdcError
from edc.config.rows import RelabelRow
from edc.storage import RESULTS, fingerprint, read_array, read_json, read_tensors, replacing, sha256
from edc.config.validation import validate

if TYPE_CHECKING:
    from edc.condense.initialise import Start
    from edc.stages.context import Job

IMPORTED = RESULTS / "imported"
KEYS = ("dataset", "classes", "ipc", "shape", "labels", "files")
UNREPLAYED = {"dataset", "images", "observers", "source", "ensemble", "min_accuracy"}
"""What a relabel row says of who labels, not of what is shown; every other value decides the pixels."""


def imported(start: Start) -> tuple[Tensor, Tensor]:
    """The images of an imported set and their classes: uint8 (N, C, S, S) and int64 (N,), class after class.

    Raises:
        EdcError: there is no such set, it is damaged or another one than the recipe means, or its classes, the size of
            its images or their number are not what the row asks for.
    """
    row, dataset = start.row, start.dataset
    source = row.initialise.source
    if source is None:
        raise EdcError("initialise.source: missing; expected the name of a set that `edc import` brought in")
    name, found = stored(source)
    where = f"{IMPORTED / name}"
    for c, (mine, theirs) in enumerate(zip(found["classes"], start.train.classes, strict=False)):
        if mine != theirs:
            raise EdcError(f"{where}: class {c} is {mine!r}; expected {theirs!r} as in dataset {dataset.name!r}")
    size = [dataset.classes * row.ipc, dataset.channels, dataset.image_size, dataset.image_size]
    if len(found["classes"]) != dataset.classes or found["shape"][1:] != size[1:]:
        raise EdcError(
            f"{where}: {len(found['classes'])} classes, images of {found['shape'][1:]}; expected {dataset.classes} and "
            f"{size[1:]} as in dataset {dataset.name!r}"
        )
    if found["shape"] != size:
        raise EdcError(f"{where}: {found['ipc']} images per class; ipc = {row.ipc} was asked for")
    tensors = read_tensors(IMPORTED / name / "images.safetensors")
    return tensors["images"], tensors["labels"]


def adopt_labels(job: Job) -> None:
    """Store the labels that came with an imported set, as :func:`edc.stages.relabel.observe` stores those of observers.

    Labels per epoch are taken only where this row shows the very views they were made for. Where they are not, or none
    came, ``logits.npy`` has no epoch, and only the regimes that don't ask for them can be judged.

    Raises:
        EdcError: the images are no imported set as it came, no labels came with it, or a row of the plan needs labels
            per epoch that did not come or were made for other views.
    """
    row, here = job.row, f"relabel.{job.key}.source = 'imported'"
    made = job.upstream("synthesize", row.images)
    start = made["params"]["synthesize"]["initialise"]
    if start["method"] != "imported":
        raise EdcError(f"{here}: the images {row.images!r} are not imported; expected 'observers'")
    name, found = stored(start["source"])
    came = found["labels"]
    if came is None:
        raise EdcError(f"{here}: the set {name!r} came without labels; expected 'observers'")
    images, labels = (read_tensors(RESULTS / "synthesize" / row.images / "images.safetensors")[n] for n in TENSORS)
    if not torch.equal(images, read_tensors(IMPORTED / name / "images.safetensors")["images"]):
        raise EdcError(f"{here}: the images {row.images!r} are no longer those of {name!r}, which its labels belong to")
    use = "no labels per epoch came along" if came["logits"] is None else difference(came["replay"], row)
    if use is not None:
        needed = [
            f"{stage}.{key}"
            for stage in ("evaluate", "slimming")
            for key, other in getattr(job.plan, stage).items()
            if other.labels == job.key and other.regime == "soft"
        ]
        if needed:
            raise EdcError(f"{here}: set {name!r}: {use}; {needed[0]} needs labels per epoch, for its regime is 'soft'")
    shape = [0 if use is not None else row.epochs, len(images), job.dataset.classes]
    fixed = read_array(IMPORTED / name / "static.npy")
    right = 100 * float((torch.from_numpy(np.array(fixed)).argmax(1) == labels).float().mean())
    with job.track() as tracked:
        tracked.dataset(row.dataset, made["dataset_digest"])
        tracked.metrics({"agreement": right}, step=0)
        for file in ("static.npy", "logits.npy"):
            with replacing(job.path(file)) as temporary:
                if file == "logits.npy" and use is not None:
                    with temporary.open("wb") as empty:
                        np.save(empty, np.empty(shape, np.float16))
                else:
                    shutil.copyfile(IMPORTED / name / file, temporary)
        job.finish(
            ["logits.npy", "static.npy"],
            dataset_digest=made["dataset_digest"],
            shape=shape,
            dtype="float16",
            val_accuracy={},
            agreement=right,
        )


TENSORS = ("images", "labels")


def stored(source: str) -> tuple[str, dict[str, Any]]:
    """Name and manifest of an imported set, its files checked.

    Args:
        source: ``NAME``, or ``NAME@FINGERPRINT`` for this very set.

    Raises:
        EdcError: there is no such set, a file is missing or changed, or it is another set than the fingerprint's.
    """
    name, _, digest = source.partition("@")
    path = IMPORTED / name / "manifest.json"
    if not path.exists():
        raise EdcError(f"{path.parent}: no such imported set; bring it in with `edc import {name}`, or `dvc pull`")
    manifest = read_json(path)
    if not isinstance(manifest, dict) or any(key not in manifest for key in KEYS):
        raise EdcError(f"{path}: damaged; expected the keys {', '.join(KEYS)}; import the set again")
    check_files(path.parent, manifest["files"], "import the set again")
    if digest and digest != fingerprint(manifest["files"]):
        raise EdcError(f"{path}: another set than the recipe's initialise.source = {source!r}; expected that one")
    return name, manifest


def source_of(name: str, manifest: Mapping[str, Any]) -> str:
    """What a recipe writes to mean this very set."""
    return f"{name}@{fingerprint(manifest['files'])}"


def check_files(folder: Path, files: Mapping[str, Mapping[str, Any]], remedy: str) -> None:
    """Refuses a folder whose files are not as its manifest lists them: bytes and sha256 by name."""
    for name, entry in files.items():
        path: Path = folder / name
        if not path.is_file():
            raise EdcError(f"{path}: no such file; {remedy}")
        if path.stat().st_size != entry["bytes"] or sha256(path) != entry["sha256"]:
            raise EdcError(f"{path}: damaged or changed since it was written; {remedy}")


def replay_of(row: RelabelRow) -> dict[str, Any]:
    """Every choice that decides which pixels an epoch shows, as JSON."""
    return row.model_dump(mode="json", exclude=UNREPLAYED)


def replay_row(values: Mapping[str, Any], where: str) -> RelabelRow:
    """The relabel row that replays such choices.

    Raises:
        EdcError: a choice is unknown or holds a value that is not allowed.
    """
    row: RelabelRow = validate(RelabelRow, {"dataset": "-", "images": "-", "observers": ["-"], **values}, where)
    return row


def difference(replay: Mapping[str, Any], row: RelabelRow) -> str | None:
    """The first choice in which stored labels per epoch were made for other views than a row shows, in words."""
    came, mine = replay_of(replay_row(replay, "replay")), replay_of(row)
    for name, value in mine.items():
        if came[name] != value:
            return f"its labels per epoch were made with {name} = {came[name]!r}, the row has {value!r}"
    return None
