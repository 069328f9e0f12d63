"""`edc export`: a condensed set as an image folder, as Hugging Face parquet or as tensors, to be used anywhere."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from edc import __version__
from edc.exchange.card import card
from edc.data.images import ImageSet
from edc.errors import EdcError, unknown_name
from edc.exchange.handover import FORMAT, LABELS, PARQUET, TENSORS, new_folder, refuse_existing
from edc.exchange.imported import replay_of
from edc.config.rows import Dataset, RelabelRow
from edc.storage import RESULTS, fingerprint, read_json, read_manifest, read_tensors, sha256, write_json, write_text
from edc.config.validation import validate


def export(run: str, to: Path, layout: str, labels: str | None = None) -> Path:
    """Write a finished condensed set, and its labels where asked for, to a new folder.

    Args:
        run: a finished synthesize run.
        to: the folder, which must not exist.
        layout: folder, parquet or torch.
        labels: a finished relabel run of these images.

    Returns:
        The folder.

    Raises:
        EdcError: the folder exists, a run is unknown, unfinished or damaged, the labels belong to other images, or a
            class name can't be a folder's.
    """
    if layout not in WRITERS:
        raise unknown_name("format", layout, WRITERS, "--format")
    refuse_existing(to)
    made = finished("synthesize", run)
    # Where it lay on this machine is nobody else's business.
    values = made["params"]["dataset"] | {"root": None}
    dataset: Dataset = validate(Dataset, values, f"{RESULTS / 'synthesize' / run}: dataset")
    stored = read_tensors(RESULTS / "synthesize" / run / "images.safetensors")
    images = ImageSet(stored["images"], stored["labels"], tuple(made["classes"]))
    soft, told = ({}, None) if labels is None else labels_of(labels, run, made)
    with new_folder(to) as folder:
        file = TENSORS if layout == "torch" else LABELS
        files = WRITERS[layout](folder, images, dataset)
        about = {"classes": list(images.classes), "dataset": dataset.name}
        if told is not None:
            told["file"] = file
            about["replay"] = told["replay"]
        tensors = soft | ({"images": images.images, "labels": images.labels} if layout == "torch" else {})
        if tensors:
            save(folder / file, tensors, about)
            files.append(file)
        manifest = {
            "format": FORMAT,
            "edc": __version__,
            "layout": layout,
            "run": run,
            "shape": list(images.images.shape),
            "digest": images.digest,
            "classes": list(images.classes),
            "class_hash": images.class_hash,
            "dataset": dataset.model_dump(mode="json"),
            "dataset_digest": made["dataset_digest"],
            "params": {"synthesize": made["params"]["synthesize"], "machine": made["params"]["machine"]},
            "made_from": origin(run),
            "labels": told,
            "files": {n: {"bytes": (folder / n).stat().st_size, "sha256": sha256(folder / n)} for n in files},
        }
        write_json(folder / "manifest.json", manifest)
        write_text(folder / "README.md", card(manifest, made))
    return to


def finished(stage: str, run: str) -> dict[str, Any]:
    """The manifest of a finished run; the line about an unknown one offers the nearest."""
    if not (RESULTS / stage / run / "manifest.json").is_file():
        known = [path.parent.name for path in (RESULTS / stage).glob("*/manifest.json")]
        if not known:
            raise EdcError(f"{RESULTS / stage}: no finished run here; expected {run!r} in the root of a checkout")
        raise unknown_name(f"finished {stage} run", run, known, str(RESULTS / stage))
    return read_manifest(stage, run)


def labels_of(key: str, run: str, made: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The labels a relabel run made for these images, and what a manifest tells of them.

    Raises:
        EdcError: they are labels of other images.
    """
    manifest = finished("relabel", key)
    row: RelabelRow = validate(RelabelRow, manifest["params"]["relabel"], f"{RESULTS / 'relabel' / key}: relabel")
    if row.images != run:
        raise EdcError(f"labels {key!r}: those are labels of {row.images!r}; expected labels of {run!r}")
    if manifest["inputs"].get(f"synthesize/{run}") != fingerprint(made["files"]):
        raise EdcError(f"labels {key!r}: made for an earlier version of {run!r}; run `edc relabel --run {key}` again")
    found = {}
    for name in ("static", "logits"):
        # A private map may be written to, which torch asks of arrays; nothing is read before it is saved.
        array = np.load(RESULTS / "relabel" / key / f"{name}.npy", mmap_mode="c", allow_pickle=False)
        if len(array):  # labels that came without any per epoch
            found[name] = torch.from_numpy(array)
    shapes = {name: list(found[name].shape) if name in found else None for name in ("static", "logits")}
    return found, {"run": key, **shapes, "replay": replay_of(row), "observers": row.observers}


def origin(run: str) -> dict[str, Any] | None:
    """The commit a run was made from, where that is known."""
    path = RESULTS / "synthesize" / run / "run.json"
    if not path.exists():
        return None
    told = read_json(path)
    return {"commit": told.get("commit"), "dirty": told.get("dirty")}


def save(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write a safetensors file with facts about it as JSON: one entry, for several would stand in any order."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file({name: t.contiguous() for name, t in tensors.items()}, path, {"edc": json.dumps(about)})
    except SafetensorError as error:
        raise OSError(str(error)) from None
    path.chmod(0o644)


def png(pixels: Tensor) -> bytes:
    """One image, uint8 (C, S, S), as the bytes of a PNG file: grey or RGB, lossless."""
    array = pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(array.numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def number(index: int, images: ImageSet) -> str:
    """An image's file name without its ending: numbers sort as the images do."""
    return f"{index:0{max(5, len(str(len(images) - 1)))}}"


def as_folder(folder: Path, images: ImageSet, dataset: Dataset) -> list[str]:
    """CLASSNAME/NUMBER.png, and classes.json with the label order, which need not be that of the folders' names."""
    for name in images.classes:
        if name in ("", ".", "..") or any(sign in name for sign in "/\\\0") or len(name.encode()) > 255:
            raise EdcError(f"--format folder: class name {name!r} can't be a folder's; expected parquet or torch")
        (folder / name).mkdir()
    for index, label in enumerate(images.labels.tolist()):
        (folder / images.classes[label] / f"{number(index, images)}.png").write_bytes(png(images.images[index]))
    alphabetical = sorted(range(len(images.classes)), key=lambda c: images.classes[c])
    write_json(folder / "classes.json", {"classes": list(images.classes), "imagefolder_to_label": alphabetical})
    return ["classes.json"]


def as_parquet(folder: Path, images: ImageSet, dataset: Dataset) -> list[str]:
    """One parquet file in the Hugging Face image layout."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    image, label = dataset.image_column, dataset.label_column
    features = {image: {"_type": "Image"}, label: {"names": list(images.classes), "_type": "ClassLabel"}}
    pictures = [
        {"bytes": png(pixels), "path": f"{number(index, images)}.png"} for index, pixels in enumerate(images.images)
    ]
    table = pa.table(
        {
            image: pa.array(pictures, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            label: pa.array(images.labels.tolist(), pa.int64()),
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    (folder / PARQUET).parent.mkdir()
    pq.write_table(table, folder / PARQUET, row_group_size=1000)
    return [PARQUET]


def as_tensors(folder: Path, images: ImageSet, dataset: Dataset) -> list[str]:
    """Nothing of its own: images and classes stand in the file that also holds the labels."""
    return []


WRITERS: dict[str, Callable[[Path, ImageSet, Dataset], list[str]]] = {
    "folder": as_folder,
    "parquet": as_parquet,
    "torch": as_tensors,
}
"""By layout: writes the images and names the files a manifest lists; pictures are checked by their pixels."""
