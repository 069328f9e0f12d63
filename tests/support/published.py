"""The numbers published code computes from small inputs, given to tests group by group."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from support import golden

LOSS = {"rtol": 0, "atol": 2e-6}
"""Of losses and gradients, sums of many float32 values."""


def find(path: str) -> Any:
    """A group: ``edc.KEY`` of EDC's code, ``SECTION.KEY`` of the baselines'."""
    section, key = path.split(".", 1)
    return golden("edc")[key] if section == "edc" else golden("baselines")[section][key]


def checks(*paths: str) -> pytest.MarkDecorator:
    """Give a test these groups one by one, as ``case``."""
    return pytest.mark.parametrize("case", [pytest.param(find(path), id=path) for path in paths])


def close(result: Tensor | float, expected: Any, rtol: float = 0, atol: float = 1e-6) -> None:
    result = torch.as_tensor(result)
    torch.testing.assert_close(result, torch.as_tensor(expected, dtype=result.dtype), rtol=rtol, atol=atol)


def counted(*shape: int) -> Tensor:
    return torch.arange(math.prod(shape), dtype=torch.float32).view(shape)


def bn(mean: list[float], variance: list[float]) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(len(mean)).eval()
    layer.running_mean.copy_(torch.tensor(mean))
    layer.running_var.copy_(torch.tensor(variance))
    return layer


class ChannelMeans(nn.Module):
    """Four times the mean of every channel."""

    def forward(self, x: Tensor) -> Tensor:
        return 4 * x.mean(dim=(2, 3))
