"""Every test of the configuration runs in the root of the repository, whose workflow files it only reads."""

import pytest
from support import REPOSITORY


@pytest.fixture(autouse=True)
def repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
