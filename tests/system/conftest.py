"""Checkouts the tests share: planned, run by DVC, run by Snakemake. Each is made once; tests that write take a copy."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from checkout import Checkout, refusal
from filelock import FileLock
from PIL import Image
from samples import DATASET, PETS, PETS_STUDY, STUDY

from edc.cli import main


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
        made = Checkout.make(folder / "project")
        made.write("workflow/datasets/tiny.yaml", DATASET)
        made.write("workflow/studies/tiny.yaml", STUDY)
        made.ok("edc", "plan", "tiny")

    return Checkout(once("planned", make) / "project")


@pytest.fixture(scope="session")
def by_dvc(once, planned) -> Checkout:
    """The tiny study after ``dvc repro``; only to be read."""
    folder = once("by-dvc", lambda folder: planned.copy(folder / "project").ok("dvc", "repro"))
    return Checkout(folder / "project")


@pytest.fixture(scope="session")
def by_snakemake(once, planned) -> Checkout:
    """The tiny study after Snakemake alone; only to be read."""
    command = ("snakemake", "--cores", "all", "--resources", "gpu=4")
    folder = once("by-snakemake", lambda folder: planned.copy(folder / "project").ok(*command))
    return Checkout(folder / "project")


@pytest.fixture(scope="session")
def shipped(once, planned) -> Callable[[str], Checkout]:
    """A study of the repository, planned but not run, and no data anywhere; only to be read."""

    def get(study: str) -> Checkout:
        def make(folder: Path) -> None:
            made = planned.copy(folder / "project")
            made.ok("edc", "plan", study)

        return Checkout(once(f"study-{study}", make) / "project")

    return get


@pytest.fixture
def project(planned, tmp_path) -> Checkout:
    """A planned checkout to work in."""
    return planned.copy(tmp_path / "project")


@pytest.fixture
def done(by_dvc, tmp_path) -> Checkout:
    """A checkout to work in where DVC has run everything."""
    return by_dvc.copy(tmp_path / "project")


@pytest.fixture
def refused(monkeypatch, capsys) -> Callable[..., str]:
    """What ``Checkout.refused`` does, in this process: a new one spends seconds on imports before it says its line."""

    def give(checkout: Checkout, *command: str, **environment: str) -> str:
        files, seen = checkout.files(), checkout.environment(**environment)
        with monkeypatch.context() as patch, mock.patch.dict(os.environ, seen, clear=True):
            patch.chdir(checkout.root)
            patch.setattr(sys, "argv", list(command))
            capsys.readouterr()
            with pytest.raises(SystemExit) as end:
                main()
        assert checkout.files() == files, "something was written"
        return refusal(end.value.code, *capsys.readouterr())

    return give


@pytest.fixture(scope="session")
def pets(once, planned) -> Checkout:
    """A study of an image folder, planned but not run; only to be read."""

    def make(folder: Path) -> None:
        made = planned.copy(folder / "project")
        rng = np.random.default_rng(0)
        for part, count in (("train", 12), ("test", 3)):
            for brightness, name in ((40, "ant"), (120, "bee"), (200, "cat")):
                pictures = made.path("data", part, name)
                pictures.mkdir(parents=True)
                for i in range(count):
                    pixels = rng.normal(brightness, 20, (8, 8, 3)).clip(0, 255).astype(np.uint8)
                    Image.fromarray(pixels).save(pictures / f"{i:02}.png")
        made.write("workflow/datasets/pets.yaml", PETS)
        made.write("workflow/studies/pets.yaml", PETS_STUDY)
        made.ok("edc", "plan", "pets")

    return Checkout(once("pets", make) / "project")
