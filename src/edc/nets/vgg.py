"""VGG-11 with batch normalisation for small images (Simonyan and Zisserman, ICLR 2015, arXiv 1409.1556).

Configuration A of the paper, eight 3x3 convolutions without bias, each followed by normalisation and ReLU, five 2x2
max-poolings, with the head that small images are given everywhere: global average pooling and one linear layer in the
place of the three. So it is in network slimming (Liu et al., ICCV 2017, arXiv 1708.06519).

A pooling that would leave nothing of the map is left out. No parameter depends on the size of the image.
Initialisation: convolutions Kaiming normal, fan-out (He et al. 2015); linear layer normal with deviation 0.01, bias 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from edc.nets.blocks import conv_norm, initialise_convolutions

# Channels of the eight convolutions, and after which of them the map is halved.
WIDTHS = (64, 128, 256, 256, 512, 512, 512, 512)
POOLED = (0, 1, 3, 5, 7)


class VGG(nn.Module):
    """Eight convolutions, global average pooling, linear layer: (B, channels, S, S) -> (B, classes).

    A slimmed network has `widths` below `WIDTHS`.
    """

    def __init__(self, classes: int, image_size: int, channels: int, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        assert len(widths) == len(WIDTHS), "eight convolutions"
        layers: list[nn.Module] = []
        side, inputs = image_size, channels
        for index, width in enumerate(widths):
            layers += [*conv_norm(inputs, width, 3), nn.ReLU()]
            if index in POOLED and side > 1:
                layers.append(nn.MaxPool2d(2))
                side //= 2
            inputs = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(inputs, classes)
        initialise_convolutions(self)
        nn.init.normal_(self.classifier.weight, 0.0, 0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))
