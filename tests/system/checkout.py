"""A small checkout of this project in a temporary folder: real commands run in it, as a user would type them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
FOREIGN = ("EDC_", "MLFLOW_", "DVC_", "SNAKEMAKE_", "GIT_", "CUDA_", "OMP_", "PYTEST_", "PYTHON")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""Those in C, where they are, take a tenth of the seconds: plans are long."""
LIMIT = 600
"""Seconds after which a command is taken to hang."""


@dataclass(frozen=True)
class Checkout:
    """A folder with sources, workflow and Snakefile, under Git and DVC."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> Checkout:
        """A fresh checkout without a plan. The commands run its own copy of the sources."""
        root.mkdir(parents=True)
        leave = shutil.ignore_patterns("__pycache__", "*.egg-info")
        for name in ("src", "workflow", "profiles"):
            shutil.copytree(REPOSITORY / name, root / name, ignore=leave)
        for name in ("Snakefile", ".dvcignore", ".gitignore"):
            shutil.copy2(REPOSITORY / name, root / name)
        made = cls(root)
        made.ok("git", "init", "--quiet", "--initial-branch=main", ".")
        made.ok("dvc", "init", "--quiet")
        made.ok("dvc", "config", "core.analytics", "false")
        return made

    def copy(self, root: Path) -> Checkout:
        """The same tree somewhere else, with the times of its files."""
        shutil.copytree(self.root, root, symlinks=True)
        return Checkout(root)

    # Commands

    def environment(self, **changes: str) -> dict[str, str]:
        """What a command sees: nothing of the surrounding session that could change an outcome."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        state = str(self.root.parent / f"{self.root.name}-dvc")
        own = {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.root / "src"),
            "EDC_TRACKING": "off",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": state,
            "DVC_GLOBAL_CONFIG_DIR": state,
            "DVC_SYSTEM_CONFIG_DIR": state,
        }
        return kept | own | changes

    def start(
        self, *command: str, before: Callable[[], object] | None = None, **environment: str
    ) -> subprocess.Popen[str]:
        """Start a command; ``before`` runs in the new process ahead of it.

        What it forbids (large files) must not cut off the bytecode of the libraries here.
        """
        if before is not None:
            environment = {"PYTHONDONTWRITEBYTECODE": "1"} | environment
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=before,
        )

    def run(
        self, *command: str, before: Callable[[], object] | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, whatever that is."""
        with self.start(*command, before=before, **environment) as process:
            try:
                out, err = process.communicate(timeout=LIMIT)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def ok(self, *command: str, **environment: str) -> str:
        """Run a command that must succeed; what it printed."""
        done = self.run(*command, **environment)
        assert done.returncode == 0, f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def refused(self, *command: str, before: Callable[[], object] | None = None, **environment: str) -> str:
        """Run a command that must refuse its input as every command does; the line it says."""
        files = self.files()
        done = self.run(*command, before=before, **environment)
        assert self.files() == files, "something was written"
        return refusal(done.returncode, done.stdout, done.stderr)

    # Files

    def path(self, *parts: str) -> Path:
        """A path in the checkout."""
        return self.root.joinpath(*parts)

    def files(self) -> dict[str, str]:
        """SHA-256 of every file but those of tools, and of the state below .edc."""
        return digests(self.root, skip=(".edc", ".git", ".dvc", ".snakemake", "__pycache__"))

    def outputs(self, stage: str, key: str) -> dict[str, str]:
        """SHA-256 of everything one run left but ``run.json``, which tells when and where it ran."""
        found = digests(self.path("results", stage, key))
        found.pop("run.json", None)
        return found

    def write(self, path: str, values: object) -> Path:
        """Write a YAML file, or text as it is."""
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = values if isinstance(values, str) else yaml.dump(values, Dumper=DUMPER, sort_keys=False)
        target.write_text(text, encoding="utf-8")
        return target

    def plan(self) -> dict[str, Any]:
        """``params.yaml``."""
        values: dict[str, Any] = load(self.path("params.yaml"))
        return values

    def edit(self, file: str, changes: dict[str, object]) -> None:
        """Change values of a YAML file, each named by its keys joined with dots."""
        values = load(self.path(file))
        for name, value in changes.items():
            *way, last = name.split(".")
            section = values
            for key in way:
                section = section.setdefault(key, {})
            section[last] = value
        self.write(file, values)

    # Runners

    def stages(self) -> dict[str, dict[str, Any]]:
        """The stages of ``dvc.yaml``, with their outputs as plain paths."""
        stages: dict[str, dict[str, Any]] = load(self.path("dvc.yaml"))["stages"]
        for stage in stages.values():
            stage["outs"] = [path for out in stage["outs"] for path in ([out] if isinstance(out, str) else out)]
        return stages

    def with_downstream(self, names: Iterable[str]) -> set[str]:
        """Runs, and all that depend on them."""
        stages, found, queue = self.stages(), set[str](), list(names)
        while queue:
            name = queue.pop()
            if name not in found:
                found.add(name)
                outs = set(stages[name]["outs"])
                queue += [other for other, stage in stages.items() if outs & set(stage["deps"])]
        return found

    def stale(self) -> dict[str, set[str]]:
        """What each runner would run now."""
        with ThreadPoolExecutor() as pool:
            dvc, snakemake = (
                pool.submit(self.run, *command) for command in (("dvc", "status", "--json"), ("snakemake", "-n"))
            )
        assert dvc.result().returncode == 0, dvc.result().stderr
        assert snakemake.result().returncode == 0, snakemake.result().stderr
        said = snakemake.result().stdout + snakemake.result().stderr
        jobs = set(re.findall(r"^rule (\S+):$", said, re.MULTILINE)) - {"all"}
        assert jobs or "Nothing to be done" in said, said
        return {"dvc": self.with_downstream(json.loads(dvc.result().stdout)), "snakemake": jobs}


def until(true: Callable[[], object]) -> bool:
    """Wait for something to become true."""
    limit = time.monotonic() + LIMIT
    while not (found := true()) and time.monotonic() < limit:
        time.sleep(0.01)
    return bool(found)


def load(path: Path) -> Any:
    """The values of a YAML file."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)


def refusal(code: object, out: str, err: str) -> str:
    """The line a command said that refused its input; every command does so in the same way."""
    lines = err.splitlines()
    assert lines, f"exit code {code}, nothing on stderr\n{out}"
    assert len(lines) == 1, f"exit code {code}, {len(lines)} lines on stderr, the last: {lines[-1]}"
    assert lines[0].startswith("edc: ")
    assert code == 2, f"exit code {code}: {lines[0]}"
    return lines[0]


def digests(folder: Path, skip: Iterable[str] = ()) -> dict[str, str]:
    """SHA-256 of every file below a folder, leaving out folders of some names."""
    found = {}
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in skip]
        for name in names:
            path = Path(place, name)
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
