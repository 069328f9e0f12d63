"""Training parts: optimisers, averaged weights, losses, accuracy."""

from typing import Any

import pytest
import torch
from support.rows import dataset
from torch import nn

from edc.config.choices import Loss, Optimiser
from edc.data.augment import Normaliser
from edc.data.feed import Feed
from edc.data.images import ImageSet
from edc.nets import build
from edc.training.evaluation import accuracy
from edc.training.optimisers import make_optimiser, set_rate
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


def test_rate_reaches_every_group() -> None:
    optimiser = make_optimiser(network(), Optimiser(name="adamw", lr=0.1, weight_decay=0.5))
    assert len(optimiser.param_groups) == 2
    set_rate(optimiser, 0.025)
    assert [group["lr"] for group in optimiser.param_groups] == [0.025, 0.025]


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
