"""Wide residual networks (Zagoruyko and Komodakis, BMVC 2016, arXiv 1605.07146).

WRN-d-k: a 3x3 stem of 16 channels, three stages of (d - 4) / 6 pre-activation blocks with 16k, 32k, 64k channels and
strides 1, 2, 2, a last normalisation, global average pooling. Where a block changes the shape, the 1x1 shortcut sees
the normalised and rectified input, as in the authors' code. No dropout. Initialisation: convolutions Kaiming normal,
fan-out (the paper cites He et al. 2015); bias of the linear layer 0.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from edc.nets.blocks import initialise_convolutions


class PreActivationBlock(nn.Module):
    """Two (norm, ReLU, 3x3 conv) and a shortcut, stride s: (B, inputs, H, W) -> (B, outputs, H/s, W/s)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        skip = x if self.shortcut is None else self.shortcut(active)
        return skip + self.conv2(F.relu(self.bn2(self.conv1(active))))


class WideResNet(nn.Module):
    """Stem, three stages, normalisation, linear layer: (B, channels, H, W) -> (B, classes)."""

    def __init__(self, depth: int, widen: int, classes: int, channels: int) -> None:
        super().__init__()
        blocks_per_stage, rest = divmod(depth - 4, 6)
        assert rest == 0, "depth is 6n + 4"
        inputs = 16
        self.conv1 = nn.Conv2d(channels, inputs, 3, padding=1, bias=False)
        blocks: list[nn.Module] = []
        for outputs, first_stride in ((16 * widen, 1), (32 * widen, 2), (64 * widen, 2)):
            for index in range(blocks_per_stage):
                blocks.append(PreActivationBlock(inputs, outputs, first_stride if index == 0 else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(inputs)
        self.fc = nn.Linear(inputs, classes)
        initialise_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.blocks(self.conv1(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def wrn_16_2(classes: int, image_size: int = 32, channels: int = 3) -> WideResNet:
    """WRN-16-2, 0.69 M parameters at 10 classes. Any `image_size` will do."""
    return WideResNet(16, 2, classes, channels)
