"""Network slimming on a condensed set: the penalty, the units of a run, its scores, and interruptions."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support import laboratory as lab
import numpy as np
import pytest
import torch
from torch import nn

from edc.stages import evaluate
from edc.stages import slimming
from edc.errors import EdcError
from edc.nets.slim import scales
from edc.nets.vgg import VGG
from edc.config.rows import Dataset, SlimmingRow
from edc.stages.slimming import summary
from edc.storage import Checkpoint
from edc.training.students import Student

ROW: dict[str, Any] = {
    "student": "vgg11_bn", "sparsity": 0.01, "ratios": [0.2, 0.4], "finetune": 2, "epochs": 3, "ema": None,
}  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, labels and an observer; only to be copied."""
    folder = tmp_path_factory.mktemp("slimming")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("EDC_TRACKING", "off")
        lab.prepare()
    return folder


def small(name: str, classes: int, image_size: int, channels: int, seed: int) -> VGG:
    """VGG-11 with few channels; scales spread so that no layer is emptied."""
    torch.manual_seed(seed)
    model = VGG(classes, image_size, channels, widths=(8, 8, 10, 10, 12, 12, 12, 12))
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.2, 1.5)
    return model


@pytest.fixture
def place(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("EDC_TRACKING", "off")
    monkeypatch.setattr(slimming, "build", small)
    return folder


def table() -> list[dict[str, str]]:
    return list(csv.DictReader(Path("results/slimming/row/history.csv").read_text().splitlines()))


# The penalty


def student(sparsity: float, model: VGG) -> Student:
    row = (
        lab.STUDENT | ROW | {"optimiser": {"name": "sgd", "lr": 0.1, "momentum": 0.0}, "schedule": {"name": "constant"}}
    )
    data = Dataset.model_validate(lab.DATA)
    return Student(0, SlimmingRow.model_validate(row), data, CPU, model=model, sparsity=sparsity)


def test_the_penalty_adds_its_subgradient_to_the_scales_alone() -> None:
    x, y = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(6)
    before, after = [], []
    for sparsity in (0.0, 0.5):
        model = small("", 10, 8, 1, 0)
        bn = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
        bn.weight.data[:3] = torch.tensor([-0.7, 0.0, 0.7])
        one = student(sparsity, model)
        signs = [s.detach().sign().clone() for s in one.scales]
        one.begin_epoch(0)
        one.step(x, None, y)
        (before if not sparsity else after).extend(model.state_dict().values())
    names = list(model.state_dict())
    assert signs[0][:3].tolist() == [-1, 0, 1]
    place = 0
    for name, plain, sparse in zip(names, before, after, strict=True):
        if name.startswith("features") and name.endswith("weight") and plain.dim() == 1:
            # SGD at 0.1: lambda x sign more or less than without
            torch.testing.assert_close(sparse, plain - 0.1 * 0.5 * signs[place])
            place += 1
        else:
            assert torch.equal(plain, sparse), name
    assert place == len(signs) == 8


def test_the_penalty_pulls_scales_to_zero() -> None:
    x, y = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(6)
    norms = {}
    for sparsity in (0.0, 0.05):
        one = student(sparsity, small("", 10, 8, 1, 0))
        for epoch in range(60):
            one.begin_epoch(epoch)
            one.step(x, None, y)
        assert isinstance(one.model, VGG)
        norms[sparsity] = float(torch.cat(scales(one.model)).sum())
    assert norms[0.05] < 0.7 * norms[0.0]


# The stage


def test_units_of_a_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each seed trains the whole network with the penalty, then every smaller one without, on labels from epoch 0."""
    made: list[tuple[int, float, int, int]] = []
    asked: list[int] = []

    class Watched(Student):
        def __init__(self, seed: int, row: Any, *others: Any, **more: Any) -> None:
            super().__init__(seed, row, *others, **more)
            made.append((seed, self.sparsity, row.epochs, sum(map(len, scales(self.model)))))  # type: ignore[arg-type]

    epoch: Callable[..., Any] = evaluate.Condensed.epoch

    def watched(self: Any, number: int) -> Any:
        asked.append(number)
        return epoch(self, number)

    monkeypatch.setattr(slimming, "Student", Watched)
    monkeypatch.setattr(evaluate.Condensed, "epoch", watched)
    files = lab.run("slimming", **ROW | {"ratios": [0.4, 0.0, 0.2, 0.4]})
    assert made == [(s, *unit) for s in (0, 1) for unit in ((0.01, 3, 84), (0.0, 2, 68), (0.0, 2, 51))]
    assert asked == [0, 1, 2, 0, 1, 0, 1] * 2
    assert [(line["seed"], line["ratio"], line["channels"]) for line in table()] == [
        (s, *unit) for s in "01" for unit in (("0", "84"), ("0.2", "68"), ("0.4", "51"))
    ]
    scores = lab.scores(files)
    assert scores["ratios"] == [0.0, 0.2, 0.4]
    for name in ("parameters", "macs"):
        assert scores[f"{name}_mean"] == sorted(scores[f"{name}_mean"], reverse=True)
        assert len(set(scores[f"{name}_mean"])) == 3


@pytest.mark.parametrize("regime", ["soft", "static", "hard"])
def test_the_stage_is_the_same_again(place: Path, regime: str) -> None:
    first = lab.run("slimming", **ROW, regime=regime)
    assert set(first) == {"history.csv", "curves.png", "manifest.json"}
    shutil.rmtree("results/slimming")
    assert lab.run("slimming", **ROW, regime=regime) == first


def test_without_fine_tuning_accuracy_stays_as_cut(place: Path) -> None:
    lab.run("slimming", **ROW | {"finetune": 0})
    for line in table():
        assert line["pruned_accuracy"] == ("" if line["ratio"] == "0" else line["finetuned_accuracy"])


def test_averaged_weights_are_pruned_where_the_protocol_has_them(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    averaged: list[torch.Tensor] = []
    whole: list[list[torch.Tensor]] = []
    slimmed = slimming.slimmed

    def watched(model: VGG, channels: Any) -> VGG:
        whole.append([p.detach().clone() for p in model.parameters()])
        return slimmed(model, channels)

    class Watched(Student):
        def test(self, feed: Any) -> float:
            if self.sparsity and self.average is not None:
                averaged[:] = [shadow.clone() for shadow in self.average.shadow]
            return super().test(feed)

    monkeypatch.setattr(slimming, "slimmed", watched)
    monkeypatch.setattr(slimming, "Student", Watched)
    lab.run("slimming", **ROW | {"ema": 0.5, "seeds": [0], "ratios": [0.2]})
    assert all(map(torch.equal, averaged, whole[0]))


def test_the_whole_dataset_may_be_the_source(place: Path) -> None:
    row = ROW | lab.FULL | {"student": "vgg11_bn", "finetune": 1, "epochs": 1, "seeds": [0]}
    assert lab.scores(lab.run("slimming", **row))["ratios"] == [0.0, 0.2, 0.4]


def test_a_ratio_that_would_remove_a_layer(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused once the whole network is trained, before any smaller one is, and nothing is written."""
    tested: list[float] = []
    monkeypatch.setattr(slimming, "slimmed", lambda *_: tested.append(1.0))
    with pytest.raises(EdcError, match=r"ratio 0.97 would remove every channel of convolution \d; at most 0") as caught:
        lab.run("slimming", **ROW | {"ratios": [0.1, 0.97, 0.2]})
    assert str(caught.value).startswith("slimming.row.ratios: ")
    assert not tested
    assert not Path("results/slimming").exists()


def test_training_that_diverges_is_told(place: Path) -> None:
    """Not as a layer without channels, and nothing is written."""
    fast = {"name": "sgd", "lr": 1e12, "momentum": 0.9}
    with pytest.raises(EdcError, match=r"^slimming\.row: diverged in epoch \d \(loss (nan|inf)\); lower ") as caught:
        lab.run("slimming", **ROW | {"optimiser": fast})
    assert "slimming.row.optimiser.lr" in str(caught.value)
    assert not Path("results/slimming").exists()


class KilledError(Exception):
    pass


@pytest.mark.parametrize(("saves", "ema"), [(1, None), (4, 0.5), (6, 0.5), (9, None), (20, None)])
def test_an_interrupted_run_ends_the_same(
    place: Path, monkeypatch: pytest.MonkeyPatch, saves: int, ema: float | None
) -> None:
    """Two seeds of 3 + 2 + 2 epochs in three units: 20 checkpoints, the last when only the files are to be written."""
    row = ROW | {"ema": ema}
    expected = lab.run("slimming", **row)
    shutil.rmtree("results/slimming")
    save: Callable[..., None] = Checkpoint.save
    count = iter(range(saves - 1))

    def dying(self: Checkpoint, state: Any) -> None:
        save(self, state)
        if next(count, None) is None:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setenv("EDC_CHECKPOINT_SECONDS", "0")
        patch.setattr(Checkpoint, "save", dying)
        with pytest.raises(KilledError):
            lab.run("slimming", **row)
    assert not Path("results/slimming/row/manifest.json").exists()
    assert lab.run("slimming", **row) == expected
    assert not list(Path(".edc/checkpoints/slimming").iterdir())


def test_scores_by_hand() -> None:
    history: list[list[Any]] = [
        [0, 0.0, 100, 1000, 5000, None, 90.0], [0, 0.5, 50, 400, 2000, 20.0, 80.0],
        [1, 0.0, 100, 1000, 5000, None, 94.0], [1, 0.5, 50, 300, 1000, 30.0, 70.0],
    ]  # fmt: skip
    found = summary(history)
    assert found["ratios"] == [0.0, 0.5]
    assert (found["pruned_mean"], found["finetuned_mean"]) == ([92, 25], [92, 75])
    assert found["parameters_mean"] == [1000, 350]
    assert found["macs_mean"] == [5000, 1500]
    assert found["channels_std"] == [0, 0]
    np.testing.assert_allclose(found["finetuned_std"], [8**0.5, 50**0.5])
    np.testing.assert_allclose(found["pruned_std"], [8**0.5, 50**0.5])
    assert summary(history[:2])["finetuned_std"] == [None, None]
