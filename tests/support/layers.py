"""A small network with all kinds of layers that are looked at, and what its tests compare."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from edc.condense.class_sums import ClassSums
from edc.condense.layer_statistics import StatisticsCollector


def close(result: Tensor, expected: Any, **tolerance: float) -> None:
    torch.testing.assert_close(result, torch.as_tensor(expected, dtype=result.dtype), **tolerance)


def random_normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small_network(seed: int = 0, channels: int = 3) -> nn.Module:
    """Convolutions and batch norms of several widths, with running statistics that are not the defaults."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(channels, 5, 3, padding=1),
            nn.BatchNorm2d(5),
            nn.ReLU(),
            nn.Conv2d(5, 4, 3, stride=2, bias=False),  # an odd map that has to be resized
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.Conv2d(4, 6, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.BatchNorm2d(6),
            nn.Conv2d(6, 3, 1),  # a 1 x 1 map
            nn.Flatten(),
        )
        network(torch.randn(16, channels, 8, 8))
    return network.eval()


def random_targets(collector: StatisticsCollector, classes: int, seed: int = 7) -> tuple[Tensor, Tensor]:
    return random_normal(collector.size, seed=seed).abs(), random_normal(classes, collector.size, seed=seed + 1).abs()


def class_sums(collector: StatisticsCollector, batches: Iterable[tuple[Tensor, Tensor]], classes: int) -> ClassSums:
    """Over batches of images and labels."""
    sums = ClassSums(collector.layout, classes, torch.device("cpu"))
    for x, labels in batches:
        sums.add(*collector.moments(x), labels)
    return sums


def relative_difference(result: Tensor, expected: Tensor) -> float:
    return float((result.double() - expected).norm() / expected.norm())
