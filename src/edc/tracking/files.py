"""The spool on disk: one append-only file of JSON lines per run, shared by the run that writes and the
sender.

Both may hold the file at the same time. Whole lines are appended, and the sender removes a file it has sent,
under a lock on the file that lasts only as long as that one step: a lock held for the length of a run would
live on in forked data loader workers.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Event = dict[str, Any]
"""One line of a spool; its key "event" is start, metrics, dataset, artifact or end."""

DEFAULT_ROOT = Path(".edc/tracking")
SPOOL = ".jsonl"
FOREIGN_SILENCE = 24 * 3600.0
"""Seconds without a write after which a run on another host counts as dead: its process cannot be asked."""


def append(path: Path, lines: bytes, opening: bytes) -> None:
    """Appends whole lines; a file that is new, or was sent and removed meanwhile, begins with `opening`.

    Args:
        path: the spool; its folder is made.
        lines: complete lines, each with its newline.
        opening: start event of the execution that writes, so that a spool can be read from its first line.

    Raises:
        OSError: the disk is full or the folder cannot be written. The file is as it was before.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            _lock(fd)
            if not _is_at(fd, path):
                continue  # removed between open and lock
            size = _cut_torn_line(fd)
            data = lines if size or lines.startswith(opening) else opening + lines
            try:
                if os.write(fd, data) < len(data):
                    raise OSError(errno.ENOSPC, "no space left for the spool")
            except OSError:
                os.ftruncate(fd, size)
                raise
            return
        finally:
            os.close(fd)


def remove_if_read(path: Path, offset: int) -> bool:
    """Removes a spool unless it holds a complete line beyond `offset` (a run that began again wrote on)."""
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        _lock(fd)
        if not _is_at(fd, path) or _cut_torn_line(fd) > offset:
            return False
        path.unlink()
        return True
    finally:
        os.close(fd)


def read(path: Path, offset: int = 0) -> Iterator[tuple[Event, int]]:
    """Yields (event, offset behind it) of the complete lines. A line that is no event is yielded empty.

    A last line without a newline (its writer was killed, or is writing) is left for later.
    """
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                event = json.loads(line)
            except ValueError:
                event = {}
            yield (event if isinstance(event, dict) else {}), offset


def encode(event: Event) -> bytes:
    """One event as one line."""
    return json.dumps(event, separators=(",", ":"), default=str).encode() + b"\n"


@contextmanager
def only_one(path: Path, wait: float = 0.0) -> Iterator[bool]:
    """Holds the lock file `path` and yields True; False when another process held it for `wait` seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + wait
    try:
        held = False
        while not held:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = True
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    break
                time.sleep(0.05)
        yield held
    finally:
        os.close(fd)


def owner() -> dict[str, Any]:
    """Who writes: host, process id, and when that process began (ids are used again)."""
    return {"host": os.uname().nodename, "pid": os.getpid(), "born": _process(os.getpid())}


def is_alive(who: dict[str, Any], last_write: float) -> bool:
    """Whether the process that `owner` described still runs; for another host `last_write` decides."""
    if who.get("host") != os.uname().nodename:
        return time.time() - last_write < FOREIGN_SILENCE
    pid = int(who.get("pid", 0))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _process(pid) == who.get("born")


def _process(pid: int) -> str:
    """Start time of a process, "Z..." if it ended and nobody waited for it; empty where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return ("Z" if fields[0] == "Z" else "") + fields[19]


def _lock(fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError:
        return  # a file system without locks; what can be lost is one line at the moment a spool is removed


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _cut_torn_line(fd: int) -> int:
    """Cuts off a last line without newline that nobody will finish: writers hold the lock. Gives the size."""
    size = os.fstat(fd).st_size
    if size == 0 or os.pread(fd, 1, size - 1) == b"\n":
        return size
    end = size
    while end > 0:
        begin = max(0, end - 65536)
        found = os.pread(fd, end - begin, begin).rfind(b"\n")
        if found >= 0:
            end = begin + found + 1
            break
        end = begin
    os.ftruncate(fd, end)
    return end
