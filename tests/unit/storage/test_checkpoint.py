"""Checkpoints: what they hold, which are ignored, and when they are due."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.malicious import Malicious

from edc.errors import EdcError
from edc.storage import Checkpoint
from edc.storage import checkpoint as module


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "state.pt"


def test_a_checkpoint_is_read_as_it_was_saved(path: Path) -> None:
    checkpoint = Checkpoint(path, "id")
    assert checkpoint.load() is None
    state = {"epoch": 3, "weights": torch.randn(3), "history": [[1, 0.5, None]], "nested": {"a": [torch.zeros(1)]}}
    checkpoint.save(state)
    found = Checkpoint(path, "id").load()
    assert found is not None
    assert torch.equal(found.pop("weights"), state.pop("weights"))  # type: ignore[arg-type]
    assert found == state
    checkpoint.clear()
    assert checkpoint.load() is None
    checkpoint.clear()


def test_a_checkpoint_of_another_identity_is_ignored(path: Path) -> None:
    Checkpoint(path, "first").save({"epoch": 3})
    assert Checkpoint(path, "second").load() is None
    assert Checkpoint(path, "first").load() == {"epoch": 3}


def test_damaged_checkpoints_are_ignored(path: Path) -> None:
    checkpoint = Checkpoint(path, "id")
    checkpoint.save({"weights": torch.arange(100.0)})
    whole = path.read_bytes()
    for content in [whole[: int(len(whole) * share)] for share in (0, 0.1, 0.5, 0.99)] + [b"x" * 100, b"PK\x03\x04"]:
        path.write_bytes(content)
        assert checkpoint.load() is None


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"identity": "id"}, {"state": {}}, None])
def test_files_that_are_no_checkpoints_are_ignored(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "state.pt")
    assert Checkpoint(tmp_path / "state.pt", "id").load() is None


def test_a_checkpoint_never_executes_code(tmp_path: Path) -> None:
    path, trace = tmp_path / "state.pt", tmp_path / "trace"
    content = {"identity": "id", "state": {"x": Malicious(trace)}}
    torch.save(content, path)
    assert Checkpoint(path, "id").load() is None
    path.write_bytes(pickle.dumps(content, protocol=2))
    assert Checkpoint(path, "id").load() is None
    assert not trace.exists()


def test_an_interrupted_save_leaves_the_checkpoint_before(path: Path) -> None:
    checkpoint = Checkpoint(path, "id")
    checkpoint.save({"epoch": 1})
    with pytest.raises(AttributeError):  # a local function can't be pickled
        checkpoint.save({"epoch": 2, "function": lambda: None})
    assert checkpoint.load() == {"epoch": 1}
    assert os.listdir(path.parent) == ["state.pt"]


def test_a_checkpoint_is_due_at_intervals(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDC_CHECKPOINT_SECONDS", "0")
    checkpoint = Checkpoint(path, "id")
    assert checkpoint.due()
    checkpoint.save({})
    assert checkpoint.due()
    monkeypatch.setenv("EDC_CHECKPOINT_SECONDS", "3600")
    assert not Checkpoint(path, "id").due()


def test_a_costly_checkpoint_is_due_less_often(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes 6 seconds waits 120, not 30; one that takes 60 waits 300."""
    now, cost = [0.0], [6.0]

    @contextlib.contextmanager
    def slow(path: Path) -> Iterator[Path]:
        path.parent.mkdir(exist_ok=True)
        yield path
        now[0] += cost[0]

    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "replacing", slow)
    monkeypatch.setenv("EDC_CHECKPOINT_SECONDS", "30")
    checkpoint = Checkpoint(path, "id")

    def due(*seconds: float) -> list[bool]:
        answers = []
        for now[0] in seconds:
            answers.append(checkpoint.due())
        return answers

    assert due(29, 30) == [False, True]
    checkpoint.save({"x": 1})
    assert due(36 + 119, 36 + 120) == [False, True]
    cost[0] = 60.0
    checkpoint.save({"x": 2})
    assert due(216 + 299, 216 + 300) == [False, True]


@pytest.mark.parametrize("text", ["abc", "-1", "nan", "inf"])
def test_an_interval_that_is_no_number_of_seconds_is_refused(
    text: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDC_CHECKPOINT_SECONDS", text)
    with pytest.raises(EdcError, match=rf"EDC_CHECKPOINT_SECONDS={text}: expected a number of seconds, at least 0"):
        Checkpoint(path, "id")
