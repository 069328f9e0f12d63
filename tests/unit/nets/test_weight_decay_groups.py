"""Which parameters decay."""

import torch
from support import golden
from torch import nn

from edc import nets

GOLDEN = golden("edc")["weight_decay_groups"]


def names(model: nn.Module, group: dict) -> list[str]:
    of = {id(parameter): name for name, parameter in model.named_parameters()}
    return [of[id(parameter)] for parameter in group["params"]]


def test_golden() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=True), nn.BatchNorm2d(4), nn.Linear(4, 2, bias=True))
    decay, rest = nets.weight_decay_groups(model, 5e-4)
    assert names(model, decay) == GOLDEN["decay"]
    assert names(model, rest) == GOLDEN["no_decay"]
    assert (decay["weight_decay"], rest["weight_decay"]) == (5e-4, 0.0)
    torch.optim.AdamW([decay, rest], lr=1e-3)


def test_frozen_parameters_are_left_out() -> None:
    model = nets.build("convnet_w32", classes=10, image_size=8)
    model.classifier.weight.requires_grad_(False)
    decay, rest = nets.weight_decay_groups(model, 1e-2)
    assert len(decay["params"]) == 3
    assert len(rest["params"]) == 3 * 3 + 1
