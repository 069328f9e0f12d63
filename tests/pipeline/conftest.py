"""Checkouts the tests share: planned, and run by each runner. Each is made once; tests that write take a copy."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from checkout import RUNNERS, Checkout
from filelock import FileLock
from samples import DATASET, STUDY

BY_SNAKEMAKE = (
    "statistics/tiny-p4",
    "synthesize/tiny-rded-ipc1",
    "relabel/tiny-rded-ipc1-rded",
    "evaluate/tiny-rded-ipc1-convnet_d2-rded",
    "continual/tiny-edc-ipc1-convnet_d2-edc",
)


@pytest.fixture(scope="session")
def once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Fill a folder once, whichever of several test processes comes first; nobody may change it afterwards."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def fill(name: str, make: Callable[[Path], object]) -> Path:
        folder, ready = base / name, base / f"{name}.ready"
        with FileLock(base / f"{name}.lock"):
            if not ready.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                ready.touch()
        return folder

    return fill


@pytest.fixture(scope="session")
def planned(once) -> Checkout:
    """The tiny study, planned but not run; only to be read."""

    def make(folder: Path) -> None:
        checkout = Checkout.make(folder / "project")
        checkout.write("workflow/datasets/tiny.yaml", DATASET)
        checkout.write("workflow/studies/tiny.yaml", STUDY)
        checkout.ok("edc", "plan", "tiny")

    return Checkout(once("planned", make) / "project")


@pytest.fixture(scope="session")
def by(once, planned) -> Callable[[str], Checkout]:
    """The tiny study after one runner made everything; only to be read.

    Snakemake, which starts a process for each run, makes but one run of most stages; the others are those of ``edc``.
    """

    def get(runner: str) -> Checkout:
        def make(folder: Path) -> None:
            checkout = (get("edc") if runner == "snakemake" else planned).copy(folder / "project")
            if runner == "snakemake":
                for run in BY_SNAKEMAKE:
                    shutil.rmtree(checkout.path("runs", run))
            checkout.ok(*RUNNERS[runner])

        return Checkout(once(f"by-{runner}", make) / "project")

    return get


@pytest.fixture
def project(planned, tmp_path) -> Checkout:
    """A planned checkout to work in."""
    return planned.copy(tmp_path / "project")


@pytest.fixture
def finished(by, tmp_path) -> Checkout:
    """A checkout to work in where every run is finished."""
    return by("edc").copy(tmp_path / "project")
