"""Pack what finished runs left, small enough to travel; what stays behind is told by size and hash.

Weights and long labels stay where they were made. The index names them all the same, so that the lock file at home can
be written as if everything had come along.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field

from edc.pipeline import dag
from edc.pipeline.current import current
from edc.errors import EdcError
from edc.config.rows import Plan
from edc.pipeline.pieces import ordered
from edc.storage import RESULTS, replacing
from edc.config.validation import Model

INDEX = "index.json"
MB = 10**6
BLOCK = 512  # of a tar file: a header each, contents filled up


class Digest(Model):
    """What DVC writes down of a file."""

    size: int = Field(ge=0)
    md5: str = Field(pattern="^[0-9a-f]{32}$")


def _below_results(name: str) -> str:
    """A file's name as a pack may bear it: no way leads out of the folder of results."""
    path = PurePosixPath(name)
    if path.parts[:1] != (RESULTS.name,) or ".." in path.parts or path.as_posix() != name:
        raise ValueError("expected the plain path of a file below results/")
    return name


class Packed(Model):
    """One run: its stage and row, and the files that came along."""

    stage: str
    key: str
    files: list[Annotated[str, AfterValidator(_below_results)]]


class Index(Model):
    """What a pack holds, in the first of its parts.

    Attributes:
        study: the plan's.
        runs: in the plan's order, each after those it reads from.
        files: every file that travels, every output of these runs and every result they read.
    """

    study: str
    runs: list[Packed]
    files: dict[str, Digest]


def pack(plan: Plan, to: Path, only: Sequence[str], part_mb: float, largest_mb: float) -> list[Path]:
    """Write the finished runs of a plan to ``results-NN.tar.xz``, replacing an earlier pack in the same folder.

    Tables are left out: they are made from the results, wherever those are.

    Args:
        plan: the active plan.
        to: a folder.
        only: patterns of run names, packed with all they were made from, or home would refuse them; none: all.
        part_mb: what no part exceeds.
        largest_mb: cached outputs above this size stay behind.

    Raises:
        EdcError: nothing is finished, a file is larger than a part, or there can be no such folder.
    """
    wanted = {task.name for task in ordered(list(dag.tasks(plan)), only)}
    tasks = [t for t in dag.tasks(plan) if t.name in wanted and t.stage != "tables" and current(plan, t)]
    if not tasks:
        raise EdcError("no finished runs to pack; `edc run` makes them")
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdcError(f"{to}: {error.strerror}; expected a folder to write to") from None
    runs = [Packed(stage=t.stage, key=t.key, files=_travelling(t, largest_mb * MB)) for t in tasks]
    every = dict.fromkeys([name for run in runs for name in run.files])
    every |= dict.fromkeys([name for t in tasks for name in (*t.inputs, *(output.path for output in t.outputs))])
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing and compressing both leave other threads their turn
        digests = dict(zip(every, pool.map(digest, every), strict=True))
        index = Index(study=plan.study, runs=runs, files=digests).model_dump_json(indent=1).encode() + b"\n"
        room = int(part_mb * MB)
        parts = list(_split([name for run in runs for name in run.files], digests, room, len(index)))
        paths = [to / f"results-{i:02}.tar.xz" for i in range(1, len(parts) + 1)]
        heads = [index, *[b""] * (len(parts) - 1)]
        list(pool.map(_write, paths, parts, heads))
    for path in set(to.glob("results-*.tar.xz")) - set(paths):  # of an earlier, larger pack
        path.unlink()
    return paths


def digest(path: str) -> Digest:
    """Size and MD5 of a file, as DVC computes them."""
    with Path(path).open("rb") as file:
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        return Digest(size=file.tell(), md5=md5)


def _travelling(task: dag.Task, largest: float) -> list[str]:
    """Files of a run that are packed: all small ones, and cached outputs up to a size."""
    cached = {output.path for output in task.outputs if output.cached}
    here = sorted(path for path in Path(dag.folder(task.stage, task.key)).rglob("*") if path.is_file())
    whole = [path for path in here if not path.name.startswith(".")]  # dots: temporary files of an interrupted run
    return [path.as_posix() for path in whole if path.as_posix() not in cached or path.stat().st_size <= largest]


def _split(files: Iterable[str], digests: dict[str, Digest], room: int, first: int) -> Iterable[list[str]]:
    """Files by part, reckoned uncompressed: so no part can come out too large."""
    part: list[str] = []
    empty = 20 * BLOCK + room // 1000  # the end of a tar file, and what xz adds to what it can't make smaller
    used = empty + _in_tar(first)
    for name in files:
        need = _in_tar(digests[name].size)
        if need + empty > room:
            raise EdcError(f"{name}: {digests[name].size / MB:.1f} MB do not fit into a part of {room / MB:g} MB")
        if used + need > room:
            yield part
            part, used = [], empty
        part.append(name)
        used += need
    yield part


def _in_tar(size: int) -> int:
    # Up to two blocks more for a name that is longer than a header has room for.
    return 4 * BLOCK + -(-size // BLOCK) * BLOCK


def _write(path: Path, files: list[str], index: bytes) -> None:
    with replacing(path) as temporary, tarfile.open(temporary, "w:xz", preset=1, format=tarfile.PAX_FORMAT) as archive:
        if index:
            about = tarfile.TarInfo(INDEX)
            about.size = len(index)
            archive.addfile(about, io.BytesIO(index))
        for name in files:
            archive.add(name, filter=_plain)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the names of who made it."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member
