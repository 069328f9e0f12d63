"""A small checkout of this project in a temporary folder: real commands run in it, as a user would type them."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from support import REPOSITORY, edited

BIN = Path(sys.executable).parent
FOREIGN = ("EDC_", "MLFLOW_", "DVC_", "SNAKEMAKE_", "GIT_", "CUDA_", "OMP_", "PYTEST_", "PYTHON")
LIMIT = 600
"""Seconds after which a command is taken to hang."""
RUNNERS = {
    "dvc": ("dvc", "repro"),
    "snakemake": ("snakemake", "--cores", "2", "--resources", "gpu=4"),
    "edc": ("edc", "run"),
}


@dataclass(frozen=True)
class Checkout:
    """A folder with workflow, dvc.yaml and Snakefile, under Git and DVC; the package is the installed one."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> Checkout:
        """A fresh checkout without a plan."""
        root.mkdir(parents=True)
        shutil.copytree(REPOSITORY / "workflow", root / "workflow")
        for name in ("Snakefile", "dvc.yaml", ".dvcignore", ".gitignore"):
            shutil.copy2(REPOSITORY / name, root / name)
        checkout = cls(root)
        checkout.ok("git", "init", "--quiet", "--initial-branch=main", ".")
        checkout.ok("dvc", "init", "--quiet")
        return checkout

    def copy(self, root: Path) -> Checkout:
        """The same tree somewhere else, with the times of its files."""
        shutil.copytree(self.root, root, symlinks=True)
        return Checkout(root)

    def environment(self, **changes: str) -> dict[str, str]:
        """The environment of a command: nothing of the surrounding one that could change an outcome."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        state = str(self.root.parent / f"{self.root.name}-dvc")
        return inherited | {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "EDC_TRACKING": "off",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "DVC_NO_ANALYTICS": "1",
            **dict.fromkeys(("DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"), state),
            **changes,
        }

    def options(self, environment: dict[str, str]) -> dict[str, Any]:
        """How a command is started: in a process group of its own, and interruptible, which a background job is not."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return streams | {
            "cwd": self.root,
            "env": self.environment(**environment),
            "start_new_session": True,
            "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        }

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(command, **self.options(environment))

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, whatever that is."""
        return subprocess.run(command, timeout=LIMIT, **self.options(environment))

    def ok(self, *command: str, **environment: str) -> str:
        """Run a command that must succeed; its output."""
        result = self.run(*command, **environment)
        text = f"{' '.join(command)}: exit code {result.returncode}\n{result.stdout}\n{result.stderr}"
        assert result.returncode == 0, text
        return result.stdout + result.stderr

    def path(self, *parts: str) -> Path:
        """A path in the checkout."""
        return self.root.joinpath(*parts)

    def files(self) -> dict[str, str]:
        """SHA-256 of every file but those of tools, and of the state below .edc."""
        skip = {".edc", ".git", ".dvc", ".snakemake", "__pycache__"}
        return {
            name.as_posix(): hashlib.sha256((self.root / name).read_bytes()).hexdigest()
            for path in self.root.rglob("*")
            if path.is_file() and not skip & set((name := path.relative_to(self.root)).parts)
        }

    def outputs(self) -> dict[str, str]:
        """SHA-256 of everything the runs left but ``run.json``, which has times, and Snakemake's flags."""
        return {
            name: digest
            for name, digest in self.files().items()
            if name.startswith("runs/") and not name.endswith(("/run.json", "/done"))
        }

    def write(self, path: str, values: object) -> Path:
        """Write a YAML file."""
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        return target

    def edit(self, changes: dict[str, Any]) -> None:
        """Change values of ``params.yaml``, each named by its keys joined with dots."""
        self.write("params.yaml", edited(self.path("params.yaml").read_text("utf-8"), changes))

    def times(self) -> dict[str, int]:
        """When each run's manifest was written, by ``STAGE/KEY``."""
        manifests = self.path("runs").glob("*/*/manifest.json")
        return {"/".join(path.parts[-3:-1]): path.stat().st_mtime_ns for path in manifests}

    def made_by(self, *command: str) -> set[str]:
        """The runs a command makes."""
        before = self.times()
        self.ok(*command)
        return {run for run, when in self.times().items() if before.get(run) != when}


def until(condition: Callable[[], object], seconds: float = LIMIT) -> bool:
    """Wait for something to become true."""
    limit = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < limit:
        time.sleep(0.01)
    return bool(value)
