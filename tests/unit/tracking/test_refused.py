"""A store (SQLite) that MLflow cannot use for a while: one line, and `edc track` completes the runs later."""

import contextlib
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.faults import full_disk
from support.tracking import runs
from typer.testing import CliRunner

import edc.config.references
from edc import tracking
from edc.cli import app

DISK = Path("disk")


@contextlib.contextmanager
def version(number: str) -> Iterator[None]:
    """The database of another MLflow: the revision of its tables is not that of ours."""
    with contextlib.closing(sqlite3.connect(DISK / "mlflow.db", isolation_level=None)) as database:
        (own,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
        database.execute("UPDATE alembic_version SET version_num = ?", [number])
        yield
        database.execute("UPDATE alembic_version SET version_num = ?", [own])


@contextlib.contextmanager
def folder() -> Iterator[None]:
    """A folder where the file should be."""
    (DISK / "mlflow.db").rename(DISK / "other.db")
    (DISK / "mlflow.db").mkdir()
    yield
    (DISK / "mlflow.db").rmdir()
    (DISK / "other.db").rename(DISK / "mlflow.db")


@contextlib.contextmanager
def full() -> Iterator[None]:
    """No space left on the disk."""
    if not DISK.is_mount():
        pytest.skip("no disk can be mounted")
    with contextlib.suppress(OSError), (DISK / "other").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))
    yield
    (DISK / "other").unlink()


@pytest.fixture(autouse=True)
def disk(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The store in a folder of its own; where that is allowed a disk with half a megabyte left."""
    DISK.mkdir()
    size = Path("mlflow.db").stat().st_size + 500_000
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", DISK], check=False, capture_output=True)
    shutil.move("mlflow.db", DISK)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/{DISK}/mlflow.db")
    yield
    if (project / DISK).is_mount():
        subprocess.run(["umount", "--lazy", project / DISK], check=True)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda: version("451aebb31d03"), "database schema (found version 451aebb31d03"),
        (lambda: version("f" * 12), "database schema (found version ffffffffffff"),
        (folder, "unable to open database file"),
        (full, "database or disk is full"),
    ],
    ids=["older", "newer", "folder", "full"],
)
def test_store_that_refuses_is_one_line_and_gets_the_runs_later(plan, monkeypatch, capfd, fault, words):
    monkeypatch.setattr(edc.config.references, "load_plan", lambda: plan)
    with fault():
        line = tracking.sync(plan)
        done = CliRunner().invoke(app, ["track"])
    assert line.startswith("tracking: sqlite:///")
    assert words in line
    assert "\n" not in line
    assert (done.exit_code, done.stderr, done.stdout) == (1, f"edc: {line}\n", "")
    assert capfd.readouterr() == ("", "")
    assert tracking.sync(plan).startswith("tracking: 4 runs recorded, 0 unchanged")
    assert len(runs()) == 3


def test_database_whose_creation_was_interrupted_is_made_again(plan):
    (DISK / "mlflow.db").unlink()
    with full_disk(300_000):
        assert "disk" in tracking.sync(plan)
    assert tracking.sync(plan).startswith("tracking: 4 runs recorded, 0 unchanged")
