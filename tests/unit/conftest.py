"""Fixtures of `edc new` and of the study it writes."""

from pathlib import Path

import pytest
from support import REPOSITORY
from support.pictures import fill


@pytest.fixture
def new_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout's recipes and protocols, with room for datasets and studies."""
    for kind in ("datasets", "studies"):
        (tmp_path / "workflow" / kind).mkdir(parents=True)
    for kind in ("recipes", "protocols"):
        (tmp_path / "workflow" / kind).symlink_to(REPOSITORY / "workflow" / kind)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pets(new_checkout: Path) -> Path:
    """Class folders without a split."""
    for number, name in enumerate(("ant", "bee", "cat")):
        fill(Path("pets") / name, 100 * number)
    return Path("pets")
