"""Residual networks for small images (He et al., Deep Residual Learning, CVPR 2016, arXiv 1512.03385).

The ImageNet layout with the stem of section 4.2 (CIFAR-10): a 3x3 convolution of stride 1 and no max-pooling,
so that a 32 px image keeps its resolution through the first stage. Four stages of 64, 128, 256, 512 channels
(times 4 at the output of a bottleneck), of strides 1, 2, 2, 2; projection shortcuts where the shape changes.
In a bottleneck the 3x3 convolution carries the stride.

Initialisation: convolutions Kaiming normal, fan-out (He et al. 2015, arXiv 1502.01852), the rest as PyTorch does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from edc.nets.blocks import conv_norm, initialise_convolutions


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """The identity where shapes agree, else a strided 1x1 projection."""
    same = stride == 1 and inputs == outputs
    return nn.Sequential() if same else nn.Sequential(*conv_norm(inputs, outputs, 1, stride))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, stride s: (B, inputs, H, W) -> (B, width, H/s, W/s)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_norm(inputs, width, 3, stride)
        self.conv2, self.bn2 = conv_norm(width, width, 3)
        self.shortcut = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut, stride s: (B, inputs, H, W) -> (B, 4 width, H/s, W/s)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = self.expansion * width
        self.conv1, self.bn1 = conv_norm(inputs, width, 1)
        self.conv2, self.bn2 = conv_norm(width, width, 3, stride)
        self.conv3, self.bn3 = conv_norm(width, outputs, 1)
        self.shortcut = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """Stem, four stages, global average pooling, linear layer: (B, channels, H, W) -> (B, classes)."""

    def __init__(
        self, block: type[BasicBlock] | type[Bottleneck], depths: Sequence[int], classes: int, channels: int
    ) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_norm(channels, 64, 3)
        inputs = 64
        stages: list[nn.Sequential] = []
        for depth, width, stride in zip(depths, (64, 128, 256, 512), (1, 2, 2, 2), strict=True):
            blocks: list[nn.Module] = []
            for index in range(depth):
                blocks.append(block(inputs, width, stride if index == 0 else 1))
                inputs = block.expansion * width
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(inputs, classes)
        initialise_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def resnet18(classes: int, image_size: int = 32, channels: int = 3) -> ResNet:
    """ResNet-18, 11.17 M parameters at 10 classes. Any `image_size` will do."""
    return ResNet(BasicBlock, (2, 2, 2, 2), classes, channels)


def resnet50(classes: int, image_size: int = 32, channels: int = 3) -> ResNet:
    """ResNet-50, 23.5 M parameters at 10 classes. Any `image_size` will do."""
    return ResNet(Bottleneck, (3, 4, 6, 3), classes, channels)


def resnet101(classes: int, image_size: int = 32, channels: int = 3) -> ResNet:
    """ResNet-101, 42.5 M parameters at 10 classes. Any `image_size` will do."""
    return ResNet(Bottleneck, (3, 4, 23, 3), classes, channels)
