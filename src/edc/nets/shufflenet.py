"""ShuffleNetV2 x0.5 for small images (Ma et al., ECCV 2018, arXiv 1807.11164).

Table 5 of the paper at x0.5, but with a 1x1 stem of stride 1 and no max-pooling, as the small-image networks of the
distillation literature have it (Tian et al., Contrastive Representation Distillation, ICLR 2020, arXiv 1910.10699).
Initialisation: PyTorch's defaults.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edc.nets.blocks import conv_norm


def _branch(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """1x1, 3x3 depthwise, 1x1: no ReLU after the depthwise convolution."""
    return nn.Sequential(
        *conv_norm(inputs, outputs, 1),
        nn.ReLU(),
        *conv_norm(outputs, outputs, 3, stride=stride, groups=outputs),
        *conv_norm(outputs, outputs, 1),
        nn.ReLU(),
    )


class BasicUnit(nn.Module):
    """Half of the channels pass, the other half goes through the branch: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = _branch(width // 2, width // 2, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        passing, rest = x.chunk(2, dim=1)
        return F.channel_shuffle(torch.cat((passing, self.branch(rest)), dim=1), 2)


class DownUnit(nn.Module):
    """Both branches see all channels and halve the map: (B, inputs, H, W) -> (B, outputs, H/2, W/2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.left = nn.Sequential(
            *conv_norm(inputs, inputs, 3, stride=2, groups=inputs), *conv_norm(inputs, outputs // 2, 1), nn.ReLU()
        )
        self.right = _branch(inputs, outputs // 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return F.channel_shuffle(torch.cat((self.left(x), self.right(x)), dim=1), 2)


class ShuffleNetV2(nn.Module):
    """1x1 stem, three stages, 1x1 head, linear layer: (B, channels, H, W) -> (B, classes)."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        inputs, head = 24, 1024
        self.stem = nn.Sequential(*conv_norm(channels, inputs, 1), nn.ReLU())
        stages: list[nn.Module] = []
        for width, depth in ((48, 3), (96, 7), (192, 3)):
            stages.append(nn.Sequential(DownUnit(inputs, width), *(BasicUnit(width) for _ in range(depth))))
            inputs = width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(*conv_norm(inputs, head, 1), nn.ReLU())
        self.fc = nn.Linear(head, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.stages(self.stem(x)))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def shufflenet_v2_05(classes: int, image_size: int = 32, channels: int = 3) -> ShuffleNetV2:
    """ShuffleNetV2 x0.5, 0.35 M parameters at 10 classes. Any `image_size` will do."""
    return ShuffleNetV2(classes, channels)
