"""What leaves this project and comes back: a condensed set in a folder of its own, in one of three layouts.

Each holds ``manifest.json``; labels, where asked for, are ``fixed`` (N, K) and ``logits`` (E, N, K) in safetensors.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from edc.data.images import ImageSet
from edc.data.pictures import Encoded, Pixels, decode_pictures, fit
from edc.errors import EdcError
from edc.exchange.imported import check_files
from edc.config.rows import Dataset
from edc.storage import read_array, read_json
from edc.config.validation import validate

FORMAT = "edc condensed set, version 1"
TENSORS, LABELS, PARQUET = "condensed.safetensors", "labels.safetensors", "data/train-00000-of-00001.parquet"
KEYS = ("layout", "dataset", "classes", "shape", "digest", "labels", "files")


@dataclass(frozen=True)
class StoredLogits:
    """Logits in a file, (E, N, K) or (N, K), of which one epoch at a time is read.

    Attributes:
        path: an ``.npy`` or a safetensors file.
        name: the tensor's name in a safetensors file.
    """

    path: Path
    name: str = "logits"

    @cached_property
    def shape(self) -> list[int]:
        """Of all of it."""
        return list(read_array(self.path).shape) if self.path.suffix == ".npy" else list(self._slice().get_shape())

    def read(self, epoch: int | None = None) -> np.ndarray:
        """One epoch (N, K), or all of it."""
        if self.path.suffix == ".npy":
            array = read_array(self.path)
            return np.array(array if epoch is None else array[epoch])
        found: np.ndarray = self._slice()[:] if epoch is None else self._slice()[epoch]
        return found

    def _slice(self) -> Any:
        from safetensors import SafetensorError, safe_open

        try:
            return safe_open(self.path, "np").get_slice(self.name)
        except (SafetensorError, OSError) as error:
            raise EdcError(f"{self.path}: {self.name!r} is not readable ({error}); hand the set over again") from None


@dataclass(frozen=True)
class Handed:
    """A condensed set as it was handed over.

    Attributes:
        where: the folder, for messages.
        manifest: what it says of itself.
        dataset: the dataset it stands for.
        images: uint8 (N, C, S, S) with classes and class names.
        static: one soft label an image, (N, K).
        logits: one an image and epoch, (E, N, K).
    """

    where: Path
    manifest: dict[str, Any]
    dataset: Dataset
    images: ImageSet
    static: StoredLogits | None
    logits: StoredLogits | None


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``path`` when the block ends well, and vanishes when it does not.

    Raises:
        EdcError: something stands there already, or it can't be written.
    """
    refuse_existing(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.rename(temporary, path)
    except OSError as error:
        raise EdcError(f"{path}: cannot be written ({error.strerror or error})") from None
    except EdcError as error:  # of a file inside, told by the name it would have had
        raise EdcError(str(error).replace(str(temporary), str(path))) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_existing(path: Path) -> None:
    """Refuses a name that is taken: nothing is ever overwritten."""
    if os.path.lexists(path):
        raise EdcError(f"{path}: exists already; expected a new name, nothing is overwritten")


def is_handed_over(folder: Path) -> bool:
    """Whether a folder says that `edc export` wrote it."""
    path = folder / "manifest.json"
    if not path.is_file():
        return False
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True  # most likely: what is wrong with it is told when it is read
    return isinstance(manifest, dict) and str(manifest.get("format", "")).startswith(FORMAT.split(",")[0])


def read_handed(folder: Path) -> Handed:
    """Read what `edc export` wrote, whichever layout it has.

    Raises:
        EdcError: a file is missing or damaged, or the pixels are not those that were written.
    """
    path, remedy = folder / "manifest.json", "export the set again"
    try:
        manifest = read_json(path)
    except EdcError:
        raise EdcError(f"{path}: damaged or truncated; {remedy}") from None
    if not isinstance(manifest, dict) or any(key not in manifest for key in KEYS):
        raise EdcError(f"{path}: damaged; expected the keys {', '.join(KEYS)}; {remedy}")
    if manifest.get("format") != FORMAT:
        raise EdcError(f"{path}: format = {manifest.get('format')!r}; expected {FORMAT!r}")
    if manifest["layout"] not in READERS:
        raise EdcError(f"{path}: layout = {manifest['layout']!r}; expected one of: {', '.join(READERS)}")
    dataset: Dataset = validate(Dataset, manifest["dataset"], f"{path}: dataset")
    check_files(folder, manifest["files"], remedy)
    images = READERS[manifest["layout"]](folder, tuple(manifest["classes"]), dataset)
    if images.digest != manifest["digest"]:
        raise EdcError(f"{folder}: images, classes or their order changed since they were exported; {remedy}")
    came = manifest["labels"] or {}
    fixed, logits = (
        StoredLogits(folder / came["file"], name) if came.get(name) else None for name in ("static", "logits")
    )
    return Handed(folder, manifest, dataset, images, fixed, logits)


def _read_folder(folder: Path, classes: tuple[str, ...], dataset: Dataset) -> ImageSet:
    found = sorted((p.name, c) for c, name in enumerate(classes) for p in (folder / name).glob("*.png"))
    paths = [folder / classes[c] / name for name, c in found]
    images = decoded(paths, [str(path) for path in paths], dataset)
    return ImageSet(images, torch.tensor([c for _, c in found], dtype=torch.int64), classes)


def _read_parquet(folder: Path, classes: tuple[str, ...], dataset: Dataset) -> ImageSet:
    import pyarrow.parquet as pq

    path = folder / PARQUET
    columns = pq.read_table(path, columns=[dataset.image_column, dataset.label_column])
    encoded = [entry["bytes"] for entry in columns.column(dataset.image_column).to_pylist()]
    images = decoded(encoded, [f"{path}: row {row}" for row in range(len(encoded))], dataset)
    return ImageSet(images, torch.tensor(columns.column(dataset.label_column).to_pylist()), classes)


def _read_tensors(folder: Path, classes: tuple[str, ...], dataset: Dataset) -> ImageSet:
    from safetensors import safe_open

    with safe_open(folder / TENSORS, "pt") as file:
        return ImageSet(file.get_tensor("images"), file.get_tensor("labels"), classes)


READERS: dict[str, Callable[[Path, tuple[str, ...], Dataset], ImageSet]] = {
    "folder": _read_folder,
    "parquet": _read_parquet,
    "torch": _read_tensors,
}
"""By layout."""


@dataclass(frozen=True)
class Exact:
    """A picture as it is, refused unless it has the size asked for."""

    channels: int
    size: int

    def __call__(self, position: int, picture: Image.Image) -> Pixels:
        if picture.size != (self.size, self.size):
            found = "x".join(map(str, picture.size))
            raise ValueError(f"{found} pixels; expected {self.size}x{self.size}, for nothing is resized")
        return fit(picture, self.channels, self.size)


def decoded(encoded: Sequence[Encoded], names: Sequence[str], dataset: Dataset) -> Tensor:
    """Pictures as they are: uint8 (N, C, S, S).

    Args:
        encoded: files or their bytes.
        names: what to call them.
        dataset: their size and channels.

    Raises:
        EdcError: one is not readable or has another size.
    """
    pixels = np.empty((len(encoded), dataset.channels, dataset.image_size, dataset.image_size), np.uint8)
    bad = decode_pictures(encoded, pixels, Exact(dataset.channels, dataset.image_size))
    for position in sorted(bad)[:1]:
        raise EdcError(f"{names[position]}: {bad[position]}")
    return torch.from_numpy(pixels)
