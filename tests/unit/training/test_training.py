"""Parts of training: schedules, optimisers, averaged weights, losses, evaluation and scores."""

import math
import statistics
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rows import dataset
from torch import nn

from edc.config.choices import Optimiser, Schedule
from edc.config.protocol import Loss
from edc.config.registry import SCHEDULE
from edc.data.augment import Normaliser
from edc.data.feed import Feed
from edc.data.images import ImageSet
from edc.nets import build, weight_decay_groups
from edc.training.evaluation import accuracy, accuracy_scores, validation_epochs
from edc.training.label_store import label_bytes
from edc.training.optimisers import make_optimiser
from edc.training.schedules import alrs, multiplier
from edc.training.sources import soft_targets
from edc.training.students import WeightAverage


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 3)
        )


def test_default_loss_is_the_papers() -> None:
    assert Loss() == Loss(name="mse_ce", ce_weight=0.025, temperature=20.0)


def test_golden_averaged_weights(golden: dict[str, Any]) -> None:
    """The averaged weights are evaluated with the running statistics of the live network."""
    case = golden["model_ema"]
    model = nn.BatchNorm2d(1)
    assert model.weight.item() == case["init_weight"]
    average = WeightAverage(model, case["rate"])
    for step, (weight, expected) in enumerate(
        zip(case["weights_after_each_step"], case["ema_weight_after_each"], strict=True), 2
    ):
        model.weight.data.fill_(weight)
        model.running_mean.fill_(10.0 * step)
        average.update()
        assert average.shadow[0].item() == pytest.approx(expected, abs=1e-6)
    with average.swapped():
        assert model.weight.item() == pytest.approx(case["after_swap_live_weight"], abs=1e-6)
        assert model.running_mean.item() == case["after_swap_live_bn_running_mean"]
    assert model.weight.item() == case["weights_after_each_step"][-1]
    assert average.shadow[0].item() == pytest.approx(case["ema_weight_after_each"][-1], abs=1e-6)


def test_weights_are_swapped_back_after_an_error() -> None:
    model = network()
    average = WeightAverage(model, 0.9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    before = [tensor.clone() for tensor in (*model.parameters(), *average.shadow)]
    with pytest.raises(KeyError), average.swapped():
        raise KeyError
    assert all(map(torch.equal, (*model.parameters(), *average.shadow), before))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_only_weights_of_convolutions_and_linear_layers_decay(name: str) -> None:
    model = network()
    optimiser = make_optimiser(model, Optimiser(name=name, lr=0.1, momentum=0.9, betas=(0.8, 0.95), weight_decay=0.5))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    for name, parameter in model.named_parameters():
        decay = 0.5 if name in ("0.weight", "4.weight") else 0.0
        torch.testing.assert_close(parameter.detach(), before[name] - 0.1 * (1 + decay * before[name]))
    for group in optimiser.param_groups:
        assert group.get("momentum", 0.9) == 0.9
        assert group.get("betas", (0.8, 0.95)) == (0.8, 0.95)


@pytest.mark.parametrize("batch", [1, 3, 7, 500])
def test_accuracy_in_percent_whatever_the_batch(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edc.nets.passes.IMAGES", batch)
    normaliser = Normaliser((0.5,), (0.25,))
    images = torch.randint(0, 256, (7, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    model = build("convnet_w32", classes=3, image_size=8, channels=1, seed=0).train()
    labels = torch.stack([model.eval()(normaliser.encode(image[None]))[0].argmax() for image in images])
    model.train()

    def percent(truth: torch.Tensor) -> float:
        return accuracy(model, Feed(ImageSet(images, truth, tuple("abc")), dataset(channels=1), normaliser, "cpu"))

    assert percent(labels) == 100.0
    assert not model.training
    wrong = labels.clone()
    wrong[:3] = (wrong[:3] + 1) % 3
    assert percent(wrong) == pytest.approx(100 * 4 / 7)
    assert percent((labels + 1) % 3) == 0.0


@given(st.one_of(st.integers(1, 30), st.integers(1, 1000)), st.integers(1, 40))
@settings(max_examples=200, deadline=None)
def test_evaluated_epochs_are_evenly_spread_and_end_with_the_last(epochs: int, count: int) -> None:
    evaluated = sorted(validation_epochs(epochs, count))
    assert evaluated[-1] == epochs - 1
    assert len(evaluated) == min(epochs, count)
    gaps = np.diff([-1, *evaluated])
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(
    ("epochs", "count", "evaluated"),
    [(300, 10, [29, 59, 89, 119, 149, 179, 209, 239, 269, 299]), (10, 3, [3, 6, 9]), (5, 1, [4]), (3, 10, [0, 1, 2])],
)
def test_evaluated_epochs(epochs: int, count: int, evaluated: list[int]) -> None:
    assert sorted(validation_epochs(epochs, count)) == evaluated


@given(st.integers(1, 500), st.integers(1, 500), st.integers(2, 1000))
@settings(max_examples=100, deadline=None)
def test_label_bytes(epochs: int, images: int, classes: int) -> None:
    shape = [epochs, images, classes]
    assert label_bytes("soft", shape) == 2 * epochs * images * classes
    assert label_bytes("static", shape) == 2 * images * classes
    # A class index in the fewest whole bytes.
    assert label_bytes("hard", shape) == images * max(1, math.ceil((classes - 1).bit_length() / 8))
    assert [label_bytes("hard", [1, 1, k]) for k in (2, 256, 257, 65536, 65537)] == [1, 1, 2, 2, 3]


def test_soft_targets_of_every_regime() -> None:
    stored = np.arange(2 * 3 * 4, dtype=np.float16).reshape(2, 3, 4)
    cpu = torch.device("cpu")
    for targets, regime, expected in ((stored, "soft", stored[1]), (stored[0], "static", stored[0])):
        result = soft_targets(targets, regime, 1, cpu)
        assert result is not None
        assert result.dtype == torch.float16
        assert torch.equal(result, torch.from_numpy(expected))
    assert soft_targets(stored, "hard", 1, cpu) is None


def test_scores_of_several_seeds() -> None:
    scores = accuracy_scores([[70.0, 60.0], [50.0, 55.0], [80.0, 62.0]])
    assert scores["final"] == [60.0, 55.0, 62.0]
    assert scores["best"] == [70.0, 55.0, 80.0]
    for name in ("final", "best"):
        assert scores[f"{name}_mean"] == pytest.approx(np.mean(scores[name]))
        assert scores[f"{name}_std"] == pytest.approx(statistics.stdev(scores[name]))
    one = accuracy_scores([[10.0, 12.5]])
    assert (one["final_mean"], one["final_std"], one["best_std"]) == (12.5, None, None)


def test_golden_groups_that_decay(golden: dict[str, Any]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=True), nn.BatchNorm2d(4), nn.Linear(4, 2, bias=True))
    of = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = weight_decay_groups(model, 5e-4)
    for group, key, weight_decay in zip(groups, ("decay", "no_decay"), (5e-4, 0.0), strict=True):
        assert [of[id(parameter)] for parameter in group["params"]] == golden["weight_decay_groups"][key]
        assert group["weight_decay"] == weight_decay


def test_frozen_parameters_are_left_out() -> None:
    model = build("convnet_w32", classes=10, image_size=8)
    model.classifier.weight.requires_grad_(False)
    assert [len(group["params"]) for group in weight_decay_groups(model, 1e-2)] == [3, 3 * 3 + 1]


def test_alrs_survives_a_loss_of_zero() -> None:
    """Cross-entropy of a memorised set becomes exactly 0 in float32."""
    assert 0 < alrs([1.0, 0.0, 0.0, 0.0]) <= 1


@given(st.sampled_from(sorted(SCHEDULE)), st.floats(1, 4), st.integers(1, 400), st.floats(0, 1), st.floats(0.01, 10))
@settings(max_examples=100, deadline=None)
def test_factors_start_at_one_and_only_fall(name: str, zeta: float, epochs: int, at: float, loss: float) -> None:
    schedule = Schedule(name=name, zeta=zeta)
    epoch = int(at * (epochs - 1))
    losses = [loss] * epochs
    now, then = (multiplier(schedule, e, epochs, losses[:e]) for e in (epoch, epoch + 1))
    assert multiplier(schedule, 0, epochs) == 1
    assert 0 <= now <= 1
    if epoch + 1 < epochs:
        assert then <= now


@pytest.mark.parametrize("epochs", [100, 200, 1000])
def test_milestones_are_shares_of_the_epochs(epochs: int) -> None:
    schedule = Schedule(name="multistep", milestones=[0.07, 0.14, 0.29, 0.55], factor=0.1)
    assert 0.55 * 100 > 55  # shares of whole epochs need not be whole in binary
    for count, share in enumerate(schedule.milestones, 1):
        epoch = round(share * epochs)
        assert multiplier(schedule, epoch - 1, epochs) == pytest.approx(0.1 ** (count - 1))
        assert multiplier(schedule, epoch, epochs) == pytest.approx(0.1**count)
