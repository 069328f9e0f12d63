"""How a dataset is cut, what travels with it, and where it is looked for."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.rows import refusal, source_config

from edc.config.registry import READERS
from edc.data import roots, sets
from edc.data.images import ImageSet
from edc.data.sets import load_split, training_rows
from edc.data.source import Source, class_hash
from edc.errors import EdcError

label_lists = st.lists(st.integers(0, 6), min_size=1, max_size=120)


def memory_set(n: int = 60, bad: dict[int, str] | None = None):
    """A reader of n grey 2 x 2 images in 3 classes, whose value is their row."""

    def read(config, part):
        def decode(rows, out, view):
            out[:] = rows[:, None, None, None]
            return {i: bad[int(row)] for i, row in enumerate(rows) if bad and int(row) in bad}

        return Source("memory", ("a", "b", "c"), np.arange(n) % 3, lambda row: f"row {row}", decode, str)

    return read


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setitem(READERS, "memory", f"{__name__}:memory_reader")
    use(monkeypatch, memory_set())
    return source_config("memory", name="small", image_size=2, channels=1)


def use(monkeypatch, reader):
    monkeypatch.setattr(sys.modules[__name__], "memory_reader", reader, raising=False)


@given(label_lists, st.floats(0, 0.5), st.integers(0, 2**40), st.none() | st.integers(1, 30))
def test_split_is_disjoint_complete_stratified_and_deterministic(labels, holdout, seed, per_class):
    labels = np.array(labels, np.int64)
    train = training_rows(labels, "train", holdout, seed, per_class)
    held = training_rows(labels, "val", holdout, seed, per_class)

    assert not set(train) & set(held)
    assert (np.diff(train) > 0).all()
    assert (np.diff(held) > 0).all()
    for c in np.unique(labels):
        n = min((labels == c).sum(), per_class or len(labels))
        in_train, in_held = (labels[train] == c).sum(), (labels[held] == c).sum()
        assert in_train + in_held == n
        assert in_train >= 1
        assert abs(in_held - holdout * n) <= 0.5 or in_held == (1 if n > 1 and holdout > 0 else 0)
    np.testing.assert_array_equal(train, training_rows(labels, "train", holdout, seed, per_class))
    np.testing.assert_array_equal(held, training_rows(labels, "val", holdout, seed, per_class))


@given(label_lists, st.integers(0, 1000), st.integers(1, 20))
def test_smaller_subsets_are_parts_of_larger_ones(labels, seed, per_class):
    labels = np.array(labels, np.int64)
    small, large = (set(training_rows(labels, "train", 0.0, seed, n)) for n in (per_class, per_class + 3))
    assert small <= large


def test_a_class_keeps_its_cut_when_another_changes():
    one = np.array([0] * 20 + [1] * 20)
    other = np.array([0] * 20 + [1] * 7)
    for split in ("train", "val"):
        first, second = (training_rows(labels, split, 0.3, 5) for labels in (one, other))
        np.testing.assert_array_equal(first[first < 20], second[second < 20])


def test_split_is_the_same_on_every_platform():
    held = training_rows(np.arange(40) % 2, "val", 0.2, 7)
    assert held.tolist() == [5, 6, 7, 12, 13, 16, 21, 28]
    assert training_rows(np.arange(40) % 2, "val", 0.2, 8).tolist() != held.tolist()


def test_load_split_joins_images_and_labels(config):
    train, held, test = (load_split(config, split) for split in ("train", "val", "test"))
    assert [len(part) for part in (train, held, test)] == [45, 15, 60]
    assert train.images.shape == (45, 1, 2, 2)
    assert (train.images.dtype, train.labels.dtype) == (torch.uint8, torch.int64)
    for part in (train, held, test):
        assert (part.images[:, 0, 0, 0] % 3 == part.labels).all()
    rows = torch.cat([train.images, held.images])[:, 0, 0, 0].sort().values
    assert rows.tolist() == list(range(60))
    config.train_per_class, config.test_per_class = 8, 5
    for split, count in (("train", 6), ("val", 2), ("test", 5)):
        assert load_split(config, split).labels.bincount().tolist() == [count] * 3


def test_image_set_reads_selects_and_hashes(config):
    result = load_split(config, "train")
    indices = result.by_class(1)
    assert (result.labels[indices] == 1).all()
    assert len(indices) == 15
    part = result.select([3, 0])
    assert torch.equal(part.images, result.read(torch.tensor([3, 0])))
    assert part.labels.tolist() == [int(result.labels[3]), int(result.labels[0])]
    assert part.class_hash == result.class_hash == class_hash(["a", "b", "c"])


def test_chosen_classes_are_relabelled_by_name(config):
    config.class_names, config.classes = ["c", "a"], 2
    result = load_split(config, "test")
    assert result.classes == ("c", "a")
    assert (result.images[:, 0, 0, 0] % 3).tolist() == [{0: 2, 1: 0}[label] for label in result.labels.tolist()]
    assert len(result) == 40
    config.class_names = ["c", "d"]
    with pytest.raises(EdcError, match="memory: no class 'd', listed in class_names"):
        load_split(config, "test")


def test_only_a_streamed_set_may_be_larger_than_memory(config, monkeypatch):
    monkeypatch.setattr(sets, "_memory", lambda: 100.0)
    assert "lower image_size or train_per_class, or set streamed: true" in refusal(config)
    config.streamed = True
    result = load_split(config, "train")
    assert result.read([3, 1])[:, 0, 0, 0].tolist() == result.rows[[3, 1]].tolist()


def test_hashes_tell_classes_images_and_labels_apart():
    assert len({class_hash(names) for names in (["a", "b"], ["b", "a"], ["ab"], ["a", "b", ""], ["a,b"])}) == 5
    images, labels = torch.arange(16, dtype=torch.uint8).reshape(2, 2, 2, 2), torch.tensor([0, 1])
    one = ImageSet(images, labels, ("a", "b"))
    others = [
        ImageSet(images + 1, labels, ("a", "b")),
        ImageSet(images, labels.flip(0), ("a", "b")),
        ImageSet(images, labels, ("b", "a")),
        ImageSet(images.reshape(2, 1, 2, 4), labels, ("a", "b")),
    ]
    assert len({part.digest for part in [one, *others]}) == 5
    turned = images.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)
    assert ImageSet(turned, labels, ("a", "b")).digest == one.digest


@pytest.mark.parametrize(
    ("key", "value", "split", "line"),
    [
        ("kind", "parqet", "train", "dataset small: unknown dataset kind 'parqet'; did you mean 'parquet'?"),
        ("val_fraction", 0.0, "val", "dataset small: val_fraction is 0, so no image is held out; expected above 0"),
        ("classes", 4, "train", "memory: 3 classes; expected 4, the dataset's `classes`"),
        ("train_per_class", 1, "val", "memory: split 'val' has no image; expected more images per class"),
    ],
)
def test_mistakes_are_refused_in_one_line(config, key, value, split, line):
    setattr(config, key, value)
    assert refusal(config, split) == line


def test_label_out_of_range_and_empty_class_are_refused(config, monkeypatch):
    def reader(labels):
        return lambda config, part: Source("memory", ("a", "b", "c"), np.array(labels), "row {}".format, None, str)

    for labels, line in (
        ([0, 1, 2, 3], "row 3: label 3; expected 0 to 2"),
        ([0, -1, 1, 2], "row 1: label -1; expected 0 to 2"),
        ([0, 2, 2], "memory: class 'b' has no image; expected at least 1"),
    ):
        use(monkeypatch, reader(labels))
        assert refusal(config) == line


def test_unreadable_images_are_counted_named_and_tolerated_up_to_the_limit(config, monkeypatch):
    use(monkeypatch, memory_set(bad={4: "broken", 7: "broken"}))
    line = "memory: 2 of 60 images unreadable: row 4 (broken); row 7 (broken)"
    assert refusal(config, "test") == f"{line}; expected at most 0 (data.unreadable_limit in workflow/datasets)"

    config.unreadable_limit = 2
    with pytest.warns(UserWarning, match="2 of 60 images unreadable") as warned:
        result = load_split(config, "test")
    assert len(warned) == 1
    assert warned[0].filename == __file__
    assert result.images[:, 0, 0, 0].tolist() == [row for row in range(60) if row not in (4, 7)]
    assert (result.images[:, 0, 0, 0] % 3 == result.labels).all()


def test_a_class_without_a_readable_image_is_refused(config, monkeypatch):
    use(monkeypatch, memory_set(6, bad={1: "broken", 4: "broken"}))
    config.unreadable_limit = 5
    with (
        pytest.warns(UserWarning, match="2 of 6"),
        pytest.raises(EdcError, match="class 'b' has no readable image; expected at least 1"),
    ):
        load_split(config, "test")


def test_names_and_roots_are_available_without_heavy_libraries():
    code = "import sys, edc.data, edc.data.roots, edc.nets, edc.nets.titles; edc.nets.check_name('resnet18')"
    code += "; edc.nets.titles.paper_name('timm:resnet18'); edc.nets.networks()"
    code += "; print(*{'torch', 'sklearn', 'torchvision', 'timm'} & set(sys.modules))"
    code += "; import edc.data.sets; print(*{'sklearn', 'torchvision', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("A", "B", "C", "D", "E"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    for name in ("SMALL_SET_2", "BIG"):
        monkeypatch.delenv(f"EDC_DATA_{name}", raising=False)
    return SimpleNamespace(name="small-set.2", family="big", root=None)


def test_roots_are_looked_up_in_order(place, tmp_path, monkeypatch):
    place.root = "E"
    assert roots.resolve_root(place) == roots.Path("E")
    roots.remember_root("big", "D")
    assert roots.resolve_root(place) == tmp_path / "D"
    roots.remember_root("small-set.2", tmp_path / "C")
    assert roots.resolve_root(place) == tmp_path / "C"
    monkeypatch.setenv("EDC_DATA_BIG", "B")
    assert roots.resolve_root(place) == roots.Path("B")
    monkeypatch.setenv("EDC_DATA_SMALL_SET_2", "A")
    assert roots.resolve_root(place) == roots.Path("A")
    assert json.loads(roots.REMEMBERED.read_text()) == {"big": str(tmp_path / "D"), "small-set.2": str(tmp_path / "C")}
    assert [path.name for path in roots.REMEMBERED.parent.iterdir()] == ["data.json"]


def test_missing_roots_are_refused(place, tmp_path, monkeypatch):
    def line():
        with pytest.raises(EdcError) as error:
            roots.resolve_root(place)
        return str(error.value)

    assert line() == ("dataset small-set.2: no folder given; set EDC_DATA_BIG=PATH or run `edc plan STUDY --data PATH`")
    place.root = "absent"
    assert line() == "dataset small-set.2: root: absent does not exist"
    monkeypatch.setenv("EDC_DATA_BIG", "A/file")
    assert line() == "EDC_DATA_BIG: A/file is not a folder"
    monkeypatch.setenv("EDC_DATA_BIG", "~nosuchuser/x")
    assert line() == "EDC_DATA_BIG: ~nosuchuser/x does not exist"
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("EDC_DATA_BIG", "empty")
    assert line() == "EDC_DATA_BIG: empty is empty; expected the dataset's files"


@pytest.mark.parametrize("text", ["{", "[1]", '{"big": 3}'])
def test_a_damaged_list_of_roots_is_refused(place, text):
    roots.REMEMBERED.parent.mkdir()
    roots.REMEMBERED.write_text(text)
    with pytest.raises(EdcError, match=r"data\.json: .*correct or delete it"):
        roots.resolve_root(place)
