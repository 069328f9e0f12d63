"""Files of runs: whole or absent, checked when they are read. No pickle is read."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edc.errors import EdcError

if TYPE_CHECKING:
    import numpy as np
    import torch

RUNS = Path("runs")
RESULTS = Path("results")
MADE_FROM = RESULTS / "tables" / "made_from.txt"
"""Fingerprint of what the tables were last made from; beside them in Git, for clones that pull the runs."""
STATE = Path(".edc")
KEYS = ("stage", "run", "version", "params", "inputs", "dataset_digest", "classes", "files")
"""What every manifest holds."""
SPARING, LONGEST = 20, 300.0
"""So many times as long as it took to keep a checkpoint pass before the next one, so that a large state costs a small
share of the time, but no more than so many seconds, so that a run in pieces of some minutes gets on."""


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


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors as one safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        try:
            temporary.touch()
            mode = temporary.stat().st_mode  # by the umask; safetensors leaves the file to its owner alone
            whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(whole, temporary, metadata)
        except SafetensorError as error:
            raise OSError(str(error)) from None
        temporary.chmod(mode)


def partial_array(path: Path, shape: tuple[int, ...], dtype: type) -> np.memmap:
    """A memory-mapped ``.npy`` file that is filled bit by bit, with the values that an earlier attempt left in it.

    They may be damaged, or missing and then zero. Its header is written anew, and not read.

    Raises:
        EdcError: there is no room for it.
    """
    import numpy as np

    layout = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        with path.open("rb+") as file:
            np.lib.format.write_array_header_1_0(file, layout)
            offset = file.tell()
            size = file.truncate(offset + math.prod(shape) * np.dtype(dtype).itemsize)
            if hasattr(os, "posix_fallocate"):  # all of it now: a map that can't be written to later ends the process
                os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(path, dtype, "r+", offset, shape)
    except OSError as error:
        raise EdcError(f"{path}: cannot be written ({error.strerror or error})") from None


def read_text(path: Path) -> str | None:
    """Read a text file in UTF-8; None where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise EdcError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8 text'})") from None


@contextlib.contextmanager
def _reading(path: Path, *damage: type[Exception], again: str = "its stage again") -> Iterator[None]:
    """An :class:`EdcError` in place of what a reader raises for a missing or damaged file."""
    try:
        yield
    except FileNotFoundError:
        raise EdcError(f"{path}: no such file; run the stage that makes it first") from None
    except damage as error:
        raise EdcError(f"{path}: damaged or truncated ({error}); delete it and run {again}") from None


def read_json(path: Path, again: str = "its stage again") -> Any:
    """Read JSON; an :class:`EdcError` says where the file is missing or damaged, and what to run again."""
    with _reading(path, json.JSONDecodeError, UnicodeDecodeError, again=again):
        return json.loads(path.read_text(encoding="utf-8"))


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file, refused as JSON is."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with _reading(path, SafetensorError, ValueError, OSError):
        return load_file(path)


def read_array(path: Path) -> np.ndarray:
    """Open an ``.npy`` array as a read-only memory map, refused as JSON is."""
    import numpy as np

    with _reading(path, ValueError, OSError, EOFError):
        return np.load(path, mmap_mode="r", allow_pickle=False)


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(value: object) -> str:
    """Short SHA-256 of a JSON-able value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run_folder(stage: str, key: str) -> Path:
    """The folder of one run."""
    return RUNS / stage / key


def digest(manifest: dict[str, Any]) -> str:
    """Fingerprint of the files a run wrote: what a later run records of its input."""
    return fingerprint(manifest["files"])


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write ``manifest.json`` with a last key: the fingerprint of all the others."""
    write_json(folder / "manifest.json", {**manifest, "fingerprint": fingerprint(manifest)})


def manifest_in(folder: Path) -> dict[str, Any]:
    """The manifest in a run's folder, without its fingerprint; one made before there was any is taken as it is.

    Raises:
        EdcError: it is missing, or other than it was written.
    """
    again = "`edc {} --run {}`".format(*folder.parts[-2:])
    manifest = read_json(folder / "manifest.json", again)
    expected = manifest.pop("fingerprint", None) if isinstance(manifest, dict) else ""
    if expected not in (None, fingerprint(manifest)):
        raise EdcError(f"{folder / 'manifest.json'}: changed since it was made; run {again}")
    return manifest


def checked(folder: Path, manifest: Mapping[str, Any], name: str) -> Path:
    """The path of a file that a run's manifest lists.

    Raises:
        EdcError: the file is missing, truncated or changed.
    """
    path, entry, again = folder / name, manifest["files"][name], "run `edc {} --run {}".format(*folder.parts[-2:])
    if not path.exists():
        raise EdcError(f"{path}: no such file; {again}` or `dvc checkout`")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise EdcError(f"{path}: damaged or truncated, {size} of {entry['bytes']} bytes; {again}`")
    if sha256(path) != entry["sha256"]:  # which a run that is up to date is not examined for
        raise EdcError(f"{path}: changed since it was made; {again} --force`")
    return path


def read_manifest(stage: str, key: str) -> dict[str, Any]:
    """The manifest of a finished run, after checking that it and the files it lists are as they were written.

    Raises:
        EdcError: the run has not finished, or one of its files is missing, truncated or changed.
    """
    folder = run_folder(stage, key)
    manifest = manifest_in(folder)
    if missing := [name for name in KEYS if name not in manifest]:
        path = folder / "manifest.json"
        raise EdcError(f"{path}: damaged, no {missing[0]!r} in it; run `edc {stage} --run {key} --force`")
    for name in manifest["files"]:
        checked(folder, manifest, name)
    return manifest


class Checkpoint:
    """Where a long run stands, kept at ``path``, outside its outputs, so that a killed run goes on.

    Its identity is a fingerprint of the exact parameters and inputs it was made with; one of another is ignored.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path, self.identity = path, identity
        # EDC_CHECKPOINT_SECONDS=0 keeps one at every opportunity; the fault tests use it.
        said = os.environ.get("EDC_CHECKPOINT_SECONDS") or "30"
        try:
            self.interval = float(said)
        except ValueError:
            self.interval = -1.0
        if not 0 <= self.interval < math.inf:
            raise EdcError(f"EDC_CHECKPOINT_SECONDS={said}: expected a number of seconds, at least 0")
        self._last, self._cost = time.monotonic(), 0.0

    def load(self) -> dict[str, Any] | None:
        """The kept state, or None when there is none, it is damaged, or it belongs to other inputs."""
        import torch

        try:
            content = memoryview(self.path.read_bytes())
            if hashlib.sha256(content[32:]).digest() != content[:32]:
                return None
            kept = torch.load(io.BytesIO(content[32:]), map_location="cpu", weights_only=True)
        except Exception:  # what is raised for another file is an open list
            return None
        known = isinstance(kept, dict) and kept.get("identity") == self.identity
        return kept["state"] if known and isinstance(kept.get("state"), dict) else None

    def due(self) -> bool:
        """Whether the interval since the last one has passed, and long enough for it to take a small share of time."""
        wait = max(self.interval, min(SPARING * self._cost, LONGEST)) if self.interval else 0.0
        return time.monotonic() - self._last >= wait

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep a state of tensors, numbers, strings, lists and dictionaries, after the SHA-256 of its bytes."""
        import torch

        begun = time.monotonic()
        buffer = io.BytesIO()  # torch has no clear word for a full disk
        torch.save({"identity": self.identity, "state": dict(state)}, buffer)
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            file.write(hashlib.sha256(buffer.getbuffer()).digest())
            file.write(buffer.getbuffer())
        self._last = time.monotonic()
        self._cost = self._last - begun

    def clear(self) -> None:
        """Forget the state, and what kills in the middle of a write left of it: the run is finished."""
        self.path.unlink(missing_ok=True)
        for partial in self.path.parent.glob(f".{self.path.name}.*.tmp"):
            partial.unlink(missing_ok=True)
