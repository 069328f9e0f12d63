"""`edc import`: a condensed set made elsewhere becomes a recipe, to be labelled and judged like those made here."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import yaml

from edc.data.source import Source, restrict
from edc.errors import EdcError, unknown_name
from edc.exchange.foreign import Found, read_foreign
from edc.exchange.handover import new_folder, refuse_existing
from edc.exchange.imported import IMPORTED, source_of
from edc.config.rows import Dataset
from edc.config.registry import READERS
from edc.storage import replacing, sha256, write_json, write_tensors, write_text
from edc.config.files import WORKFLOW, DatasetFile, read
from edc.config.validation import validate

HEADER = "# Written by `edc import {name}`. To split it, list {name} among the recipes of a study with ipc {ipc}.\n"
NOTE = """\
# Soft labels came along{kind}. To use them instead of the observers', write this to workflow/protocols/{name}.yaml, and
# give the study a grid of its own with recipes [{name}] and protocols [{name}]:
#
"""


def bring(
    name: str,
    data: Path,
    dataset_name: str,
    labels: Path | None = None,
    values: str | None = None,
    classes_file: Path | None = None,
) -> list[Path]:
    """Check a set made elsewhere and store it as ``results/imported/NAME``, with a recipe of that name.

    Args:
        name: of the set and its recipe.
        data: an exported set, an image folder, or a file of tensors.
        dataset_name: a file below workflow/datasets.
        labels: soft labels (N, K), logits or probabilities.
        values: what floats mean: unit or normalised.
        classes_file: the images' classes, where ``data`` holds images alone.

    Returns:
        What was written.

    Raises:
        EdcError: the name is taken or unfit, or the set does not fit the dataset; nothing is written.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", name):
        raise EdcError(f"name {name!r}: expected lower-case letters, digits and underscores")
    folder, recipe = IMPORTED / name, WORKFLOW / "recipes" / f"{name}.yaml"
    for path in (recipe, folder):
        refuse_existing(path)
    file: DatasetFile = read("datasets", dataset_name, None, "--dataset")
    values_of = {"name": dataset_name, "family": dataset_name} | file.data
    dataset: Dataset = validate(Dataset, values_of, f"workflow/datasets/{dataset_name}.yaml: data")
    found = read_foreign(data, dataset, class_names(dataset), values, classes_file, labels)
    with new_folder(folder) as inside:
        manifest = store(inside, name, dataset, found, data)
    try:
        write_text(recipe, recipe_text(name, dataset, found, manifest))
    except BaseException:
        shutil.rmtree(folder)
        raise
    return [folder, recipe]


def class_names(dataset: Dataset) -> tuple[str, ...]:
    """The dataset's class names in label order: its file's own, or those its data tell.

    Raises:
        EdcError: the data are not here, or have another number of classes than the file says.
    """
    if dataset.class_names is not None:
        return tuple(dataset.class_names)
    if dataset.kind not in READERS:
        raise unknown_name("dataset kind", dataset.kind, READERS, f"dataset {dataset.name}")
    source: Source = restrict(resolve_name(READERS[dataset.kind])(dataset, "train"), None)
    if len(source.classes) != dataset.classes:
        raise EdcError(f"{source.where}: {len(source.classes)} classes; expected {dataset.classes}")
    return source.classes


def store(folder: Path, name: str, dataset: Dataset, found: Found, data: Path) -> dict[str, Any]:
    """Write images, labels and manifest; the manifest."""
    images, came = found.images, None
    write_tensors(folder / "images.safetensors", {"images": images.images, "labels": images.labels})
    files = ["images.safetensors"]
    if found.static is not None:
        save_array(folder / "static.npy", found.static.numpy())
        files.append("static.npy")
        origin = (found.manifest or {}).get("labels") or {}
        came = {
            "static": list(found.static.shape),
            "were": "probabilities" if found.probabilities else "logits",
            "logits": None,
            "replay": None,
            "run": origin.get("run"),
            "observers": origin.get("observers"),
        }
        if found.logits is not None:
            save_array(folder / "logits.npy", found.logits.read())
            files.append("logits.npy")
            came |= {"logits": found.logits.shape, "replay": origin["replay"]}
    exported = found.manifest or {}
    manifest = {
        "name": name,
        "from": data.name,
        "dataset": dataset.name,
        "classes": list(images.classes),
        "class_hash": images.class_hash,
        "ipc": len(images) // len(images.classes),
        "shape": list(images.images.shape),
        "dtype": "uint8",
        "values": found.values,
        "digest": images.digest,
        "labels": came,
        "exported": {key: exported[key] for key in ("run", "params", "made_from", "dataset_digest") if key in exported},
        "files": {n: {"bytes": (folder / n).stat().st_size, "sha256": sha256(folder / n)} for n in files},
    }
    write_json(folder / "manifest.json", manifest)
    return manifest


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an ``.npy`` file."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def recipe_text(name: str, dataset: Dataset, found: Found, manifest: dict[str, Any]) -> str:
    """The recipe's file, with a note on how its own labels are used if it has any."""
    origin = f"made elsewhere ({manifest['from']})"
    if run := manifest["exported"].get("run"):
        origin = f"run {run} of commit {(manifest['exported'].get('made_from') or {}).get('commit')}"
    recipe = {
        "description": f"Imported for {dataset.name}, {manifest['ipc']} images per class",
        "source": origin,
        "synthesize": {
            "initialise": {"method": "imported", "source": source_of(name, manifest)},
            "match": {"method": "none"},
            "optimise": {"iterations": 0},
        },
        "protocol": "edc",
    }
    text = HEADER.format(name=name, ipc=manifest["ipc"])
    if came := manifest["labels"]:
        text += NOTE.format(name=name, kind=", one an image and epoch" if came["logits"] else ", one an image")
        text += "".join(f"#   {line}\n" for line in _yaml(protocol(name, dataset, manifest)).splitlines())
    return text + _yaml(recipe)


def protocol(name: str, dataset: Dataset, manifest: dict[str, Any]) -> dict[str, Any]:
    """A protocol that uses the labels that came along, replaying what they were made for."""
    came = manifest["labels"]
    layer: dict[str, Any] = {"relabel": {"source": "imported"}}
    if came["logits"]:
        # epochs and batch are the student's; whether a mirrored image keeps its class is the dataset's to say.
        replay = dict(came["replay"])
        layer["student"] = {key: replay.pop(key) for key in ("epochs", "batch")}
        replay.pop("flip")
        layer["relabel"] |= replay
    return {
        "inherits": "edc",
        "description": f"As edc, with the labels that came with {name}",
        "source": "imported",
        "regime": "soft" if came["logits"] else "static",
        # The strongest layer, for edc has values of its own for some datasets.
        "families": {dataset.family: {"ipc": {manifest["ipc"]: layer}}},
    }


def _yaml(values: dict[str, Any]) -> str:
    return yaml.safe_dump(values, sort_keys=False, width=110, default_flow_style=None)
