"""Take in what :mod:`edc.pipeline.packing` packed elsewhere: runs of this plan, made by this code, and nothing else."""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from edc.pipeline import dag
from edc.pipeline.current import current, made_files
from edc.errors import EdcError
from edc.config.references import load_plan
from edc.pipeline.packing import INDEX, Digest, Index, Packed, digest
from edc.config.rows import Plan
from edc.storage import RESULTS, STATE, replacing
from edc.tracking.delivery import one_line
from edc.config.validation import validate


@dataclass
class Unpacked:
    """What became of a pack: names of the runs taken in, why others were refused, and what is known of every file."""

    taken: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    files: dict[str, Digest] = field(default_factory=dict)


def take_in(archives: Sequence[Path]) -> int:
    """Place the runs of a pack, then tell DVC and MLflow of all that is finished, with a line for each step.

    Returns:
        Exit code: 2 if a run was refused, else 0.
    """
    from edc.pipeline.filing import bring
    from edc.pipeline.locking import check, record

    plan = load_plan()
    check(plan)  # before anything is placed
    made = unpack(plan, archives)
    for name, problem in made.refused.items():
        print(f"refused {name}: {problem}")
    print(f"{len(made.taken)} runs taken in, {len(made.refused)} refused")
    done = [task.name for task in dag.tasks(plan) if task.name in made.taken or current(plan, task)]
    for name in record(done, made.files):
        print(f"dvc.lock has no {name}: nothing is known of a file it reads")
    print(f"MLflow: {bring()}")
    for key in plan.tables if made.taken else ():
        print(f"next: `edc tables --run {key}`, and once all it needs is here `dvc commit -f tables-{key}`")
    return 2 if made.refused else 0


def unpack(plan: Plan, archives: Sequence[Path]) -> Unpacked:
    """Place the runs of a pack below results/; a run is taken in whole or not at all.

    Args:
        plan: the active plan; it decides which runs are taken.
        archives: all parts of one pack.

    Raises:
        EdcError: a part is damaged or holds what no pack holds; nothing was written then.
    """
    with _opened(archives) as (root, index):
        tasks = {task.name: task for task in dag.tasks(plan)}
        made = Unpacked(files=index.files)
        prints: dict[str, str] = {}  # of the runs taken so far, for those that read from them
        for run in index.runs:
            name = f"{run.stage}-{run.key}"
            problem = _problem(plan, tasks.get(name), run, index, root, prints)
            if problem:
                made.refused[name] = problem
                continue
            prints[f"{run.stage}/{run.key}"] = made_files(root / dag.folder(run.stage, run.key))
            made.taken.append(name)
        for run in index.runs:
            if f"{run.stage}-{run.key}" in made.taken:
                _place(root, run, index)
    return made


@contextlib.contextmanager
def _opened(archives: Sequence[Path]) -> Iterator[tuple[Path, Index]]:
    """The content of a pack in a temporary folder, and its index."""
    STATE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=STATE, prefix="unpack-") as folder:
        root, found = Path(folder), set[str]()
        for archive in archives:
            found |= _extract(archive, root, found)
        if INDEX not in found:
            raise EdcError(f"{', '.join(map(str, archives))}: no {INDEX} inside; give the first part, too")
        try:
            values = json.loads((root / INDEX).read_text(encoding="utf-8"))
        except ValueError:
            raise EdcError(f"{INDEX} of {archives[0]}: damaged") from None
        index: Index = validate(Index, values, f"{INDEX} of {archives[0]}")
        unknown = found - {INDEX} - {name for run in index.runs for name in run.files}
        if unknown:
            raise EdcError(f"{min(unknown)}: belongs to no run of the pack; are these the parts of one pack?")
        yield root, index


def _extract(archive: Path, root: Path, before: set[str]) -> set[str]:
    """Unpack one part; nothing but plain files below results/ and the index may be inside."""
    found = set[str]()
    try:
        with tarfile.open(archive, "r:*") as opened:
            for member in opened:
                parts = PurePosixPath(member.name).parts
                below = parts[:1] == (RESULTS.name,) and ".." not in parts and len(parts) > 2
                if not member.isreg() or member.issparse() or not (below or member.name == INDEX):
                    raise EdcError(f"{archive}: {member.name!r} is no result; expected plain files below results/")
                name = "/".join(parts)
                if name in before | found:
                    raise EdcError(f"{archive}: {name} is in there twice; are these the parts of one pack?")
                opened.extract(member, root, filter="data")
                found.add(name)
    except FileNotFoundError:
        raise EdcError(f"{archive}: no such file") from None
    except OSError as error:
        full = error.errno == errno.ENOSPC
        raise EdcError(
            f"{archive}: {'no space left to unpack it' if full else f'damaged, or no pack ({error})'}"
        ) from None
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise EdcError(f"{archive}: damaged, or no pack ({one_line(error)})") from None
    except Exception as error:  # lzma and zlib have errors of their own, of no common kind
        if isinstance(error, EdcError):
            raise
        raise EdcError(f"{archive}: damaged, or no pack ({one_line(error)})") from None
    return found


def _problem(
    plan: Plan, task: dag.Task | None, run: Packed, index: Index, root: Path, prints: dict[str, str]
) -> str | None:
    """Why a run is refused, in some words; None when it is taken."""
    if task is None or task.stage == "tables":
        return "not in the active plan"
    folder = dag.folder(run.stage, run.key)
    if any(PurePosixPath(name).parts[:3] != PurePosixPath(folder).parts for name in run.files):
        return "names files of another run"
    for output in task.outputs:
        if output.path not in index.files or not (output.cached or output.path in run.files):
            return f"{output.path} is missing from the pack"
    for name in run.files:
        if not (root / name).is_file():
            return f"{name} is missing; give all parts of the pack"
        if digest(str(root / name)) != index.files.get(name):
            return f"{name} is not as it was packed"
    try:
        manifest, made = (
            json.loads((root / folder / name).read_text("utf-8")) for name in ("manifest.json", "run.json")
        )
        if manifest["params"] != plan.resolved(run.stage, run.key):
            return "made with other parameters than the active plan's"
        made_files(root / folder)
        if made["code"] != dag.code_digest(task):
            return "made by other code than is here"
        for upstream, files in manifest["inputs"].items():
            if files != (prints.get(upstream) or made_files(RESULTS / upstream)):
                return f"made with another version of {upstream} than is here"
        if current(plan, task) and made_files(root / folder) != made_files(Path(folder)):
            return f"{folder} was made here from the same values, with other results; remove it to take this one"
    except OSError as error:
        return f"{error.filename} is missing"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "its manifest.json or run.json is damaged"
    return None


def _place(root: Path, run: Packed, index: Index) -> None:
    """Put a run's files in place of an older version; the manifest, which makes it complete, goes first and comes last.

    A large file that stayed behind may be here already: it stays if it is the same.
    """
    manifest = f"{dag.folder(run.stage, run.key)}/manifest.json"
    Path(manifest).unlink(missing_ok=True)
    for path in Path(manifest).parent.rglob("*"):
        name = path.as_posix()
        if path.is_file() and name not in run.files and (name not in index.files or digest(name) != index.files[name]):
            path.unlink()
    for name in sorted(run.files, key=lambda name: name == manifest):
        with replacing(Path(name)) as temporary:
            shutil.copyfile(root / name, temporary)
