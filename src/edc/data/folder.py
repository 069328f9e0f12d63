"""Image folders, and the decoding of picture files that the other readers share.

Expected are ROOT/train/CLASS/* and ROOT/test/CLASS/* (or val, validation); a folder's name is the class.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from edc.data.roots import DataConfig, resolve_root
from edc.data.sets import Part, Pixels, Rows, Source, check_same_classes
from edc.errors import EdcError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})
TEST_FOLDERS = ("test", "val", "validation")
CHUNK = 64
"""Pictures a decoding thread takes at once."""
SMALL = 4096
"""Mean bytes per picture below which threads wait for each other more than they decode (measured)."""


def read(config: DataConfig, part: Part) -> Source:
    """Lists one part of an image folder; both parts' class folders are compared first.

    Where several test folders exist, the first whose classes are those of `train` is taken: an unlabelled
    `test` beside a labelled `val` is common.

    Raises:
        EdcError: a part is missing or has no class folder, or the class folders of the two differ.
    """
    root = resolve_root(config)
    train = root / "train"
    if not train.is_dir():
        raise EdcError(f"{root}: no folder 'train'; expected train/CLASS/* and test/CLASS/* (or val/CLASS/*)")
    found = [root / name for name in TEST_FOLDERS if (root / name).is_dir()]
    if not found:
        raise EdcError(f"{root}: no folder 'test' or 'val'; expected test/CLASS/* (or val/CLASS/*) beside train")
    classes = _class_folders(train)
    test = next((folder for folder in found if _class_folders(folder) == classes), found[0])
    for folder in (train, test):
        if not _class_folders(folder):
            raise EdcError(f"{folder}: no class folder; expected one folder per class")
    check_same_classes(classes, _class_folders(test), str(train), str(test))

    folder = test if part == "test" else train
    per_class = [_pictures(folder / name) for name in classes]
    paths = [path for pictures in per_class for path in pictures]

    def decode(rows: Rows, out: Pixels) -> dict[int, str]:
        return decode_pictures([paths[row] for row in rows], out)

    return Source(
        where=str(folder),
        classes=classes,
        labels=np.repeat(np.arange(len(classes), dtype=np.int64), [len(pictures) for pictures in per_class]),
        name=lambda row: str(paths[row]),
        decode=decode,
    )


def fit(picture: Image.Image, channels: int, size: int) -> Pixels:
    """One picture as uint8 (channels, size, size).

    The shorter side is brought to `size` (bilinear, antialiased), then the centre is cropped; both in one
    resampling of the box the crop comes from. Alpha is dropped and EXIF orientation is not applied, as in
    common loaders; 16-bit grey keeps its upper byte.

    Raises:
        ValueError: the picture's values have no known range (32-bit integers or floats).
    """
    picture.load()
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError(f"values of mode {picture.mode} have no known range; expected 8 or 16 bits")
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    mode = "L" if channels == 1 else "RGB"
    picture = picture if picture.mode == mode else picture.convert(mode)
    if picture.size != (size, size):
        short = min(picture.size)
        box = [_centre(side, side * size // short, size) for side in picture.size]
        corners = (box[0][0], box[1][0], box[0][1], box[1][1])
        picture = picture.resize((size, size), Image.Resampling.BILINEAR, box=corners)
    pixels = np.asarray(picture)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def decode_pictures(encoded: Sequence[Path | bytes | None], out: Pixels) -> dict[int, str]:
    """Decodes picture files, or their bytes, into `out`, uint8 (n, C, S, S), one thread per core.

    Small pictures are decoded by a single thread, which is faster for them.

    Returns:
        The reason for each position that could not be read (None: there were no bytes).
    """

    def chunk(start: int) -> dict[int, str]:
        bad = {}
        for position in range(start, min(start + CHUNK, len(encoded))):
            given = encoded[position]
            try:
                if given is None:
                    raise ValueError("no bytes")
                with Image.open(io.BytesIO(given) if isinstance(given, bytes) else given) as picture:
                    out[position] = fit(picture, out.shape[1], out.shape[2])
            except MemoryError:
                raise
            except Exception as error:  # what Pillow's decoders raise on broken files is an open list
                bad[position] = _reason(error)
        return bad

    Image.init()  # loads the decoders once, before the threads ask for them
    with ThreadPoolExecutor(_threads(encoded[:CHUNK])) as pool:
        return {
            position: why for part in pool.map(chunk, range(0, len(encoded), CHUNK)) for position, why in part.items()
        }


def _centre(side: int, resized: int, size: int) -> tuple[float, float]:
    """The part of a side, in source pixels, under the central `size` of its `resized` pixels."""
    offset = round((resized - size) / 2)
    return offset * side / resized, (offset + size) * side / resized


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not a known image format"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())


def _threads(some: Sequence[Path | bytes | None]) -> int:
    sizes = [len(given) if isinstance(given, bytes) else _size(given) for given in some]
    if sum(sizes) < SMALL * len(sizes):
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _size(path: Path | None) -> int:
    try:
        return path.stat().st_size if path else 0
    except OSError:  # told when it is opened
        return 0


def _class_folders(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."))
    except OSError as error:
        raise EdcError(f"{folder}: cannot be listed ({error.strerror})") from None


def _pictures(folder: Path) -> list[Path]:
    """Pictures below a class folder, at any depth, sorted by their path inside it."""
    found = [
        Path(place, name).relative_to(folder)
        for place, _, names in os.walk(folder)
        for name in names
        if name[0] != "." and os.path.splitext(name)[1].lower() in SUFFIXES
    ]
    return [folder / path for path in sorted(found, key=lambda path: path.as_posix())]
