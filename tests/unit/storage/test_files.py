"""Files that are whole or absent, and what happens with damaged ones."""

import contextlib
import os

import numpy as np
import pytest
import torch
from support import one_line
from support.faults import Malicious, full_disk

from edc import storage
from edc.storage import KEYS, Checkpoint, replacing, run_folder, write_json, write_manifest, write_tensors, write_text


@pytest.mark.parametrize("failure", [KeyError, KeyboardInterrupt, MemoryError, None])
def test_a_file_is_replaced_when_its_block_ends_and_stays_when_it_fails(failure, tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")

    def write():
        with replacing(path) as temporary:
            temporary.write_text("new")
            assert path.read_text() == "old"
            assert temporary.parent == path.parent  # a rename within one folder is atomic
            if failure:
                raise failure

    with pytest.raises(failure) if failure else contextlib.nullcontext():
        write()
    assert path.read_text() == ("old" if failure else "new")
    assert os.listdir(path.parent) == ["file.txt"]


def write_array(path, count=100_000):
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.arange(float(count)))


WRITERS = {
    "text": lambda path: write_text(path, "x" * 100_000),
    "tensors": lambda path: write_tensors(path, {"x": torch.zeros(100_000)}),
    "checkpoint": lambda path: storage.Checkpoint(path, "id").save({"x": torch.zeros(100_000)}),
    "array": write_array,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_one_line_and_leaves_the_old_file(kind, tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with full_disk(5000), one_line(str(path)):
        WRITERS[kind](path)
    assert os.listdir(tmp_path) == ["file"]
    assert path.read_text() == "old"


def test_an_array_filled_bit_by_bit_is_resumed_and_needs_its_room_at_the_beginning(tmp_path):
    path = tmp_path / "deep" / "file.npy"
    array = storage.partial_array(path, (3, 2), np.float16)
    array[0] = 1
    array.flush()
    content = path.read_bytes()
    for damaged in (content, b"x" + content[1:], content.replace(b"(3, 2)", b"(9, 2)"), content[:-5], content + b"x"):
        path.write_bytes(damaged)
        assert storage.partial_array(path, (3, 2), np.float16)[:2].tolist() == [[1, 1], [0, 0]]
        assert path.read_bytes() == content
    np.testing.assert_array_equal(np.load(path), array)
    with full_disk(5000), one_line(str(path)):
        storage.partial_array(path, (100, 100), np.float16)


def test_json_has_one_layout_and_fingerprints_do_not_depend_on_the_order_of_keys(tmp_path):
    value, path = {"b": [1, 2.5, None, "ä"], "a": {"x": True}}, tmp_path / "file"
    write_json(path, value)
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(path, {"loss": float("nan")})
    assert storage.read_json(path) == value
    assert list(storage.read_json(path)) == ["b", "a"]
    assert storage.fingerprint(value) == storage.fingerprint(dict(reversed(value.items())))
    assert storage.fingerprint(value) != storage.fingerprint(value | {"c": 1})


def test_tensors_are_read_as_they_were_written(tmp_path):
    tensors = {
        "pixels": torch.arange(12, dtype=torch.uint8).view(3, 4).T,  # not contiguous
        "weights": torch.randn(2, 3, requires_grad=True),
        "empty": torch.zeros(0, 3),
        "count": torch.tensor(5),
    }
    path = tmp_path / "file.safetensors"
    write_tensors(path, tensors)
    found, once = storage.read_tensors(path), path.read_bytes()
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor.detach())
        assert found[name].dtype == tensor.dtype
    write_tensors(path, tensors)
    assert path.read_bytes() == once


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o002, 0o664), (0o022, 0o644)])
def test_files_have_the_mode_of_the_umask(mask, mode, tmp_path):
    before = os.umask(mask)
    try:
        write_tensors(tmp_path / "a", {"a": torch.zeros(1)})
        write_text(tmp_path / "b", "")
        storage.partial_array(tmp_path / "c", (1,), np.float32)
        Checkpoint(tmp_path / "d", "").save({})
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {mode}


READERS = {
    "json": (lambda path: write_json(path, {"a": list(range(20))}), storage.read_json),
    "safetensors": (lambda path: write_tensors(path, {"a": torch.arange(20.0)}), storage.read_tensors),
    "npy": (lambda path: write_array(path, 20), storage.read_array),
}


@pytest.mark.parametrize("kind", READERS)
def test_missing_and_damaged_files_are_one_line(kind, tmp_path):
    (write, read), path = READERS[kind], tmp_path / "file"
    with one_line("no such file", str(path)):
        read(path)
    write(path)
    read(path)
    whole = path.read_bytes()
    damaged = [whole[: int(len(whole) * share)] for share in (0, 0.02, 0.3, 0.6, 0.95)]
    for content in [*damaged, whole[:-2], b"\xff" * len(whole), b"not what it should be"]:
        path.write_bytes(content)
        with one_line("damaged or truncated", str(path)):
            read(path)


def test_arrays_are_read_only_and_never_execute_code(tmp_path):
    path, trace = tmp_path / "file.npy", tmp_path / "trace"
    write_array(path)
    with pytest.raises(ValueError, match="read-only"):
        storage.read_array(path)[0] = 1
    np.save(path, np.array([Malicious(trace)], dtype=object), allow_pickle=True)
    with one_line(str(path)):
        storage.read_array(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.bin", "content", ""),
        ("data.bin", None, "no such file; run `edc relabel --run row` or `dvc checkout`"),
        ("data.bin", "cont", "damaged or truncated, 4 of 7 bytes"),
        ("data.bin", "CONTENT", "changed since it was made"),
        ("manifest.json", None, "no such file"),
        ("manifest.json", '{"files": {', "damaged or truncated"),
        ("manifest.json", '{"files": {}}', "damaged, no 'stage' in it"),
        ("manifest.json", "[1, 2]", "changed since it was made"),
        ("manifest.json", '{"files": {}, "fingerprint": "0123456789abcdef"}', "changed since it was made"),
    ],
)
def test_a_manifest_is_read_where_its_files_are_as_they_were_written(name, content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = run_folder("relabel", "row")
    write_text(folder / "data.bin", "content")
    entry = {"bytes": 7, "sha256": storage.sha256(folder / "data.bin")}
    write_json(folder / "manifest.json", dict.fromkeys(KEYS, "") | {"files": {"data.bin": entry}})
    path = folder / name
    path.unlink() if content is None else path.write_text(content)
    if not message:
        assert storage.read_manifest("relabel", "row")["files"] == {"data.bin": entry}
        return
    with one_line(message, str(path)):
        storage.read_manifest("relabel", "row")


def test_a_manifest_with_one_bit_flipped_is_refused(tmp_path):
    """All but the key of its fingerprint: without it, it is a manifest of an earlier version."""
    manifest = {"accuracy": [91.25, None, True], "params": {"ipc": 1, "name": "ä"}, "files": {}}
    write_manifest(tmp_path, manifest)
    path = tmp_path / "manifest.json"
    assert storage.manifest_in(tmp_path) == manifest
    whole = path.read_bytes()
    for place in range(8 * whole.index(b'"fingerprint"')):
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        with one_line(start=str(path)):
            storage.manifest_in(tmp_path)
