"""Parquet files in the Hugging Face layout, made here."""

import io
import json
import re
import shutil
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from support.rows import refusal, source_config

from edc.data import parquet
from edc.data.sets import load_split
from edc.errors import EdcError

NAMES = ["plane", "car", "bird"]
config = partial(source_config, "parquet", image_size=4)


def encoded(value: int, size: int = 4) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (value, 2 * value, 3 * value)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, rows, names=NAMES, image="img", label="label", size=4, metadata=None):
    """Images whose red value is their row number, in row groups of 5; labels row % 3."""
    images = [{"bytes": encoded(row, size), "path": f"{row}.png"} for row in rows]
    table = pa.table({image: images, label: pa.array([row % 3 for row in rows], pa.int64())})
    if names is not None:
        feature = {"names": names, "_type": "ClassLabel"}
        metadata = json.dumps({"info": {"features": {image: {"_type": "Image"}, label: feature}}})
    pq.write_table(
        table.replace_schema_metadata({"huggingface": metadata} if metadata else None), path, row_group_size=5
    )


def rewrite(path: Path, column: str, change) -> None:
    """Change the values of a column in place, a list."""
    table = pq.read_table(path)
    values = table.column(column).to_pylist()
    change(values)
    field = table.schema.field(column)
    table = table.set_column(table.schema.get_field_index(column), field, pa.array(values, field.type))
    pq.write_table(table, path, row_group_size=5)


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "train-00000-of-00002.parquet", range(18))
    write(tmp_path / "train-00001-of-00002.parquet", range(18, 36))
    write(tmp_path / "test-00000-of-00001.parquet", range(40, 49))
    return tmp_path


def test_parts_are_read_with_names_and_in_order(root):
    train, held, test = (load_split(config(root), split) for split in ("train", "val", "test"))
    assert train.classes == tuple(NAMES)
    assert [len(part) for part in (train, held, test)] == [27, 9, 9]
    for part in (train, held, test):
        red = part.images[:, 0, 0, 0].long()
        assert (red % 3 == part.labels).all()
        assert (red.diff() > 0).all()
        assert torch.equal(part.images[:, 2].long(), (3 * red)[:, None, None].expand(-1, 4, 4))
    assert sorted(torch.cat([train.images, held.images])[:, 0, 0, 0].tolist()) == list(range(36))


def test_only_the_rows_that_are_kept_are_decoded(root, monkeypatch):
    decoded, real = [], parquet.decode_pictures
    monkeypatch.setattr(parquet, "decode_pictures", lambda given, *rest: decoded.extend(given) or real(given, *rest))
    result = load_split(config(root, train_per_class=2, val_fraction=0.0), "train")
    assert len(decoded) == len(result) == 6
    assert result.labels.bincount().tolist() == [2, 2, 2]


def test_other_sizes_and_columns_are_brought_to_the_wanted_ones(tmp_path):
    write(tmp_path / "train.parquet", range(6), image="image", label="fine_label", size=9)
    write(tmp_path / "validation-0.parquet", range(6), image="image", label="fine_label", size=9)
    given = config(tmp_path, image_column="image", label_column="fine_label", image_size=6, channels=1)
    assert load_split(given, "train").images.shape == (3, 1, 6, 6)
    assert len(load_split(given, "test")) == 6


def test_without_names_classes_are_numbers_and_plain_bytes_will_do(tmp_path):
    images = pa.array([encoded(row) for row in range(6)], pa.binary())
    labels = pa.array([0, 1, 2] * 2, pa.int8())
    for part in ("train", "test"):
        pq.write_table(pa.table({"img": images, "label": labels}), tmp_path / f"{part}-0.parquet")
    result = load_split(config(tmp_path), "test")
    assert result.classes == ("0", "1", "2")
    assert result.images[:, 0, 0, 0].tolist() == list(range(6))


def test_unreadable_rows_are_named(root):
    path = root / "test-00000-of-00001.parquet"

    def damage(images):
        images[6]["bytes"], images[7]["bytes"], images[8] = None, images[7]["bytes"][:40], None

    rewrite(path, "img", damage)
    line = refusal(config(root), "test")
    assert line.startswith(f"{path}: 3 of 9 images unreadable: {path}: row 6 (no bytes); {path}: row 7 (")
    assert f"{path}: row 8 (no bytes)" in line
    with pytest.warns(UserWarning, match="3 of 9"):
        assert load_split(config(root, unreadable_limit=3), "test").labels.tolist() == [1, 2, 0, 1, 2, 0]


def test_missing_files_and_columns_are_refused(root):
    train, test = root / "train-00000-of-00002.parquet", root / "test-00000-of-00001.parquet"
    line = f"{train}: no column 'image'; expected 'image' and 'label', found img, label"
    assert refusal(config(root, image_column="image")) == line
    line = f"{train}: column 'label' is string; expected integers"
    pq.write_table(pa.table({"img": pq.read_table(train).column("img"), "label": ["a"] * 18}), train)
    assert refusal(config(root)) == line
    pq.write_table(pa.table({"img": [1], "label": [0]}), train)
    assert refusal(config(root)) == f"{train}: column 'img' is int64; expected struct<bytes: binary, path: string>"
    train.write_bytes(b"PAR1 no PAR1")
    assert refusal(config(root)).startswith(f"{train}: not readable as parquet (")
    test.rename(root / "other.parquet")
    files = "expected train-*.parquet and test-*.parquet (or validation-*)"
    assert refusal(config(root)) == f"{root}: no file test-*.parquet; {files}"
    for path in root.glob("train*"):
        path.unlink()
    assert refusal(config(root)) == f"{root}: no file train-*.parquet; {files}"


def test_class_lists_that_disagree_are_refused(root):
    test = root / "test-00000-of-00001.parquet"
    write(test, range(9), names=["plane", "bird", "car"])
    line = f"{test}: class 1 is 'bird'; expected 'car' as in {root / 'train-00000-of-00002.parquet'}"
    assert refusal(config(root), "test") == refusal(config(root), "train") == line


@pytest.mark.parametrize("metadata", ["{", "[]", '{"info": {"features": {"label": {"names": "ab"}}}}'])
def test_damaged_metadata_are_refused(root, metadata):
    write(root / "train-00000-of-00002.parquet", range(9), names=None, metadata=metadata)
    assert "metadata" in refusal(config(root))


def test_wrong_labels_are_refused(root):
    assert "3 classes; expected 10" in refusal(config(root, classes=10))
    path = root / "train-00001-of-00002.parquet"
    missing = "no label in column 'label'; expected an integer"
    for label, complaint in ((5, "label 5; expected 0 to 2"), (None, missing)):
        rewrite(path, "label", lambda labels, label=label: labels.__setitem__(17, label))
        # Rows count within a file.
        for given in (config(root), config(root, classes=2, class_names=["plane", "bird"])):
            assert refusal(given) == f"{path}: row 17: {complaint}"


def test_hidden_labels_are_not_tested_on(root):
    path = root / "test-00000-of-00001.parquet"
    shutil.copy(path, root / "validation-0.parquet")
    rewrite(path, "label", lambda labels: labels.__setitem__(slice(None), [-1] * len(labels)))
    line = f"{path}: all labels are -1, so hidden; set data.test_split: validation (or test)"
    assert refusal(config(root), "test") == line
    assert len(load_split(config(root, test_split="validation"), "test")) == 9


def test_named_classes_alone_in_their_order(root):
    given = config(root, classes=2, class_names=["bird", "plane"])
    train, held, test = (load_split(given, split) for split in ("train", "val", "test"))
    assert [len(part) for part in (train, held, test)] == [18, 6, 6]
    for part in (train, held, test):
        assert part.classes == ("bird", "plane")
        assert part.labels.tolist() == [{2: 0, 0: 1}[row % 3] for row in part.images[:, 0, 0, 0].tolist()]
    whole = load_split(config(root, class_names=NAMES), "test")
    assert whole.digest == load_split(config(root), "test").digest


def test_class_names_that_do_not_fit_are_refused(root, tmp_path_factory):
    train = root / "train-00000-of-00002.parquet"
    line = f"{train} and 1 more: no class 'birds', listed in class_names; did you mean 'bird'?"
    assert refusal(config(root, classes=2, class_names=["plane", "birds"])) == line
    line = f"{train} and 1 more: class_names has 'car' twice; expected every class once"
    assert refusal(config(root, classes=2, class_names=["car", "car"])) == line
    bare = tmp_path_factory.mktemp("bare")
    for part in ("train-0", "test-0"):
        write(bare / f"{part}.parquet", range(6), names=None)
    line = f"{bare / 'train-0.parquet'}: no class names of 'label' in the metadata; class_names needs them"
    assert refusal(config(bare, classes=2, class_names=["0", "2"])) == line


def test_unreadable_rows_of_chosen_classes_keep_their_names(root):
    path = root / "test-00000-of-00001.parquet"
    rewrite(path, "img", lambda images: images[5].update(bytes=None))
    given = config(root, classes=2, class_names=["bird", "plane"])
    assert f"1 of 6 images unreadable: {path}: row 5 (no bytes);" in refusal(given, "test")
    line = f"1 of 6 images unreadable so far: {path}: row 5 (no bytes);"
    with pytest.raises(EdcError, match=re.escape(line)):
        load_split(config(root, classes=2, class_names=["bird", "plane"], streamed=True), "test").read(range(6))
