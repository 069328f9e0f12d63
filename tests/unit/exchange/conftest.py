"""A checkout with one finished condensed set."""

from pathlib import Path

import pytest
from support import pets


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory."""
    monkeypatch.chdir(tmp_path)
    pets.make_project()
    return tmp_path
