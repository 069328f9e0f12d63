"""Soft labels: mean logits of the observers on the views students will see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edc.data.augment import Normaliser
from edc.data.replay import Replay
from edc.errors import EdcError
from edc.stages.context import Job
from edc.nets import build
from edc.config.rows import Plan, RelabelRow
from edc.stages.relabel import all_logits, ensemble, label_epochs, measure

NORMALISER = Normaliser((0.5,) * 3, (0.25,) * 3)


def row(**choices: Any) -> RelabelRow:
    values = {"dataset": "d", "images": "i", "observers": ["o"], "flip": True, "epochs": 5, "batch": 4}
    return RelabelRow.model_validate({**values, **choices})


def observers(count: int = 2) -> list[nn.Module]:
    return [build("convnet_w32", classes=3, image_size=8, seed=seed).eval() for seed in range(count)]


def images(n: int = 10) -> Tensor:
    return torch.randint(0, 256, (n, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def mean_logits(nets: list[nn.Module], x: Tensor) -> Tensor:
    return ensemble(all_logits(nets, x), row())


def test_golden_mean_logits(golden: dict[str, Any]) -> None:
    case = golden["soft_label_and_loss"]
    teachers = []
    for logits in case["teacher_logits(3 teachers,2 samples,4 classes)"]:
        teacher = nn.Linear(2, 4, bias=False)  # image i of two is the i-th unit vector
        teacher.weight.data = torch.tensor(logits).T.contiguous()
        teachers.append(teacher)
    found = mean_logits(teachers, torch.eye(2))
    assert found.dtype == torch.float16
    assert found.tolist() == case["as_fp16"]
    torch.testing.assert_close(found.float(), torch.tensor(case["mean_logits"]), rtol=0, atol=1e-3)


@pytest.mark.parametrize("forward", [1, 4, 7, 25, 500])
def test_labels_are_those_of_the_views(forward: int) -> None:
    """However images are gathered into forward passes, each gets the label of its own view of its own epoch."""
    replay, nets = Replay(images(), row(), NORMALISER), observers()
    logits = np.full((5, 10, 3), np.nan, dtype=np.float16)
    label_epochs(logits, replay, range(1, 4), row(), nets, forward)
    assert np.isnan(logits[[0, 4]]).all()
    for epoch in range(1, 4):
        for index, x in replay.epoch(epoch, 3):  # another batch than the one they were labelled in
            expected = mean_logits(nets, x).numpy()
            np.testing.assert_allclose(logits[epoch, index.numpy()], expected, rtol=2e-3, atol=1e-3)


def test_norms_are_equalised_within_the_batch_of_the_labels() -> None:
    """Not within the forward pass, which may gather several of them."""
    replay, nets = Replay(images(), row(ensemble="norm"), NORMALISER), observers()
    nets[1].load_state_dict({name: 3 * value for name, value in nets[1].state_dict().items()})
    logits, single = (np.zeros((5, 10, 3), dtype=np.float16) for _ in range(2))
    label_epochs(logits, replay, range(2), row(ensemble="norm"), nets, 500)
    label_epochs(single, replay, range(2), row(ensemble="norm"), nets, 1)
    np.testing.assert_allclose(logits, single, rtol=2e-3, atol=2e-3)
    plain = np.zeros_like(logits)
    label_epochs(plain, replay, range(2), row(), nets, 500)
    assert np.abs(plain[:2] - logits[:2]).max() > 0.01


def test_blocks_can_be_labelled_apart() -> None:
    replay, nets = Replay(images(), row(), NORMALISER), observers()
    whole, parts = (np.zeros((5, 10, 3), dtype=np.float16) for _ in range(2))
    for epochs in (range(2), range(2, 4), range(4, 5)):
        label_epochs(whole, replay, epochs, row(), nets, 500)
    for epochs in (range(2, 4), range(4, 5), range(2)):
        label_epochs(parts, replay, epochs, row(), nets, 500)
    assert np.array_equal(whole, parts)
    assert len(np.unique(whole.reshape(5, -1), axis=0)) == 5


def test_labelling_asks_for_no_gradient() -> None:
    nets = observers()
    assert not mean_logits(nets, NORMALISER.encode(images())).requires_grad
    assert all(parameter.grad is None for net in nets for parameter in net.parameters())


# ------------------------------------------------------------------------------------------ sanity of observers


def job(min_accuracy: float | None, val_fraction: float = 0.1) -> Job:
    dataset = {
        "name": "digits",
        "family": "digits",
        "kind": "digits",
        "image_size": 8,
        "channels": 1,
        "classes": 10,
        "mean": [0.3],
        "std": [0.35],
        "val": holdout,
        "train_per_class": 20,
    }
    labels = row(dataset="digits", images="images", min_accuracy=min_accuracy).model_dump()
    plan = Plan.model_validate({"study": "test", "datasets": {"digits": dataset}, "relabel": {"labels": labels}})
    return Job("relabel", "labels", plan, "cpu")


def centroids(work: Job, order: Tensor) -> nn.Module:
    """A linear network that knows the digits by their means; its outputs stand in the given order of classes."""
    train, normaliser = work.load("train"), Normaliser((0.3,), (0.35,))
    x = normaliser.encode(train.images).flatten(1)
    means = torch.stack([x[train.labels == c].mean(0) for c in range(10)])[order]
    layer = nn.Linear(64, 10)
    layer.weight.data, layer.bias.data = 2 * means, -(means**2).sum(1)
    return nn.Sequential(nn.Flatten(), layer).eval()


@pytest.mark.parametrize("val", [0.1, 0.0])
def test_a_good_observer_passes(val_fraction: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    work = job(0.5, holdout)
    found = measure(work, {"digits-linear": centroids(work, torch.arange(10))}, Normaliser((0.3,), (0.35,)))
    assert 60 < found["digits-linear"] <= 100


def test_an_observer_with_its_classes_in_another_order_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    work = job(0.2)
    mixed = centroids(work, (torch.arange(10) + 1) % 10)
    with pytest.raises(EdcError, match=r"observer digits-linear is right on .* at least 20\.0 % was expected") as error:
        measure(work, {"digits-linear": mixed}, Normaliser((0.3,), (0.35,)))
    assert "relabel.labels.min_accuracy" in str(error.value)
    assert "\n" not in str(error.value)


def test_without_a_limit_twice_chance_is_expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan may say null: the limit is then twice chance, 20 % of ten classes."""
    monkeypatch.chdir(tmp_path)
    work = job(None)
    normaliser = Normaliser((0.3,), (0.35,))
    measure(work, {"good": centroids(work, torch.arange(10))}, normaliser)
    with pytest.raises(EdcError, match=r"at least 20\.0 % was expected"):
        measure(work, {"mixed": centroids(work, (torch.arange(10) + 1) % 10)}, normaliser)
