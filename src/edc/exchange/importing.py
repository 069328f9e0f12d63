"""`edc import`: a condensed set made elsewhere becomes a recipe, labelled and evaluated like those made here."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import yaml

from edc.config.files import WORKFLOW, DatasetFile, read
from edc.config.registry import READERS
from edc.config.rows import Dataset
from edc.config.validation import validate
from edc.data.new import check_name
from edc.data.source import Source, check
from edc.errors import unknown_name
from edc.exchange.external import DEFAULTS, Options, read_external
from edc.exchange.imported import IMPORTED
from edc.exchange.sets import LabelledSet, new_folder, refuse_existing, replay_choices, write_set
from edc.storage import digest, write_text


def import_set(
    name: str, data: Path, dataset_name: str, options: Options = DEFAULTS, classes_of: str | None = None
) -> list[Path]:
    """Check a set made elsewhere and store it as ``runs/imported/NAME``, with a recipe of that name.

    With soft labels comes a protocol of that name, which uses them instead of the teachers'. What was assumed or left
    out is printed and kept in the set's manifest. Returns what was written.

    Args:
        name: of the set and its recipe.
        data: an export, an image folder, parquet files, or a file of tensors.
        dataset_name: a file below workflow/datasets.
        classes_of: another one, whose classes the set has, where it has more than those of the dataset.

    Raises:
        EdcError: the name is taken or malformed, or the set does not fit the dataset; nothing is written.
    """
    check_name(name)
    folder, paths = IMPORTED / name, {kind: WORKFLOW / f"{kind}s" / f"{name}.yaml" for kind in ("recipe", "protocol")}
    for path in (*paths.values(), folder):
        refuse_existing(path)
    dataset = dataset_named(dataset_name, "--dataset")
    of = None if classes_of is None else (classes_of, class_names(dataset_named(classes_of, "--classes-of")))
    source = read_external(data, dataset, class_names(dataset), options, of)
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
    for note in source.origin.get("notes", ()):
        print(f"edc: {note}", file=sys.stderr)
    return [folder, *(paths[kind] for kind in files)]


def dataset_named(name: str, option: str) -> Dataset:
    """The dataset of a file below workflow/datasets."""
    file: DatasetFile = read("datasets", name, None, option)
    values = {"name": name, "family": name} | file.data
    dataset: Dataset = validate(Dataset, values, f"workflow/datasets/{name}.yaml: data")
    return dataset


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
            "match": {"target": "none"},
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
