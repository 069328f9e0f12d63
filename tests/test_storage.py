"""Files that are whole or absent, and what happens with damaged ones."""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edc import storage
from edc.errors import EdcError
from edc.storage import (
    MANIFEST,
    Checkpoint,
    fingerprint,
    read_array,
    read_json,
    read_manifest,
    read_tensors,
    replacing,
    sha256,
    write_json,
    write_tensors,
    write_text,
)


def one_line(error: pytest.ExceptionInfo[EdcError], path: Path) -> bool:
    return str(path) in str(error.value) and "\n" not in str(error.value)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


# ---------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("failure", [KeyError, KeyboardInterrupt, MemoryError])
def test_a_failing_block_leaves_the_old_file(failure: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def write() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise failure

    with pytest.raises(failure):
        write()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_the_old_file_stays_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent  # a rename within one folder is atomic
    assert path.read_text() == "new"
    assert names(path.parent) == ["file.txt"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(EdcError) as error, replacing(path):
        pass
    assert one_line(error, path)
    assert path.read_text() == "old"


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No file may grow beyond 5000 bytes, which fails like a disk without space.

    Python would cut off the bytecode of whatever it imports meanwhile, and find it damaged ever after.
    """
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_large_text(path: Path) -> None:
    write_text(path, "x" * 100_000)


def write_large_tensors(path: Path) -> None:
    write_tensors(path, {"x": torch.zeros(100_000)})


def write_large_checkpoint(path: Path) -> None:
    Checkpoint(path, "id").save({"x": torch.zeros(100_000)})


def write_large_array(path: Path) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.zeros(100_000))


@pytest.mark.parametrize("write", [write_large_text, write_large_tensors, write_large_checkpoint, write_large_array])
def test_a_full_disk_is_told_in_one_line(write: Callable[[Path], None], tmp_path: Path, full_disk: None) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(EdcError) as error:
        write(path)
    assert one_line(error, path)
    assert names(tmp_path) == ["file"]
    assert path.read_text() == "old"


def test_a_file_in_the_place_of_a_folder_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("not a folder")
    path = tmp_path / "results" / "manifest.json"
    with pytest.raises(EdcError) as error:
        write_json(path, {})
    assert one_line(error, path)


def test_json_has_one_layout(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None, "ä"], "a": {"x": True}}
    for name in ("one", "two"):
        write_json(tmp_path / name, value)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert read_json(tmp_path / "one") == value
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "one", {"loss": float("nan")})
    assert read_json(tmp_path / "one") == value


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    tensors = {
        "pixels": torch.arange(12, dtype=torch.uint8).view(3, 4).T,  # not contiguous
        "weights": torch.randn(2, 3, requires_grad=True),
        "empty": torch.zeros(0, 3),
        "count": torch.tensor(5),
    }
    path = tmp_path / "file.safetensors"
    write_tensors(path, tensors)
    found = read_tensors(path)
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor.detach())
        assert found[name].dtype == tensor.dtype
    assert path.stat().st_mode & 0o777 == 0o644
    once = path.read_bytes()
    write_tensors(path, tensors)
    assert path.read_bytes() == once


# ---------------------------------------------------------------------------------------------- reading


def make_json(path: Path) -> None:
    write_json(path, {"a": list(range(20))})


def make_tensors(path: Path) -> None:
    write_tensors(path, {"a": torch.arange(20.0)})


def make_array(path: Path) -> None:
    np.save(path.open("wb"), np.arange(20.0))


READERS = [(make_json, read_json), (make_tensors, read_tensors), (make_array, read_array)]


@pytest.mark.parametrize(("make", "read"), READERS, ids=["json", "safetensors", "npy"])
def test_missing_and_damaged_files_are_told_in_one_line(
    make: Callable[[Path], None], read: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    with pytest.raises(EdcError, match="no such file") as error:
        read(path)
    assert one_line(error, path)
    make(path)
    read(path)
    whole = path.read_bytes()
    damaged = [whole[: int(len(whole) * share)] for share in (0, 0.02, 0.3, 0.6, 0.95)]
    damaged += [whole[:-2], b"\xff" * len(whole), b"not what it should be"]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(EdcError, match="damaged or truncated") as error:
            read(path)
        assert one_line(error, path)


def test_arrays_are_read_only_maps(tmp_path: Path) -> None:
    make_array(tmp_path / "file")
    found = read_array(tmp_path / "file")
    assert isinstance(found, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


class Malicious:
    """Unpickling it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.trace,))


def test_arrays_of_objects_are_refused_unread(tmp_path: Path) -> None:
    path, trace = tmp_path / "file.npy", tmp_path / "trace"
    np.save(path, np.array([Malicious(trace)], dtype=object), allow_pickle=True)
    with pytest.raises(EdcError) as error:
        read_array(path)
    assert one_line(error, path)
    assert not trace.exists()


# --------------------------------------------------------------------------------------------- manifests


def finished(folder: Path) -> Path:
    run = folder / "results" / "relabel" / "row"
    write_text(run / "data.bin", "content")
    entry = {"bytes": 7, "sha256": sha256(run / "data.bin")}
    manifest = dict.fromkeys(MANIFEST, "") | {"files": {"data.bin": entry}}
    write_json(run / "manifest.json", manifest)
    return run


def test_manifest_of_a_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    finished(tmp_path)
    assert read_manifest("relabel", "row")["files"]["data.bin"]["bytes"] == 7


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "data.bin").unlink(), r"no such file; run `edc relabel --run row` or `dvc checkout`"),
        (lambda run: (run / "data.bin").write_text("cont"), r"damaged or truncated, 4 of 7 bytes"),
        (lambda run: (run / "data.bin").write_text("CONTENT"), r"changed since it was made"),
        (lambda run: (run / "manifest.json").unlink(), r"no such file"),
        (lambda run: (run / "manifest.json").write_text('{"files": {'), r"damaged or truncated"),
        (lambda run: (run / "manifest.json").write_text('{"files": {}}'), r"damaged, no 'stage' in it"),
        (lambda run: (run / "manifest.json").write_text("[1, 2]"), r"damaged, no 'stage' in it"),
    ],
)
def test_manifest_of_a_damaged_run(
    damage: Callable[[Path], object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    damage(finished(tmp_path))
    with pytest.raises(EdcError, match=message) as error:
        read_manifest("relabel", "row")
    assert "\n" not in str(error.value)


@given(st.dictionaries(st.text(max_size=3), st.one_of(st.integers(), st.floats(allow_nan=False), st.text(max_size=3))))
@settings(max_examples=40, deadline=None)
def test_fingerprint_does_not_hang_on_the_order_of_keys(values: dict[str, object]) -> None:
    assert fingerprint(values) == fingerprint(dict(reversed(values.items())))
    assert fingerprint(values) != fingerprint({**values, "another key": 1})
    assert len(fingerprint(values)) == 16


# ------------------------------------------------------------------------------------------- checkpoints


def test_checkpoint_keeps_the_state(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "deep" / "state.pt", "id")
    assert checkpoint.load() is None
    state = {"epoch": 3, "weights": torch.randn(3), "history": [[1, 0.5, None]], "nested": {"a": [torch.zeros(1)]}}
    checkpoint.save(state)
    found = Checkpoint(checkpoint.path, "id").load()
    assert torch.equal(found.pop("weights"), state.pop("weights"))
    assert found == state
    checkpoint.clear()
    assert checkpoint.load() is None
    checkpoint.clear()


def test_checkpoint_of_other_inputs_is_ignored(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "state.pt", "one").save({"epoch": 3})
    assert Checkpoint(tmp_path / "state.pt", "two").load() is None
    assert Checkpoint(tmp_path / "state.pt", "one").load() == {"epoch": 3}


def test_damaged_checkpoints_are_ignored(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "state.pt", "id")
    checkpoint.save({"weights": torch.arange(100.0)})
    whole = checkpoint.path.read_bytes()
    for content in [whole[: int(len(whole) * share)] for share in (0, 0.1, 0.5, 0.99)] + [b"x" * 100, b"PK\x03\x04"]:
        checkpoint.path.write_bytes(content)
        assert checkpoint.load() is None


@pytest.mark.parametrize(
    "content", [[1, 2], torch.zeros(3), {"identity": "id"}, {"state": {}}, None], ids=lambda c: str(c)[:12]
)
def test_files_that_are_no_checkpoints_are_ignored(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "state.pt")
    assert Checkpoint(tmp_path / "state.pt", "id").load() is None


def test_a_checkpoint_never_executes_code(tmp_path: Path) -> None:
    path, trace = tmp_path / "state.pt", tmp_path / "trace"
    for write in (
        lambda: torch.save({"identity": "id", "state": {"x": Malicious(trace)}}, path),
        lambda: path.write_bytes(pickle.dumps({"identity": "id", "state": {"x": Malicious(trace)}}, protocol=2)),
    ):
        write()
        assert Checkpoint(path, "id").load() is None
        assert not trace.exists()


def test_checkpoints_are_kept_at_intervals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDC_CHECKPOINT_SECONDS", "0")
    checkpoint = Checkpoint(tmp_path / "state.pt", "id")
    assert checkpoint.due()
    checkpoint.save({})
    assert checkpoint.due()
    monkeypatch.setenv("EDC_CHECKPOINT_SECONDS", "3600")
    assert not Checkpoint(tmp_path / "state.pt", "id").due()


def test_a_costly_checkpoint_is_kept_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes 6 seconds waits 120, not 30; one that takes 60 waits 300."""
    now, cost = [0.0], [6.0]
    monkeypatch.setattr(storage.time, "monotonic", lambda: now[0])
    monkeypatch.setenv("EDC_CHECKPOINT_SECONDS", "30")
    checkpoint = Checkpoint(tmp_path / "state.pt", "id")

    @contextlib.contextmanager
    def slow(path: Path) -> Iterator[Path]:
        yield path
        now[0] += cost[0]

    monkeypatch.setattr(storage, "replacing", slow)
    due = []
    for seconds in (29, 30):
        now[0] = seconds
        due.append(checkpoint.due())
    checkpoint.save({"x": 1})
    for seconds in (36 + 119, 36 + 120):
        now[0] = seconds
        due.append(checkpoint.due())
    cost[0] = 60.0
    checkpoint.save({"x": 2})
    for seconds in (216 + 299, 216 + 300):
        now[0] = seconds
        due.append(checkpoint.due())
    assert due == [False, True] * 3


@pytest.mark.parametrize("text", ["abc", "-1", "nan", "inf"])
def test_an_interval_that_is_none_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDC_CHECKPOINT_SECONDS", text)
    with pytest.raises(EdcError, match=rf"EDC_CHECKPOINT_SECONDS={text}: expected a number of seconds, at least 0"):
        Checkpoint(tmp_path / "state.pt", "id")


def test_an_interrupted_save_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "state.pt", "id")
    checkpoint.save({"epoch": 1})
    with pytest.raises(AttributeError):  # a local function can't be written
        checkpoint.save({"epoch": 2, "function": lambda: None})
    assert checkpoint.load() == {"epoch": 1}
    assert names(tmp_path) == ["state.pt"]
