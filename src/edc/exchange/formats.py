"""The layouts of a set's images, each written and read: image folder, Hugging Face parquet, tensors, DD-Ranking."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from edc import storage
from edc.config.rows import Dataset
from edc.data.folder import pictures
from edc.data.images import ImageSet
from edc.data.pictures import Encoded, Pixels, decode_pictures, fit
from edc.errors import EdcError
from edc.exchange import ddranking

NAMES = ("class", "index", "sre2l")
PICTURES, TENSORS, PARQUET = "train", "condensed.safetensors", "data/train-00000-of-00001.parquet"


class Layout(NamedTuple):
    """How images are written to a folder, and read given the class names in label order.

    ``write`` returns the files a manifest lists, without pictures, which are compared by their pixels. The last
    argument of both is a name in NAMES, for the folders of layout folder.
    """

    write: Callable[[Path, ImageSet, Dataset, str], list[str]]
    read: Callable[[Path, tuple[str, ...], Dataset, str], ImageSet]


def folder_names(names: str, classes: Sequence[str]) -> list[str]:
    """The folders of classes: their names, 00000 (RDED's and others' form) or new000 (SRe2L's)."""
    if names == "class":
        return list(classes)
    start, digits = ("", 5) if names == "index" else ("new", 3 if len(classes) <= 1000 else 5)
    return [f"{start}{c:0{digits}}" for c in range(len(classes))]


def write_folder(folder: Path, images: ImageSet, dataset: Dataset, names: str) -> list[str]:
    """train/FOLDER/NUMBER.png, and classes.json with the label order, which need not be that of the folders' names.

    Nothing else is in train: rethinkdc and DELT take every entry of a folder for a class.
    """
    folders = folder_names(names, images.classes)
    for name in folders:
        if name in ("", ".", "..") or any(sign in name for sign in "/\\\0") or len(name.encode()) > 255:
            remedy = "expected --names index, or parquet or torch"
            raise EdcError(f"--format folder: class name {name!r} can't be a folder's; {remedy}")
        (folder / PICTURES / name).mkdir(parents=True)
    seen = [0] * len(folders)
    digits = max(
        3, len(str(int(images.labels.bincount().max()) - 1))
    )  # SRe2L's three, unless names would not sort by number
    for label, (file, content) in zip(images.labels.tolist(), files(images), strict=True):
        if names == "sre2l":
            file = f"class{folders[label][3:]}_id{seen[label]:0{digits}}.png"
            seen[label] += 1
        (folder / PICTURES / folders[label] / file).write_bytes(content)
    alphabetical = sorted(range(len(folders)), key=lambda c: folders[c])
    storage.write_json(folder / "classes.json", {"classes": list(images.classes), "imagefolder_to_label": alphabetical})
    return ["classes.json"]


def read_written_folder(folder: Path, classes: tuple[str, ...], dataset: Dataset, names: str) -> ImageSet:
    """What :func:`write_folder` wrote; earlier exports have no train."""
    inside = folder / PICTURES
    return read_folder(inside if inside.is_dir() else folder, classes, dataset, folder_names(names, classes))


def read_folder(folder: Path, classes: tuple[str, ...], dataset: Dataset, folders: Sequence[str]) -> ImageSet:
    """The pictures in the folders of classes, class after class, then in the order of the files' names."""
    paths = [[folder / name / file for file in pictures(folder / name)] for name in folders]
    labels = torch.arange(len(classes)).repeat_interleave(torch.tensor([len(part) for part in paths]))
    of_all = [path for part in paths for path in part]
    return ImageSet(decoded(of_all, [str(path) for path in of_all], dataset), labels, classes)


def write_parquet(folder: Path, images: ImageSet, dataset: Dataset, names: str) -> list[str]:
    """One parquet file in the Hugging Face image layout; the class is there twice, for rethinkdc reads class_id."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(images.classes), "_type": "ClassLabel"},
        "class_id": {"dtype": "int64", "_type": "Value"},
    }
    encoded = [{"bytes": content, "path": file} for file, content in files(images)]
    labels = pa.array(images.labels.tolist(), pa.int64())
    columns = {
        "image": pa.array(encoded, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        "label": labels,
        "class_id": labels,
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    (folder / PARQUET).parent.mkdir()
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), folder / PARQUET, row_group_size=1000)
    return [PARQUET]


def read_parquet(folder: Path, classes: tuple[str, ...], dataset: Dataset, names: str) -> ImageSet:
    """Images in the order of the rows; earlier exports have their dataset's columns."""
    import pyarrow.parquet as pq

    path = folder / PARQUET
    columns = pq.read_table(path)
    image, label = ("image", "label") if "class_id" in columns.column_names else columns.column_names
    encoded = [entry["bytes"] for entry in columns.column(image).to_pylist()]
    images = decoded(encoded, [f"{path}: row {row}" for row in range(len(encoded))], dataset)
    return ImageSet(images, torch.tensor(columns.column(label).to_pylist()), classes)


def write_tensors(folder: Path, images: ImageSet, dataset: Dataset, names: str) -> list[str]:
    """One safetensors file: images uint8 (N, C, S, S) and labels int64 (N,); class names in its metadata."""
    from safetensors.torch import save

    # One entry of metadata: several are written in any order.
    metadata = {"edc": json.dumps({"classes": list(images.classes), "dataset": dataset.name})}
    tensors = {"images": images.images.contiguous(), "labels": images.labels}
    (folder / TENSORS).write_bytes(save(tensors, metadata))
    return [TENSORS]


def read_tensors(folder: Path, classes: tuple[str, ...], dataset: Dataset, names: str) -> ImageSet:
    """Images in the order of the tensor."""
    stored = storage.read_tensors(folder / TENSORS)
    return ImageSet(stored["images"], stored["labels"], classes)


LAYOUTS: dict[str, Layout] = {
    "folder": Layout(write_folder, read_written_folder),
    "parquet": Layout(write_parquet, read_parquet),
    "torch": Layout(write_tensors, read_tensors),
    "ddranking": Layout(ddranking.write, ddranking.read),
    "fkd": Layout(write_folder, read_written_folder),
}


def files(images: ImageSet) -> Iterator[tuple[str, bytes]]:
    """Every image as a PNG file, grey or RGB, lossless; names sort as the images do."""
    digits = max(5, len(str(len(images) - 1)))
    for i, pixels in enumerate(images.images):
        buffer = io.BytesIO()
        Image.fromarray((pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)).numpy()).save(buffer, "PNG")
        yield f"{i:0{digits}}.png", buffer.getvalue()


def decoded(encoded: Sequence[Encoded], names: Sequence[str], dataset: Dataset) -> Tensor:
    """Picture files, or their bytes, of the dataset's size as uint8 (N, C, S, S); ``names`` are for messages."""
    channels, size = dataset.channels, dataset.image_size

    def view(position: int, picture: Image.Image) -> Pixels:
        if picture.size != (size, size):
            width, height = picture.size
            raise ValueError(f"{width}x{height} pixels; expected {size}x{size}, nothing is resized")
        return fit(picture, channels, size)

    pixels = np.empty((len(encoded), channels, size, size), np.uint8)
    unreadable = decode_pictures(encoded, pixels, view)
    for position in sorted(unreadable)[:1]:
        raise EdcError(f"{names[position]}: {unreadable[position]}")
    return torch.from_numpy(pixels)
