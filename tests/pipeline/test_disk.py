"""A full disk and folders that can't be written to: one line, exit code 2, nothing lost. Needs leave to mount."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from checkout import Checkout
from test_faults import RUNS

COMMANDS: dict[str, tuple[str, ...]] = {"tables": ("edc", "tables")}
COMMANDS |= {stage: ("edc", stage, "--run", key, "--force") for stage, key in RUNS.items()}
READ_ONLY = {
    "runs": [COMMANDS["evaluate"]],
    "results": [COMMANDS["tables"], ("edc", "run"), ("edc", "report")],
    ".": [("edc", "run"), ("edc", "plan", "digits"), COMMANDS["relabel"], ("edc", "verify", "--sample", "1")],
}


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Something is mounted at a folder inside the block."""
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def refused(project: Checkout, command: tuple[str, ...], why: str) -> None:
    """A command ends with exit code 2, and says why in one line; a run's is repeated where they are counted."""
    done = project.run(*command)
    assert done.returncode == 2, done.stderr
    assert all(line.startswith("edc: ") for line in done.stderr.splitlines()), done.stderr
    assert "cannot be written (" in done.stderr
    assert why in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("stage", COMMANDS)
def test_a_full_disk_costs_no_finished_run(by, tmp_path, stage):
    """It has no room at all, or for half of the largest file."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=512m", "tmpfs"):
        project = by("edc").copy(disk / "project")
        before, filler = project.outputs(), disk / "filler"
        written = project.path("results") if stage == "tables" else project.path("runs", stage, RUNS[stage])
        for room in (0, max(path.stat().st_size for path in written.rglob("*") if path.is_file()) // 2):
            with filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - room // 4096 * 4096)
            refused(project, COMMANDS[stage], "No space left on device")
            assert project.outputs() == before
            filler.unlink()
        project.ok(*COMMANDS[stage])
        assert project.outputs() == before


@pytest.mark.slow
@pytest.mark.parametrize("folder", READ_ONLY)
def test_a_folder_that_cannot_be_written_to_is_one_line_and_loses_nothing(finished, folder):
    path, before = finished.path(folder), finished.files()
    with mounted(path, "--bind", str(path)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(path)], check=True)
        for command in READ_ONLY[folder]:
            refused(finished, command, "Read-only file system")
    assert finished.files() == before
