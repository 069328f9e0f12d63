"""The ConvNet of dataset condensation (Zhao et al., ICLR 2021, arXiv 2006.05929).

[3x3 convolution, instance normalisation, ReLU, 2x2 average pooling] times the depth, then one linear layer on
the flattened map. Instance normalisation with scale and shift is group normalisation with one channel per
group: it keeps no running statistics, so the network is the same function in training and evaluation.

Initialisation: PyTorch's defaults throughout.
"""

from __future__ import annotations

from torch import Tensor, nn

from edc.errors import EdcError


class ConvNet(nn.Module):
    """`depth` blocks of `width` channels, linear layer: (B, channels, S, S) -> (B, classes).

    Args:
        width: channels of every convolution.
        depth: number of blocks; each halves the side of the map, rounding down.
        image_size: side S of the images in pixels, at least 2 ** depth.

    Raises:
        EdcError: if nothing of the image would be left after the last pooling.
    """

    def __init__(self, width: int, depth: int, classes: int, image_size: int, channels: int) -> None:
        super().__init__()
        side = image_size >> depth
        if side < 1:
            raise EdcError(f"a ConvNet of depth {depth} needs image_size {2**depth} or more, got {image_size}")
        blocks: list[nn.Module] = []
        for index in range(depth):
            blocks += [
                nn.Conv2d(channels if index == 0 else width, width, 3, padding=1),
                nn.GroupNorm(width, width),
                nn.ReLU(),
                nn.AvgPool2d(2),
            ]
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width * side * side, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


def convnet_d1(classes: int, image_size: int = 32, channels: int = 3) -> ConvNet:
    """Width 128, depth 1; images of at least 2 px."""
    return ConvNet(128, 1, classes, image_size, channels)


def convnet_d2(classes: int, image_size: int = 32, channels: int = 3) -> ConvNet:
    """Width 128, depth 2; images of at least 4 px."""
    return ConvNet(128, 2, classes, image_size, channels)


def convnet_w32(classes: int, image_size: int = 32, channels: int = 3) -> ConvNet:
    """Width 32, depth 3; images of at least 8 px."""
    return ConvNet(32, 3, classes, image_size, channels)


def convnet_w128(classes: int, image_size: int = 32, channels: int = 3) -> ConvNet:
    """Width 128, depth 3, the ConvNet of most condensation papers; images of at least 8 px."""
    return ConvNet(128, 3, classes, image_size, channels)
