"""Folder of a dataset on this machine: from an environment variable, `edc plan --data`, or the study's root."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from edc.config.rows import Dataset
from edc.errors import EdcError
from edc.storage import read_text, write_json

REMEMBERED = Path(".edc/data.json")
"""Folders given to `edc plan STUDY --data PATH`, by dataset name; local to a checkout and ignored by Git."""


def variable(name: str) -> str:
    """The environment variable with the root of a dataset: `tiny-imagenet` -> `EDC_DATA_TINY_IMAGENET`."""
    return "EDC_DATA_" + re.sub(r"[^A-Z0-9]", "_", name.upper())


def resolve_root(config: Dataset) -> Path:
    """The folder a dataset is read from.

    The first of these that is set: the environment variables of the dataset's name and of its family, the
    remembered folders of its name and of its family, and `config.root` (relative to the current directory).

    Raises:
        EdcError: none is set, or the folder is missing, no folder, or empty; the line names its origin.
    """
    names, remembered = (config.name, config.family), _remembered()
    candidates = [(variable(name), os.environ.get(variable(name))) for name in names]
    candidates += [(f"{REMEMBERED}: {name}", remembered.get(name)) for name in names]
    for origin, value in [*candidates, (f"dataset {config.name}: root", config.root)]:
        if value:
            return _folder(Path(os.path.expanduser(value)), origin)
    raise EdcError(
        f"dataset {config.name}: no folder given; set {variable(names[-1])}=PATH or run `edc plan STUDY --data PATH`"
    )


def remember_root(name: str, path: str | Path) -> None:
    """Stores `path`, made absolute, as the root of dataset `name`."""
    write_json(REMEMBERED, _remembered() | {name: os.path.abspath(os.path.expanduser(path))})


def _remembered() -> dict[str, str]:
    try:
        folders = json.loads(read_text(REMEMBERED) or "{}")
    except ValueError as error:
        raise EdcError(f"{REMEMBERED}: not readable as JSON ({error}); correct or delete it") from None
    if not isinstance(folders, dict) or not all(isinstance(value, str) for value in folders.values()):
        raise EdcError(f'{REMEMBERED}: expected {{"NAME": "PATH", ...}}; correct or delete it')
    return folders


def _folder(path: Path, origin: str) -> Path:
    try:
        if not path.is_dir():
            raise EdcError(f"{origin}: {path} {'is not a folder' if path.exists() else 'does not exist'}")
        if next(path.iterdir(), None) is None:
            raise EdcError(f"{origin}: {path} is empty; expected the dataset's files")
    except OSError as error:
        raise EdcError(f"{origin}: {path} cannot be read ({error.strerror})") from None
    return path
