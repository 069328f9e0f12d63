"""Files that are whole or absent, and what happens with damaged ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.disk import full_disk
from support.malicious import Malicious

from edc.errors import EdcError
from edc.storage import (
    Checkpoint,
    fingerprint,
    partial_array,
    read_array,
    read_json,
    read_manifest,
    read_tensors,
    read_text,
    replacing,
    run_folder,
    sha256,
    write_json,
    write_tensors,
    write_text,
)
from edc.storage.manifests import KEYS


def one_line(error: pytest.ExceptionInfo[EdcError], path: Path) -> bool:
    return str(path) in str(error.value) and "\n" not in str(error.value)


# Writing


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
    assert os.listdir(tmp_path) == ["file.txt"]


def test_the_old_file_stays_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent  # a rename within one folder is atomic
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["file.txt"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(EdcError) as error, replacing(path):
        pass
    assert one_line(error, path)
    assert path.read_text() == "old"


def write_large_array(path: Path) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.zeros(100_000))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_text(path, "x" * 100_000),
        lambda path: write_tensors(path, {"x": torch.zeros(100_000)}),
        lambda path: Checkpoint(path, "id").save({"x": torch.zeros(100_000)}),
        write_large_array,
    ],
    ids=["text", "tensors", "checkpoint", "array"],
)
def test_a_full_disk_is_one_line_and_leaves_the_old_file(write: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with full_disk(5000), pytest.raises(EdcError) as error:
        write(path)
    assert one_line(error, path)
    assert os.listdir(tmp_path) == ["file"]
    assert path.read_text() == "old"


def test_a_full_disk_for_an_array_filled_bit_by_bit_is_noticed_at_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "file.npy"
    with full_disk(5000), pytest.raises(EdcError) as error:
        partial_array(path, (100, 100), np.float16, resume=False)
    assert one_line(error, path)


def test_an_array_filled_bit_by_bit_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.npy"
    array = partial_array(path, (3, 2), np.float16, resume=False)
    array[0] = 1
    array.flush()
    assert partial_array(path, (3, 2), np.float16, resume=True)[:2].tolist() == [[1, 1], [0, 0]]
    assert partial_array(path, (3, 2), np.float16, resume=False)[0].tolist() == [0, 0]


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("not a folder")
    path = tmp_path / "runs" / "manifest.json"
    with pytest.raises(EdcError) as error:
        write_json(path, {})
    assert one_line(error, path)


def test_json_has_one_layout(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None, "ä"], "a": {"x": True}}
    for name in ("first", "second"):
        write_json(tmp_path / name, value)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert read_json(tmp_path / "first") == value
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "first", {"loss": float("nan")})
    assert read_json(tmp_path / "first") == value


def test_tensors_are_read_as_they_were_written(tmp_path: Path) -> None:
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


@given(st.dictionaries(st.text(max_size=3), st.one_of(st.integers(), st.floats(allow_nan=False), st.text(max_size=3))))
@settings(max_examples=40, deadline=None)
def test_a_fingerprint_does_not_depend_on_the_order_of_keys(values: dict[str, object]) -> None:
    assert fingerprint(values) == fingerprint(dict(reversed(values.items())))
    assert fingerprint(values) != fingerprint({**values, "another key": 1})
    assert len(fingerprint(values)) == 16


# Reading


def write_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.arange(20.0))


READERS: list[tuple[Callable[[Path], None], Callable[[Path], object]]] = [
    (lambda path: write_json(path, {"a": list(range(20))}), read_json),
    (lambda path: write_tensors(path, {"a": torch.arange(20.0)}), read_tensors),
    (write_array, read_array),
]


@pytest.mark.parametrize(("write", "read"), READERS, ids=["json", "safetensors", "npy"])
def test_missing_and_damaged_files_are_one_line(
    write: Callable[[Path], None], read: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    with pytest.raises(EdcError, match="no such file") as error:
        read(path)
    assert one_line(error, path)
    write(path)
    read(path)
    whole = path.read_bytes()
    damaged = [whole[: int(len(whole) * share)] for share in (0, 0.02, 0.3, 0.6, 0.95)]
    damaged += [whole[:-2], b"\xff" * len(whole), b"not what it should be"]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(EdcError, match="damaged or truncated") as error:
            read(path)
        assert one_line(error, path)


def test_text_that_is_missing_or_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert read_text(path) is None
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(EdcError, match="not UTF-8 text") as error:
        read_text(path)
    assert one_line(error, path)


def test_arrays_are_read_only_maps(tmp_path: Path) -> None:
    write_array(tmp_path / "file")
    found = read_array(tmp_path / "file")
    assert isinstance(found, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


def test_arrays_of_objects_are_refused_without_executing_code(tmp_path: Path) -> None:
    path, trace = tmp_path / "file.npy", tmp_path / "trace"
    np.save(path, np.array([Malicious(trace)], dtype=object), allow_pickle=True)
    with pytest.raises(EdcError) as error:
        read_array(path)
    assert one_line(error, path)
    assert not trace.exists()


# Manifests


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a finished run."""
    monkeypatch.chdir(tmp_path)
    folder = run_folder("relabel", "row")
    write_text(folder / "data.bin", "content")
    entry = {"bytes": 7, "sha256": sha256(folder / "data.bin")}
    write_json(folder / "manifest.json", dict.fromkeys(KEYS, "") | {"files": {"data.bin": entry}})
    return folder


def test_the_manifest_of_a_finished_run(finished: Path) -> None:
    assert read_manifest("relabel", "row")["files"]["data.bin"]["bytes"] == 7


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.bin", None, r"no such file; run `edc relabel --run row` or `dvc checkout`"),
        ("data.bin", "cont", r"damaged or truncated, 4 of 7 bytes"),
        ("data.bin", "CONTENT", r"changed since it was made"),
        ("manifest.json", None, r"no such file"),
        ("manifest.json", '{"files": {', r"damaged or truncated"),
        ("manifest.json", '{"files": {}}', r"damaged, no 'stage' in it"),
        ("manifest.json", "[1, 2]", r"damaged, no 'stage' in it"),
    ],
)
def test_the_manifest_of_a_damaged_run(finished: Path, name: str, content: str | None, message: str) -> None:
    path = finished / name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(EdcError, match=message) as error:
        read_manifest("relabel", "row")
    assert one_line(error, path)
