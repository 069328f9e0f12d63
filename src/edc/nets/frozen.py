"""Batch norm of frozen networks on a CPU.

There PyTorch's own also adds up, in its backward pass, what the gradients of weight and bias would be made of, which
takes most of its time; frozen layers need none of it. What is computed is the same, to the last bit where the processor
multiplies and adds in one step.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn


class _Normalised(torch.autograd.Function):
    """(x - mean) / sqrt(var + eps) * weight + bias, everything but x (B, C, H, W) constant."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FrozenBatchNorm2d) -> Tensor:
        ctx.layer = layer
        return torch.addcmul(layer.shift, x, layer.scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return (gradient * ctx.layer.inverse).mul_(ctx.layer.factor), None


CONSTANTS = ("scale", "shift", "inverse", "factor")


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """A `BatchNorm2d` in eval mode whose values no longer change; put into training mode it is a plain one again.

    Attributes:
        scale, shift: what a channel is multiplied with and what is added, (C, 1, 1) each.
        inverse, factor: 1 / sqrt(var + eps), and the weight; the same shape.
    """

    scale: Tensor
    shift: Tensor
    inverse: Tensor
    factor: Tensor

    def freeze(self) -> None:
        """Work out the constants, in PyTorch's order, so that they give PyTorch's bits."""
        mean, variance = self.running_mean, self.running_var
        assert mean is not None
        assert variance is not None
        scale = torch.rsqrt(variance + self.eps) * self.weight
        inverse = (1 / torch.sqrt(variance.double() + self.eps)).to(variance.dtype)
        shift = torch.addcmul(self.bias, mean, scale, value=-1)
        for name, constant in zip(CONSTANTS, (scale, shift, inverse, self.weight.detach().clone()), strict=True):
            self.register_buffer(name, constant[:, None, None], persistent=False)

    def train(self, mode: bool = True) -> Self:
        """See `Module`."""
        if mode:
            for name in CONSTANTS:
                delattr(self, name)
            self.__class__ = nn.BatchNorm2d  # type: ignore[assignment]
        return super(nn.BatchNorm2d, self).train(mode)

    def forward(self, x: Tensor) -> Tensor:
        """See `BatchNorm2d`; on a GPU, and in half precision, as there."""
        if x.is_cuda or x.dtype != torch.float32:
            return super().forward(x)
        normalised: Tensor = _Normalised.apply(x, self)
        return normalised


def frozen(model: nn.Module) -> nn.Module:
    """A network in eval mode, its parameters frozen, with its batch norms as above; changed in place.

    Its weights must be what they are going to be. Layers of classes derived from `BatchNorm2d`, as libraries have them,
    stay as they are.
    """
    for module in model.eval().requires_grad_(False).modules():
        if type(module) is nn.BatchNorm2d and module.affine and module.track_running_stats:
            module.__class__ = FrozenBatchNorm2d
            assert isinstance(module, FrozenBatchNorm2d)
            module.freeze()
    return model
