"""Tables are made in an empty checkout with the repository's figures of the paper; datasets have no files."""

from pathlib import Path

import pytest
from support import REPOSITORY


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "workflow").mkdir()
    (tmp_path / "workflow/paper").symlink_to(REPOSITORY / "workflow/paper")
    return tmp_path
