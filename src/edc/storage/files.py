"""Files that are whole or absent: atomic writes, JSON, safetensors and ``.npy`` arrays. No pickle is read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edc.errors import EdcError

if TYPE_CHECKING:
    import numpy as np
    import torch


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` that takes its place when the block ends well, and vanishes when it does not."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise EdcError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write JSON with a stable layout, so equal values give equal bytes."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_text(path: Path) -> str | None:
    """Read a text file.

    Returns:
        None where there is none.

    Raises:
        EdcError: it cannot be read, or is no UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise EdcError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8 text'})") from None


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        EdcError: the file is missing or truncated.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EdcError(f"{path}: no such file; run the stage that makes it first") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise EdcError(f"{path}: damaged or truncated ({error}); delete it and run its stage again") from None


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors as one safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        try:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary)
        except SafetensorError as error:
            raise OSError(str(error)) from None
        temporary.chmod(0o644)  # safetensors leaves the file to its owner alone


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file.

    Raises:
        EdcError: the file is missing, truncated, or not a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.exists():
        raise EdcError(f"{path}: no such file; run the stage that makes it first")
    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise EdcError(f"{path}: damaged or truncated ({error}); delete it and run its stage again") from None


def read_array(path: Path) -> np.ndarray:
    """Open an ``.npy`` array as a read-only memory map.

    Raises:
        EdcError: the file is missing or truncated.
    """
    import numpy as np

    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise EdcError(f"{path}: no such file; run the stage that makes it first") from None
    except (ValueError, OSError, EOFError) as error:
        raise EdcError(f"{path}: damaged or truncated ({error}); delete it and run its stage again") from None


def partial_array(path: Path, shape: tuple[int, ...], dtype: type, resume: bool) -> np.memmap:
    """A memory-mapped ``.npy`` file that is filled bit by bit.

    Args:
        path: the file, beside the run's checkpoint.
        shape: of the array.
        dtype: of its values.
        resume: go on with the file that is there instead of a new one.

    Raises:
        EdcError: there is no room for it.
    """
    import numpy as np

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        array = np.lib.format.open_memmap(path, mode="r+" if resume else "w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):  # all of it now: a map that can't be written to later ends the process
            with path.open("rb+") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return array
    except OSError as error:
        raise EdcError(f"{path}: cannot be written ({error.strerror or error})") from None


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(value: object) -> str:
    """Short SHA-256 of a JSON-able value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
