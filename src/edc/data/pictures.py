"""From picture files to pixels: decoding on several threads, centre crops and random crops.

Pictures are turned upright as their EXIF data state, transparent ones are laid on white, of animations the first frame
counts.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from edc.data.crops import CropDraws

Rows: TypeAlias = npt.NDArray[np.int64]
Pixels: TypeAlias = npt.NDArray[np.uint8]
Encoded: TypeAlias = Path | bytes | None
"""A picture's file or its bytes; None where a row has no bytes."""
View: TypeAlias = Callable[[int, Image.Image], Pixels]
"""From a picture and its position among those read to uint8 (C, S, S)."""

HEIF = find_spec("pillow_heif") is not None
"""Whether pictures of iPhones can be read: Pillow itself has no decoder for them."""
HEIF_SUFFIXES = (".heic", ".heif") if HEIF else ()
SUFFIXES = frozenset(
    (
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".bmp",
        ".gif",
        ".webp",
        ".avif",
        ".ppm",
        ".tif",
        ".tiff",
        *HEIF_SUFFIXES,
    )
)

CHUNK = 64
"""Most pictures a decoding thread gets at once."""
DRAFT = 2
"""Least scale above the size needed at which a JPEG may be decoded; Pillow's own thumbnails use the same margin."""
SMALL = 4096
"""Mean bytes per picture below which one thread is faster than several (measured)."""


@dataclass(frozen=True)
class CentreCrop:
    """The central square, see :func:`fit`."""

    channels: int
    size: int
    resize: int | None = None

    def __call__(self, position: int, picture: Image.Image) -> Pixels:
        # A JPEG of twice the size needed or more is decoded at a smaller scale, several times faster.
        picture.draft(None, (DRAFT * (self.resize or self.size),) * 2)
        return fit(picture, self.channels, self.size, self.resize)


@dataclass(frozen=True)
class RandomCrop:
    """Each position's random rectangle, resized bilinearly with antialiasing: torchvision's RandomResizedCrop."""

    channels: int
    size: int
    crops: CropDraws

    def __call__(self, position: int, picture: Image.Image) -> Pixels:
        picture = _in_mode(picture, self.channels)
        width, height = picture.size
        top, left, h, w = (int(v) for v in self.crops[position : position + 1].boxes(height, width)[0])
        # Crop first: with Pillow's `box`, pixels beside the rectangle contribute to its edge.
        part = picture.crop((left, top, left + w, top + h))
        return _array(part.resize((self.size, self.size), Image.Resampling.BILINEAR), self.channels)


@dataclass(frozen=True)
class Repeated:
    """Several views of the same picture, each with a position of its own: (times, C, S, S)."""

    view: View
    times: int

    def __call__(self, position: int, picture: Image.Image) -> Pixels:
        return np.stack([self.view(position * self.times + i, picture) for i in range(self.times)])


def fit(picture: Image.Image, channels: int, size: int, resize: int | None = None) -> Pixels:
    """One picture as uint8 (channels, size, size).

    The shorter side is resized to `resize` (default `size`; bilinear, antialiased), then the centre is cropped;
    both in one resampling of the box the crop comes from. 16-bit grey keeps its upper byte.

    Raises:
        ValueError: the picture's values have no known range (32-bit integers or floats).
    """
    picture, resize = _in_mode(picture, channels), resize or size
    short = min(picture.size)
    if picture.size != (size, size) or short != resize:
        box = [_centre(side, side * resize // short, size) for side in picture.size]
        corners = (box[0][0], box[1][0], box[0][1], box[1][1])
        picture = picture.resize((size, size), Image.Resampling.BILINEAR, box=corners)
    return _array(picture, channels)


def decode_pictures(encoded: Sequence[Encoded], out: Pixels, view: View, first: int = 0) -> dict[int, str]:
    """Decodes picture files, or their bytes, into `out`, uint8 (n, C, S, S): the reason for each that is unreadable.

    At most one picture per thread is held beside `out`. ``first`` is the view's position of the first picture.
    """
    sizes = [_size(file) for file in encoded[:CHUNK]]
    threads = 1 if sum(sizes) < SMALL * len(sizes) else available_cores()
    step = max(1, min(CHUNK, len(encoded) // (2 * threads)))

    def chunk(start: int) -> dict[int, str]:
        bad = {}
        for position in range(start, min(start + step, len(encoded))):
            file = encoded[position]
            try:
                if file is None:
                    raise ValueError("no bytes")
                with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as picture:
                    out[position] = view(first + position, picture)
            except MemoryError:
                raise
            except Exception as error:  # Pillow's decoders raise many types of exceptions on broken files
                bad[position] = _reason(error)
        return bad

    if HEIF:
        from pillow_heif import register_heif_opener

        register_heif_opener()
    Image.init()  # loads the decoders once, before the threads start
    starts = range(0, len(encoded), step)
    if threads == 1 or len(starts) <= 1:
        parts = [chunk(start) for start in starts]
    else:
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(chunk, starts))
    return {position: reason for part in parts for position, reason in part.items()}


def decode_arrays(arrays: Pixels, rows: Rows, out: Pixels, view: View) -> dict[int, str]:
    """As :func:`decode_pictures` for rows of pictures in memory, all of which can be read."""
    for position, row in enumerate(rows):
        out[position] = view(position, Image.fromarray(arrays[row]))
    return {}


def suffix(name: str) -> str:
    """Of a file, in lower case, with its dot."""
    return os.path.splitext(name)[1].lower()


def orientation(picture: Image.Image) -> int:
    """EXIF orientation: 1 is upright, also where there are no EXIF data or damaged ones."""
    try:
        value = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow's parsers raise many types of exceptions on damaged data
        return 1
    return value if value in range(1, 9) else 1


def has_alpha(picture: Image.Image) -> bool:
    """Whether a picture is transparent somewhere, or could be."""
    return picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info


def available_cores() -> int:
    """Number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_mode(picture: Image.Image, channels: int) -> Image.Image:
    """The loaded picture, grey or RGB."""
    turned = orientation(picture) != 1
    picture.load()
    if turned:
        picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError(f"values of mode {picture.mode} have no known range; expected 8 or 16 bits")
    if has_alpha(picture):
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
    mode = "L" if channels == 1 else "RGB"
    return picture if picture.mode == mode else picture.convert(mode)


def _array(picture: Image.Image, channels: int) -> Pixels:
    pixels = np.asarray(picture)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _centre(side: int, resized: int, size: int) -> tuple[float, float]:
    """The part of a side, in source pixels, under the central `size` of its `resized` pixels."""
    offset = round((resized - size) / 2)
    return offset * side / resized, (offset + size) * side / resized


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not a known image format"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())


def _size(file: Encoded) -> int:
    try:
        return file.stat().st_size if isinstance(file, Path) else len(file or b"")
    except OSError:  # reported when it is opened
        return 0
