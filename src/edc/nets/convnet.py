"""The ConvNet of dataset condensation (Zhao et al., ICLR 2021, arXiv 2006.05929).

[3x3 convolution, instance normalisation, ReLU, 2x2 average pooling] times the depth, then one linear layer on the
flattened map, initialised by PyTorch's defaults. The normalisation keeps no running statistics, so the network is the
same function in training and evaluation.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from edc.errors import EdcError


class ConvNet(nn.Module):
    """`depth` blocks of `width` channels, linear layer: (B, channels, S, S) -> (B, classes).

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
                nn.GroupNorm(width, width),  # one channel per group: instance normalisation with scale and shift
                nn.ReLU(),
                nn.AvgPool2d(2),
            ]
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width * side * side, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


convnet_d1 = partial(ConvNet, 128, 1)
convnet_d2 = partial(ConvNet, 128, 2)
convnet_w32 = partial(ConvNet, 32, 3)
convnet_w128 = partial(ConvNet, 128, 3)
"""The ConvNet of most condensation papers."""
