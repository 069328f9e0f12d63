"""MobileNetV2 of half width for small images (Sandler et al., CVPR 2018, arXiv 1801.04381).

Inverted residuals of expansion 6 after table 2 of the paper, all widths but the last halved. It departs from the
paper as the small-image networks of the distillation literature do (Tian et al., Contrastive Representation
Distillation, ICLR 2020, arXiv 1910.10699): ReLU instead of ReLU6, the 24-channel stage has stride 1, and the first
block (expansion 1) has its 1x1 expansion convolution, too.

Initialisation: convolutions Kaiming normal, fan-out (He et al. 2015); linear layer normal with deviation 0.01, bias 0.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from edc.nets.blocks import conv_norm, initialise_convolutions

# Expansion, output channels at full width, number of blocks, stride of the first of them.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class InvertedResidual(nn.Module):
    """Expand (1x1), filter (3x3 depthwise), project (1x1): (B, inputs, H, W) -> (B, outputs, H/s, W/s).

    The shortcut joins the two narrow ends, and only where their shapes agree; s is the stride.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *conv_norm(inputs, hidden, 1),
            nn.ReLU(),
            *conv_norm(hidden, hidden, 3, stride=stride, groups=hidden),
            nn.ReLU(),
            *conv_norm(hidden, outputs, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """Stem of stride 2, 17 inverted residuals, 1x1 head, linear layer: (B, channels, H, W) -> (B, classes)."""

    def __init__(self, classes: int, channels: int, width: float) -> None:
        super().__init__()
        inputs = int(32 * width)
        head = int(1280 * max(1.0, width))  # never narrower than at full width
        self.stem = nn.Sequential(*conv_norm(channels, inputs, 3, stride=2), nn.ReLU())
        blocks: list[nn.Module] = []
        for expansion, outputs, depth, first_stride in STAGES:
            for index in range(depth):
                narrow, stride = int(outputs * width), first_stride if index == 0 else 1
                blocks.append(InvertedResidual(inputs, narrow, stride, expansion))
                inputs = narrow
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(*conv_norm(inputs, head, 1), nn.ReLU())
        self.classifier = nn.Linear(head, classes)
        initialise_convolutions(self)
        nn.init.normal_(self.classifier.weight, 0.0, 0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.blocks(self.stem(x)))
        return self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))


def mobilenet_v2_half(classes: int, image_size: int = 32, channels: int = 3) -> MobileNetV2:
    """MobileNetV2 of width 0.5, 0.70 M parameters at 10 classes. Any `image_size` will do."""
    return MobileNetV2(classes, channels, width=0.5)
