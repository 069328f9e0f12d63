"""Where a run's files lie, and the manifest that says what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edc.errors import EdcError
from edc.storage.files import fingerprint, read_json, sha256

RUNS = Path("runs")
RESULTS = Path("results")
STATE = Path(".edc")
KEYS = ("stage", "run", "version", "params", "inputs", "dataset_digest", "classes", "files")
"""What every manifest holds."""


def run_folder(stage: str, key: str) -> Path:
    """The folder of one run."""
    return RUNS / stage / key


def digest(manifest: dict[str, Any]) -> str:
    """Fingerprint of the files a run wrote: what a later run records of its input."""
    return fingerprint(manifest["files"])


def read_manifest(stage: str, key: str) -> dict[str, Any]:
    """The manifest of a finished run, after checking that the files it lists are as they were written.

    Raises:
        EdcError: the run has not finished, or one of its files is missing, truncated or changed.
    """
    folder = run_folder(stage, key)
    manifest: dict[str, Any] = read_json(folder / "manifest.json")
    missing = [name for name in KEYS if not isinstance(manifest, dict) or name not in manifest]
    if missing:
        raise EdcError(f"{folder / 'manifest.json'}: damaged, no {missing[0]!r} in it; run `edc {stage} --run {key}`")
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.exists():
            raise EdcError(f"{path}: no such file; run `edc {stage} --run {key}` or `dvc checkout`")
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise EdcError(
                f"{path}: damaged or truncated, {size} of {entry['bytes']} bytes; run `edc {stage} --run {key}`"
            )
        if sha256(path) != entry["sha256"]:
            raise EdcError(f"{path}: changed since it was made; run `edc {stage} --run {key}`")
    return manifest
