"""Batch norm of frozen networks on a CPU, without the gradients of weight and bias that take most of PyTorch's time.

Output and gradient are the same; for dense maps to the last bit, where the processor has a fused multiply-add.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

CONSTANTS = ("scale", "shift", "inverse", "factor")
"""Names of the constants that a frozen layer computes once."""
WHOLE = {"weight", "bias", "running_mean", "running_var"}
"""What a layer must have to be frozen."""


class _Normalised(torch.autograd.Function):
    """(x - mean) / sqrt(var + eps) * weight + bias, everything but x (B, C, H, W) constant."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FrozenBatchNorm2d) -> Tensor:
        ctx.inverse, ctx.factor = layer.inverse, layer.factor
        return torch.addcmul(layer.shift, x, layer.scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return (gradient * ctx.inverse).mul_(ctx.factor), None


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """A `BatchNorm2d` in eval mode whose values no longer change; not torchvision's, which is no `BatchNorm2d`.

    Attributes:
        scale, shift: what a channel is multiplied with and what is added, (C, 1, 1) each.
        inverse, factor: 1 / sqrt(var + eps), and the weight; the same shape.
    """

    scale: Tensor
    shift: Tensor
    inverse: Tensor
    factor: Tensor

    def freeze(self) -> None:
        """Compute the constants in PyTorch's order of operations, so that they have PyTorch's bits."""
        mean, variance = self.running_mean, self.running_var
        assert mean is not None
        assert variance is not None
        scale = torch.rsqrt(variance + self.eps) * self.weight
        inverse = (1 / torch.sqrt(variance.double() + self.eps)).to(variance.dtype)
        shift = torch.addcmul(self.bias, mean, scale, value=-1)
        for name, constant in zip(CONSTANTS, (scale, shift, inverse, self.weight), strict=True):
            self.register_buffer(name, constant.detach().clone()[:, None, None], persistent=False)

    def train(self, mode: bool = True) -> Self:
        """Training mode makes it a plain `BatchNorm2d` again, without the constants."""
        if mode:
            for name in CONSTANTS:
                delattr(self, name)
            self.__class__ = nn.BatchNorm2d  # type: ignore[assignment]
        # Not super(), which needs the class that it no longer is.
        return nn.Module.train(self, mode)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.freeze()

    def forward(self, x: Tensor) -> Tensor:
        """See `BatchNorm2d`, which computes on a GPU, in half precision, and where weights are trained."""
        if x.is_cuda or x.dtype != torch.float32 or self.weight.requires_grad or self.bias.requires_grad:
            return super().forward(x)
        self._check_input_dim(x)
        normalised: Tensor = _Normalised.apply(x, self)
        return normalised


def frozen(model: nn.Module) -> nn.Module:
    """A network in eval mode, its parameters frozen, with its batch norms as above; changed in place.

    `load_state_dict` updates the constants; after in-place writes to weights or running values, as by `copy_weights` or
    a training step, call this again. Layers of classes derived from `BatchNorm2d` stay as they are.
    """
    for module in model.eval().requires_grad_(False).modules():
        if type(module) is nn.BatchNorm2d and module.state_dict().keys() >= WHOLE:
            module.__class__ = FrozenBatchNorm2d
        if isinstance(module, FrozenBatchNorm2d):
            module.freeze()
    return model


@contextlib.contextmanager
def batch_statistics(models: Sequence[nn.Module]) -> Iterator[None]:
    """Batch norms normalise with the statistics of the images of a pass inside the block; nothing else is trained.

    Their running statistics stay as they are, and so do dropout and the like. Frozen ones become plain batch norms.
    """
    norms = [module for model in models for module in model.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.training, norm.track_running_stats) for norm in norms]
    for norm in norms:
        norm.train().track_running_stats = False
    try:
        yield
    finally:
        for norm, (training, tracks) in zip(norms, before, strict=True):
            norm.train(training).track_running_stats = tracks
