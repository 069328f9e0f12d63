"""Checkpoints: what they hold, which are ignored, and when they are due."""

import contextlib
import hashlib
import io
import pickle

import pytest
import torch
from support.faults import Malicious

from edc import storage as module
from edc.errors import EdcError
from edc.storage import Checkpoint


@pytest.fixture
def path(tmp_path):
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder" / "state.pt"


def test_a_checkpoint_is_read_as_it_was_saved_by_a_run_of_the_same_identity(path):
    checkpoint = Checkpoint(path, "id")
    assert checkpoint.load() is None
    state = {"epoch": 3, "weights": torch.randn(3), "history": [[1, 0.5, None]], "nested": {"a": [torch.zeros(1)]}}
    checkpoint.save(state)
    assert Checkpoint(path, "another").load() is None
    found = Checkpoint(path, "id").load()
    assert torch.equal(found.pop("weights"), state.pop("weights"))
    assert found == state
    checkpoint.clear()
    assert checkpoint.load() is None
    checkpoint.clear()


def write(path, content):
    """A file that is as it was written, whatever it holds."""
    path.write_bytes(hashlib.sha256(content).digest() + content)


def saved(value):
    """What PyTorch writes of it."""
    torch.save(value, buffer := io.BytesIO())
    return buffer.getvalue()


def test_damaged_checkpoints_and_other_files_are_ignored(path):
    checkpoint = Checkpoint(path, "id")
    checkpoint.save({"weights": torch.arange(100.0)})
    whole = path.read_bytes()
    truncated = [whole[: int(len(whole) * share)] for share in (0, 0.1, 0.5, 0.99)]
    for content in [*truncated, b"x" * 100, saved({"identity": "id", "state": {}})]:
        path.write_bytes(content)
        assert checkpoint.load() is None
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        assert checkpoint.load() is None
    for value in ([1, 2], torch.zeros(3), {"identity": "id"}, {"state": {}}, None):
        write(path, saved(value))
        assert checkpoint.load() is None


def test_a_checkpoint_never_executes_code(path, tmp_path):
    content = {"identity": "id", "state": {"x": Malicious(tmp_path / "trace")}}
    for text in (saved(content), pickle.dumps(content, protocol=2)):
        write(path, text)
        assert Checkpoint(path, "id").load() is None
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(("interval", "waits"), [("0", [0, 0, 0]), ("30", [30, 120, 300])])
def test_a_costly_checkpoint_is_due_less_often(path, monkeypatch, interval, waits):
    """One that takes 6 seconds waits 120, not 30; one that takes 60 waits 300."""
    now, cost = [0.0], [0.0]

    @contextlib.contextmanager
    def slow(path):
        yield path
        now[0] += cost[0]

    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "replacing", slow)
    monkeypatch.setenv("EDC_CHECKPOINT_SECONDS", interval)
    checkpoint = Checkpoint(path, "id")
    for cost[0], wait in zip((6.0, 60.0, 0.0), waits, strict=True):
        if wait:
            now[0] += wait - 1
            assert not checkpoint.due()
            now[0] += 1
        assert checkpoint.due()
        checkpoint.save({"x": 1})


@pytest.mark.parametrize("text", ["abc", "-1", "nan", "inf"])
def test_an_interval_that_is_no_number_of_seconds_is_refused(text, path, monkeypatch):
    monkeypatch.setenv("EDC_CHECKPOINT_SECONDS", text)
    with pytest.raises(EdcError, match=rf"EDC_CHECKPOINT_SECONDS={text}: expected a number of seconds, at least 0"):
        Checkpoint(path, "id")
