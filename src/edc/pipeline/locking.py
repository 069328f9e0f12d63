"""Write runs into ``dvc.lock`` as ``dvc commit`` would, also where a large file is on another machine.

DVC reads and writes the whole of ``dvc.lock`` after every run, in Python: with the runs of all studies in it that took
twelve seconds and more. So it has those of the active plan; what was locked of others waits in ``results/locked.yaml``.
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edc.pipeline import dag
from edc.errors import EdcError
from edc.config.rows import Plan
from edc.storage import RESULTS, read_text, write_text
from edc.tracking.delivery import one_line

if TYPE_CHECKING:
    from edc.pipeline.packing import Digest

LOCK, OTHERS = Path("dvc.lock"), RESULTS / "locked.yaml"
HEAD = "schema: '2.0'\nstages:\n"
EMPTY = ("", "schema: '2.0'", "schema: '2.0'\nstages: {}")
ENTRY = re.compile(r"  (?:([\w-]+):\n|\? ([\w-]+)\n  : .*\n)(?:    .*\n)+")
"""One run; a name of 128 characters and more is written as the second of these."""
SHARED = re.compile(r"[:-] [&*]id\d+$", re.MULTILINE)
"""A value that several runs share, which could not be taken apart; DVC writes none."""


@contextlib.contextmanager
def exchanged(plan: Plan, root: Path = Path(".")) -> Iterator[None]:
    """After the block, in which a plan is written, ``dvc.lock`` has what is locked of its runs; the rest is put by.

    Entries stand in the plan's order there and by name here, so that going to another plan and back changes no byte.

    Raises:
        EdcError: ahead of the block: one of the two files is damaged, or a command of DVC is at work here.
    """
    order = [task.name for task in dag.tasks(plan)]
    here, away = entries(root / LOCK), entries(root / OTHERS)
    if here.keys() <= set(order) and not away.keys() & set(order):
        yield
        return
    with _alone(root):
        known = entries(root / OTHERS) | entries(root / LOCK)
        yield
        mine = {name: known[name] for name in order if name in known}
        _write(root / OTHERS, known)  # whatever happens from here on, nothing is lost
        _write(root / LOCK, mine)
        _write(root / OTHERS, {name: known[name] for name in sorted(known) if name not in mine})


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Hold DVC's lock: it reads ``dvc.lock``, works on it for seconds, and writes it."""
    if not (root / ".dvc").is_dir():
        yield
        return
    try:
        from dvc.lock import LockError, make_lock
    except ImportError:  # no DVC on this machine: none of its commands is at work
        yield
        return
    scratch = root / ".dvc" / "tmp"
    try:
        scratch.mkdir(exist_ok=True)
        held = make_lock(str(scratch / "lock"), tmp_dir=str(scratch))
        held.lock()
    except LockError:
        raise EdcError("dvc.lock: a command of DVC is at work here; expected none while the plan is changed") from None
    except OSError as error:
        raise EdcError(f"{scratch}: cannot be written ({error.strerror})") from None
    try:
        yield
    finally:
        held.unlock()


def entries(path: Path) -> dict[str, str]:
    """The text of every run in a lock file, by name; nothing where there is no file, or an empty one.

    Text, not values: DVC takes a number that is written in another way for another one.

    Raises:
        EdcError: it cannot be read, or is not as DVC writes it.
    """
    text = read_text(path) or ""
    if text.strip() in EMPTY:
        return {}
    first, *parts = re.split(r"^(?=  [^\s:])", text.removeprefix(HEAD), flags=re.MULTILINE)
    found = [ENTRY.fullmatch(part) for part in parts]
    if not text.startswith(HEAD) or first or None in found or SHARED.search(text):
        raise EdcError(
            f"{path}: not as DVC writes it (an unfinished merge?); mend it, or bring it back with `git checkout {path}`"
        )
    return {entry[1] or entry[2]: entry[0] for entry in found if entry is not None}


def _write(path: Path, texts: Mapping[str, str]) -> None:
    if texts:
        write_text(path, HEAD + "".join(texts.values()))
    else:
        path.unlink(missing_ok=True)


def check(plan: Plan) -> None:
    """Whether runs of a plan can be written into ``dvc.lock`` here.

    Raises:
        EdcError: ``dvc.yaml`` is of another plan, or DVC can't read what is here.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    dag.check_written(plan)
    try:
        with Repo(".") as repo:
            len(repo.index.stages)
    except DvcException as error:
        raise EdcError(f"dvc: {one_line(error)}") from None


def record(names: Collection[str], elsewhere: Mapping[str, Digest]) -> list[str]:
    """Write runs into ``dvc.lock`` and what is here of their cached outputs into DVC's cache.

    Files that are here are hashed; of those that are not, size and hash are taken as told.

    Args:
        names: of the runs, as in ``dvc.yaml``.
        elsewhere: what is known of files by path.

    Returns:
        Names of the runs that were left out, because nothing is known of a file.

    Raises:
        EdcError: DVC could not, most often because another of its commands is at work here.
    """
    from dvc.exceptions import DvcException

    try:
        return _record(names, elsewhere)
    except DvcException as error:
        raise EdcError(f"dvc.lock was not written: {one_line(error)}; `dvc commit` does so for what is here") from None


def _record(names: Collection[str], elsewhere: Mapping[str, Digest]) -> list[str]:
    from dvc.repo import Repo

    written: list[Any] = []
    unknown: list[str] = []
    with Repo(".") as repo, repo.lock, _plan_read_once():
        for stage in repo.index.stages:  # the order dvc commit writes them in
            if getattr(stage, "name", None) not in names:
                continue
            away = [one for one in (*stage.deps, *stage.outs) if not one.exists]
            if not away:
                stage.save()
                stage.commit(relink=False)
            elif all(one.def_path in elsewhere for one in away):
                _save(stage, elsewhere)
            else:
                unknown.append(stage.name)
                continue
            written.append(stage)
        if written:
            # All of them at once: the file is long, and is written anew each time.
            written[0].dvcfile.dump_stages(written, update_pipeline=False)
    return unknown


@contextlib.contextmanager
def _plan_read_once() -> Iterator[None]:
    """DVC parses params.yaml three times for each run it saves, two thirds of its time; within the block, once."""
    from dvc.dependency import param

    read = param.load_path
    known: dict[str, Any] = {}

    def once(path: str, *args: Any, **kwargs: Any) -> Any:
        if path not in known:
            known[path] = read(path, *args, **kwargs)
        return copy.deepcopy(known[path])  # what two runs shared would be written as one, with an anchor

    param.load_path = once
    try:
        yield
    finally:
        param.load_path = read


def _save(stage: Any, elsewhere: Mapping[str, Digest]) -> None:
    """What ``stage.save`` and ``stage.commit`` do, entry by entry: DVC has no way to leave out only some.

    Nothing goes into DVC's cache of runs, which promises all outputs.
    """
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.meta import Meta

    for entry in (*stage.deps, *stage.outs):
        if entry.exists:
            entry.save()
        else:
            known = elsewhere[entry.def_path]
            entry.hash_name = "md5"
            entry.hash_info, entry.meta = HashInfo("md5", known.md5), Meta(size=known.size)
    for out in stage.outs:
        if Path(out.fs_path).exists():
            out.commit(relink=False)
    stage.md5 = stage.compute_md5()
