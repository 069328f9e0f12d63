"""Continual learning: what a step may know, how it is judged, and that interruptions leave no trace."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support import laboratory as lab
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edc.stages import continual
from edc.stages.continual import ALL, Condensed, Real, accuracies, class_portions, summary
from edc.data.augment import Normaliser
from edc.data.feed import Feed
from edc.data.sets import ImageSet
from edc.errors import EdcError
from edc.config.rows import Dataset
from edc.stages.relabel import all_logits, ensemble
from edc.storage import Checkpoint
from edc.training.students import Student

NORMALISER = Normaliser((0.306,), (0.342,))
SMALL = {"steps": 3, "orders": [0]}
PORTIONS = [list(range(4)), [4, 5, 6], [7, 8, 9]]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, labels and an observer; only to be copied."""
    folder = tmp_path_factory.mktemp("continual")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("EDC_TRACKING", "off")
        lab.prepare()
    return folder


@pytest.fixture
def place(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("EDC_TRACKING", "off")
    return folder


def memory(**row: Any) -> Condensed:
    return Condensed(lab.job("continual", **SMALL | row), NORMALISER)


def table() -> list[dict[str, str]]:
    return list(csv.DictReader(Path("results/continual/row/history.csv").read_text().splitlines()))


# Portions


@given(st.integers(2, 60), st.integers(2, 60), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_portions_are_a_partition_of_almost_equal_parts(classes: int, steps: int, order: int) -> None:
    steps = min(classes, steps)
    portions = class_portions(classes, steps, order)
    sizes = [len(portion) for portion in portions]
    assert len(portions) == steps
    assert max(sizes) - min(sizes) <= 1 <= min(sizes)
    assert sorted(np.concatenate(portions)) == list(range(classes))
    if order == 0:
        assert np.concatenate(portions).tolist() == list(range(classes))
    assert all(map(np.array_equal, portions, class_portions(classes, steps, order)))


def test_every_order_is_another_one() -> None:
    assert [portion.tolist() for portion in class_portions(10, 3, 0)] == PORTIONS
    assert len({tuple(np.concatenate(class_portions(10, 5, order))) for order in range(6)}) == 6


# What a student is shown


@pytest.mark.parametrize("mix", ["cutmix", "mixup"])
def test_nothing_of_a_class_to_come_is_ever_mixed_in(place: Path, monkeypatch: pytest.MonkeyPatch, mix: str) -> None:
    """Every image is of one grey that tells its class, so what is in a view can be read off it."""
    monkeypatch.setitem(lab.PLAN["relabel"]["labels"], "mix", mix)
    monkeypatch.setitem(lab.PLAN["relabel"]["labels"], "mixup_alpha", 1.0)
    kept = memory(regime="hard")  # labels are looked at below
    kept.row = kept.row.model_copy(update={"regime": "soft"})
    kept.images = (20 * kept.labels + 10).to(torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8).contiguous()
    kept._label = lambda x: torch.zeros(len(x), 10)  # type: ignore[method-assign]
    mixed = 0
    for order in (0, 3):
        for step in range(3):
            seen = np.concatenate(class_portions(10, 3, order)[: step + 1])
            allowed = {20 * int(c) + 10 for c in seen}
            for epoch in range(4):
                for x, _, labels in kept.epoch(epoch, seen):
                    greys = NORMALISER.decode(x + 1e-4).flatten(1)
                    for grey, label in zip(greys, labels, strict=True):
                        found = {int(value) for value in grey.unique()}
                        mixed += len(found) > 1 or not found <= allowed
                        if mix == "cutmix":
                            assert found <= allowed
                            assert len(found) <= 2
                        assert min(allowed) <= min(found) <= max(found) <= max(allowed)
                        assert seen[int(label)] in range(10)
    assert mixed > 20


def test_every_image_of_a_class_seen_and_no_other_is_shown_once_an_epoch(place: Path) -> None:
    kept = memory(regime="hard")
    kept.images = torch.arange(20, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8).contiguous() * 5
    for order in (0, 2):
        seen = np.concatenate(class_portions(10, 3, order)[:2])
        shown: list[tuple[int, int]] = []
        for x, targets, labels in kept.epoch(0, seen):
            assert targets is None
            index = NORMALISER.decode(x + 1e-4).amax((1, 2, 3)) // 5
            shown += [(int(i), int(seen[place])) for i, place in zip(index, labels, strict=True)]
        expected = [(i, int(kept.labels[i])) for i in range(20) if int(kept.labels[i]) in seen]
        assert sorted(shown) == expected


def test_soft_labels_are_what_the_observers_say_of_the_view_cut_to_the_classes_seen(place: Path) -> None:
    kept = memory()
    for order, step in ((0, 0), (5, 1), (5, 2)):
        seen = np.concatenate(class_portions(10, 3, order)[: step + 1])
        for x, targets, labels in kept.epoch(1, seen):
            said = ensemble(all_logits(kept.observers, x), kept.choices).float()
            assert targets is not None
            assert targets.shape == (len(x), len(seen))
            assert torch.equal(targets, said[:, seen])
            assert int(labels.max()) < len(seen)


def test_fixed_labels_are_those_the_relabel_stage_stored(place: Path) -> None:
    kept = memory(regime="static")
    stored = torch.from_numpy(np.load("results/relabel/labels/static.npy")).float()
    assert torch.equal(kept.static, stored)
    kept.images = torch.arange(20, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8).contiguous() * 5
    seen = np.array([8, 1, 3])
    for x, targets, _ in kept.epoch(0, seen):
        index = (NORMALISER.decode(x + 1e-4).amax((1, 2, 3)) // 5).long()
        assert targets is not None
        assert torch.equal(targets, stored[index][:, seen])


def test_hard_labels_need_no_observer(place: Path) -> None:
    shutil.rmtree("results/pretrain")
    assert memory(regime="hard").observers == []
    with pytest.raises(EdcError, match="results/pretrain/observer"):
        memory()


def test_a_single_image_is_shown_twice(place: Path) -> None:
    """Batch norm on a 1 x 1 map cannot work with one."""
    kept = memory(regime="hard")
    only = torch.arange(0, 20, 2)
    kept.images, kept.labels = kept.images[only], kept.labels[only]
    ((x, _, labels),) = kept.epoch(0, np.array([4]))
    assert (len(x), labels.tolist()) == (2, [0, 0])


def test_the_ceiling_sees_the_real_images_of_the_classes_seen(place: Path) -> None:
    real = Real(lab.job("continual", **SMALL | lab.FULL), NORMALISER)
    seen = np.array([9, 2, 5])
    batches = list(real.epoch(0, seen))
    assert sum(len(x) for x, _, _ in batches) == 3 * 15  # 20 a class, a quarter held out
    found = torch.cat([labels for _, _, labels in batches])
    assert torch.bincount(found).tolist() == [15, 15, 15]
    assert all(targets is None for _, targets, _ in batches)


def test_labels_that_came_with_a_set_are_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lab.PLAN["relabel"]["labels"], "source", "imported")
    with pytest.raises(EdcError, match="those labels are imported; only observers can label the images anew") as caught:
        memory()
    assert str(caught.value).startswith("continual.row.labels = 'labels': ")
    assert "\n" not in str(caught.value)


# How it is judged


class Says(nn.Module):
    """Answers every image with the place its grey names."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        place = NORMALISER.decode(x + 1e-4).flatten(1)[:, 0].long()
        return nn.functional.one_hot(place, self.outputs).float()


def test_accuracy_of_portions_and_of_all_seen() -> None:
    """Classes 3, 1 | 0 are seen, 2 is still to come; places are 3 -> 0, 1 -> 1, 0 -> 2."""
    answers = [(3, 0), (3, 0), (3, 1), (1, 1), (1, 0), (1, 2), (1, 1), (0, 2), (0, 0), (2, 0)]
    labels = torch.tensor([label for label, _ in answers])
    images = torch.tensor([place for _, place in answers], dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8)
    data = Dataset.model_validate(lab.DATA | {"classes": 4})
    feed = Feed(ImageSet(images.contiguous(), labels, tuple("abcd")), data, NORMALISER, "cpu")
    student = type("S", (), {"model": Says(3), "average": None})()
    found = accuracies(student, feed, 4, [np.array([3, 1]), np.array([0])])
    assert found == {0: pytest.approx(100 * 4 / 7), 1: pytest.approx(50.0), ALL: pytest.approx(100 * 5 / 9)}


def history(order: int, seed: int, matrix: list[list[float]]) -> list[list[Any]]:
    """Lines of one run; the last value of every step is the accuracy on all classes."""
    lines: list[list[Any]] = []
    for step, values in enumerate(matrix):
        for portion, value in enumerate(values):
            lines.append([order, seed, step, 2 * step + 2, ALL if portion == len(values) - 1 else portion, value])
    return lines


def test_average_and_forgetting_by_hand() -> None:
    one = history(0, 0, [[90, 90], [70, 80, 75], [60, 85, 40, 62]])
    # average (90 + 75 + 62) / 3; forgetting ((90 - 60) + (80 - 85)) / 2
    found = summary(one, 3)
    assert found["classes"] == [2, 4, 6]
    assert found["accuracy_mean"] == [90, 75, 62]
    assert found["accuracy_std"] == [None, None, None]
    assert (found["average_mean"], found["average_std"]) == (pytest.approx(227 / 3), None)
    assert (found["forgetting_mean"], found["forgetting_std"]) == (pytest.approx(12.5), None)
    two = one + history(1, 0, [[80, 80], [80, 60, 70], [90, 70, 80, 80]])
    # average 230 / 3; forgetting ((80 - 90) + (60 - 70)) / 2 = -10
    found = summary(two, 3)
    assert found["accuracy_mean"] == [85, 72.5, 71]
    assert found["accuracy_std"] == pytest.approx([50**0.5, 12.5**0.5, 162**0.5])
    assert (found["average_mean"], found["average_std"]) == (pytest.approx(457 / 6), pytest.approx(0.5**0.5))
    assert (found["forgetting_mean"], found["forgetting_std"]) == (1.25, pytest.approx(22.5 / 2**0.5))


def test_two_steps_forget_what_the_second_lost() -> None:
    found = summary(history(0, 0, [[95, 95], [80, 99, 90]]), 2)
    assert found["forgetting_mean"] == 15


# The stage


@pytest.mark.parametrize("regime", ["soft", "static", "hard"])
def test_the_stage_is_the_same_again(place: Path, regime: str) -> None:
    row = {"steps": 3, "orders": [0, 4], "regime": regime, "student": "convnet_d1"}
    first = lab.run("continual", **row)
    assert set(first) == {"history.csv", "curves.png", "manifest.json"}
    shutil.rmtree("results/continual")
    assert lab.run("continual", **row) == first
    lines = table()
    # 2 orders, 2 seeds, after 3 steps on 1, 2 and 3 portions and on all
    assert len(lines) == 2 * 2 * (2 + 3 + 4)
    assert {(line["step"], line["classes"]) for line in lines} == {("0", "4"), ("1", "7"), ("2", "10")}
    scores = lab.scores(first)
    last = [float(line["accuracy"]) for line in lines if (line["step"], line["portion"]) == ("2", "all")]
    assert scores["accuracy_mean"][-1] == pytest.approx(np.mean(last), rel=1e-5)
    assert scores["accuracy_std"][-1] == pytest.approx(np.std(last, ddof=1), rel=1e-4, abs=1e-6)
    assert len(set(last)) > 1


def test_seeds_and_orders_do_not_know_of_each_other(place: Path) -> None:
    lab.run("continual", steps=2, orders=[0, 3])
    together = [line for line in table() if (line["order"], line["seed"]) == ("3", "1")]
    shutil.rmtree("results/continual")
    lab.run("continual", steps=2, orders=[3], seeds=[1])
    assert table() == together


def test_what_is_kept_of_labels_and_images(place: Path) -> None:
    sizes = {}
    for regime in ("soft", "static", "hard"):
        found = lab.run("continual", steps=2, orders=[0], seeds=[0], regime=regime)
        manifest = json.loads(found["manifest.json"])
        sizes[regime] = (manifest["image_bytes"], manifest["label_bytes"])
    # 20 images of 64 bytes; fp16 logits of 10 classes, for 3 epochs or once; a byte for a class
    assert sizes == {"soft": (1280, 1200), "static": (1280, 400), "hard": (1280, 20)}


class KilledError(Exception):
    pass


def killed_after(saves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    save: Callable[..., None] = Checkpoint.save
    count = iter(range(saves - 1))

    def dying(self: Checkpoint, state: Any) -> None:
        save(self, state)
        if next(count, None) is None:
            raise KilledError

    monkeypatch.setenv("EDC_CHECKPOINT_SECONDS", "0")
    monkeypatch.setattr(Checkpoint, "save", dying)


@pytest.mark.parametrize(("saves", "full"), [(1, False), (4, False), (7, False), (16, False), (6, True)])
def test_an_interrupted_run_ends_the_same(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], saves: int, full: bool
) -> None:
    """Two orders of two steps of three epochs: 16 checkpoints, the last when only the files are to be written."""
    row: dict[str, Any] = {"steps": 2, "orders": [0, 1]} | (lab.FULL | {"epochs": 3} if full else {})
    expected = lab.run("continual", **row)
    shutil.rmtree("results/continual")
    with monkeypatch.context() as patch:
        killed_after(saves, patch)
        with pytest.raises(KilledError):
            lab.run("continual", **row)
    assert not Path("results/continual/row/manifest.json").exists()
    capsys.readouterr()
    assert lab.run("continual", **row) == expected
    assert "continual row goes on from its checkpoint" in capsys.readouterr().err
    assert not list(Path(".edc/checkpoints/continual").iterdir())


def test_students_are_fresh_in_every_step(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int]] = []
    fresh = continual.fresh

    def watched(job: Any, seed: int, classes: int, device: torch.device) -> Student:
        made.append((seed, classes))
        return fresh(job, seed, classes, device)

    monkeypatch.setattr(continual, "fresh", watched)
    lab.run("continual", steps=3, orders=[0])
    assert made == [(0, 4), (1, 4), (0, 7), (1, 7), (0, 10), (1, 10)]
