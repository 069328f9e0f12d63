"""`edc import`: a condensed set made elsewhere becomes a recipe, labelled and evaluated like those made here."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import yaml

from edc.config.files import WORKFLOW, DatasetFile, read
from edc.config.registry import READERS
from edc.config.rows import Dataset
from edc.config.validation import validate
from edc.data.source import Source, check
from edc.errors import EdcError, unknown_name
from edc.exchange.external import read_external
from edc.exchange.imported import IMPORTED
from edc.exchange.sets import LabelledSet, new_folder, refuse_existing, replay_choices, write_set
from edc.storage import digest, write_text


def import_set(
    name: str,
    data: Path,
    dataset_name: str,
    labels: Path | None = None,
    values: str | None = None,
    classes_file: Path | None = None,
) -> list[Path]:
    """Check a set made elsewhere and store it as ``runs/imported/NAME``, with a recipe of that name.

    With soft labels comes a protocol of that name, which uses them instead of the teachers'. Returns what was written.

    Args:
        name: of the set and its recipe.
        data: an export, an image folder, or a file of tensors.
        dataset_name: a file below workflow/datasets.
        labels: soft labels (N, K), logits or probabilities.
        values: what floats mean: unit or normalised.
        classes_file: the images' classes, where ``data`` holds images alone.

    Raises:
        EdcError: the name is taken or malformed, or the set does not fit the dataset; nothing is written.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", name):
        raise EdcError(f"name {name!r}: expected lower-case letters, digits and underscores")
    folder, paths = IMPORTED / name, {kind: WORKFLOW / f"{kind}s" / f"{name}.yaml" for kind in ("recipe", "protocol")}
    for path in (*paths.values(), folder):
        refuse_existing(path)
    file: DatasetFile = read("datasets", dataset_name, None, "--dataset")
    data_values = {"name": dataset_name, "family": dataset_name} | file.data
    dataset: Dataset = validate(Dataset, data_values, f"workflow/datasets/{dataset_name}.yaml: data")
    source = read_external(data, dataset, class_names(dataset), values, classes_file, labels)
    with new_folder(folder) as temporary:
        manifest = write_set(temporary, "torch", source)
    files = {"recipe": recipe(source, f"{name}@{digest(manifest)}")}
    if source.labels:
        files["protocol"] = protocol(source, name)
    try:
        for kind, content in files.items():
            text = yaml.safe_dump(content, sort_keys=False, width=110, default_flow_style=None)
            write_text(paths[kind], f"# Written by `edc import {name}`.\n{text}")
    except BaseException:
        shutil.rmtree(folder)
        paths["recipe"].unlink(missing_ok=True)
        raise
    return [folder, *(paths[kind] for kind in files)]


def class_names(dataset: Dataset) -> tuple[str, ...]:
    """The dataset's class names in label order, from its file or from its data."""
    if dataset.class_names is not None:
        return tuple(dataset.class_names)
    if dataset.kind not in READERS:
        raise unknown_name("dataset kind", dataset.kind, READERS, f"dataset {dataset.name}")
    source: Source = resolve_name(READERS[dataset.kind])(dataset, "train")
    check(source, dataset.classes)
    return source.classes


def recipe(source: LabelledSet, name: str) -> dict[str, Any]:
    """The file of a recipe whose images are a set, whose name includes its fingerprint."""
    origin, ipc = source.origin, len(source.images) // source.dataset.classes
    return {
        "description": f"Imported for {source.dataset.name}, {ipc} images per class",
        "source": f"run {origin['run']} of commit {origin['commit']}" if "run" in origin else f"file {origin['file']}",
        "synthesize": {
            "initialise": {"method": "imported", "source": name},
            "match": {"method": "none"},
            "optimise": {"iterations": 0},
        },
        "protocol": "edc",
    }


def protocol(source: LabelledSet, name: str) -> dict[str, Any]:
    """The file of a protocol that uses the set's labels, with the augmentation they were made under."""
    per_epoch, layer = "logits" in source.labels, dict[str, Any](relabel={"source": "imported"})
    if per_epoch and source.relabel is not None:
        # epochs and batch are the student's; whether a mirrored image keeps its class is a value of the dataset.
        replay = replay_choices(source.relabel)
        layer["student"] = {key: replay.pop(key) for key in ("epochs", "batch")}
        replay.pop("flip")
        layer["relabel"] |= replay
    return {
        "inherits": "edc",
        "description": f"As edc, with the labels imported with {name}",
        "source": "imported",
        "regime": "soft" if per_epoch else "static",
        # The strongest layer, for edc has values of its own for some datasets.
        "families": {source.dataset.family: {"ipc": {len(source.images) // source.dataset.classes: layer}}},
    }
