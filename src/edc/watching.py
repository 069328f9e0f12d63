"""Statistics of an observer's layers, as one vector.

Every ``Conv2d`` and ``BatchNorm2d`` is looked at, in the order of registration, through its input x of shape
(B, C, H, W): mean and (biased) variance per channel, and for convolutions also mean and variance per cell of the map
(EDC section 3.1 after G-VBSM). A layer's part of the vector is ``[mean C | var C | cell mean U | cell var U]``, the
last two for convolutions only; the vector of all layers has length D.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Kind = Literal["bn", "conv"]
LAYERS: dict[Kind, type[nn.Module]] = {"bn": nn.BatchNorm2d, "conv": nn.Conv2d}


@dataclass(frozen=True)
class Hook:
    """One observed layer: where its statistics lie in the vector.

    Attributes:
        name: the module's name in the network.
        kind: "bn" or "conv".
        start: first index in the vector.
        channels: C of its input.
        cells: U, 0 for BN.
    """

    name: str
    kind: Kind
    start: int
    channels: int
    cells: int

    @property
    def lengths(self) -> list[int]:
        """Lengths of its statistics: mean, variance, and for convolutions cell mean and cell variance."""
        return [self.channels] * 2 + ([self.cells] * 2 if self.kind == "conv" else [])

    @property
    def size(self) -> int:
        return sum(self.lengths)


def grid(height: int, width: int, patch: int) -> tuple[int, int]:
    """A map's sides rounded up to whole cells of ``patch`` pixels."""
    return -(-height // patch) * patch, -(-width // patch) * patch


def to_grid(x: Tensor, patch: int) -> Tensor:
    """Resize a map (B, C, H, W) bilinearly to whole cells; most maps already are."""
    size = grid(x.shape[-2], x.shape[-1], patch)
    return x if size == tuple(x.shape[-2:]) else F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def growth(small: int, large: int, like: Tensor) -> Tensor:
    """Bilinear resizing of one axis as a matrix (small, large): its transpose resizes, it carries gradients back.

    A product, because the library's own backward adds in no fixed order on a GPU.
    """
    identity = torch.eye(small, device=like.device, dtype=like.dtype)
    return F.interpolate(identity[None], size=large, mode="linear", align_corners=False)[0]


def pool(pixels: Tensor, patch: int) -> Tensor:
    """Mean over cells of a map of pixels: (..., H, W) to (..., H/P, W/P)."""
    h, w = pixels.shape[-2:]
    return pixels.reshape(*pixels.shape[:-2], h // patch, patch, w // patch, patch).mean(dim=(-3, -1))


def spread(cells: Tensor, patch: int) -> Tensor:
    """Give every pixel its cell's value: (H/P, W/P) to (H, W)."""
    return cells.repeat_interleave(patch, 0).repeat_interleave(patch, 1)


class BatchStatistics(torch.autograd.Function):
    """Statistics of a layer's input over the whole batch, with a gradient that reads the input once.

    Mean and raw second moment are plain sums, many times faster than a general variance, and the gradient is affine in
    the input: dL/dx = x * (a_c + b_u) + (c_c + d_u) for channel c and cell u.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, patch: int) -> Tensor:
        """Statistics of x (B, C, H, W): ``[mean C | var C]``, and behind it the cells' unless ``patch`` is 0."""
        x = x.to(torch.float32)
        square = x * x
        mean = x.mean(dim=(0, 2, 3))
        parts = [mean, (square.mean(dim=(0, 2, 3)) - mean * mean).clamp_min_(0)]
        y = to_grid(x, patch) if patch else x
        cell_mean = x.new_zeros(0)
        if patch:
            # Averaging over images and channels first leaves one small map to cut into cells.
            square = square if y is x else y * y
            cell_mean = pool(y.flatten(0, 1).mean(0), patch)
            cell_var = (pool(square.flatten(0, 1).mean(0), patch) - cell_mean * cell_mean).clamp_min_(0)
            parts += [cell_mean.flatten(), cell_var.flatten()]
        ctx.save_for_backward(x, y, mean, cell_mean)
        ctx.patch = patch
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Gradient (B, C, H, W) from that of the statistics."""
        x, y, mean, cell_mean = ctx.saved_tensors
        channels, n = len(mean), x.numel() // len(mean)
        to_mean, to_var = grad[:channels] / n, grad[channels : 2 * channels] * (2 / n)
        scale = to_var[:, None, None]
        shift = (to_mean - to_var * mean)[:, None, None]
        resized = None
        if ctx.patch:
            m = y.numel() // cell_mean.numel()
            cells = grad[2 * channels :].view(2, *cell_mean.shape)
            cell_scale = cells[1] * (2 / m)
            cell_shift = cells[0] / m - cell_scale * cell_mean
            by_pixel = spread(cell_scale, ctx.patch), spread(cell_shift, ctx.patch)
            if y.shape == x.shape:
                scale, shift = scale + by_pixel[0], shift + by_pixel[1]
            else:
                grown = torch.addcmul(by_pixel[1], y, by_pixel[0])
                rows, columns = (growth(x.shape[i], y.shape[i], x) for i in (-2, -1))
                resized = rows @ grown @ columns.T
        result = torch.addcmul(shift, x, scale)
        return (result if resized is None else result.add_(resized)), None


def image_statistics(x: Tensor, patch: int) -> Tensor:
    """The same statistics for every image on its own: (B, D of the layer); no gradient."""
    mean, square = x.mean(dim=(2, 3)), x * x
    parts = [mean, (square.mean(dim=(2, 3)) - mean * mean).clamp_min_(0)]
    if patch:
        y = to_grid(x, patch)
        cell_mean = pool(y.mean(1), patch)
        cell_var = pool((square if y is x else y * y).mean(1), patch) - cell_mean * cell_mean
        parts += [cell_mean.flatten(1), cell_var.clamp_min_(0).flatten(1)]
    return torch.cat(parts, dim=1)


class Watcher:
    """Collects an observer's statistics during its forward pass.

    Args:
        observer: the network, in eval mode.
        patch: side of the cells, pixels of the feature map.
        shape: (C, H, W) of the images; one forward pass with zeros finds the maps' sizes.
        per_image: statistics of every image instead of the batch.
        kinds: which layers are looked at.

    Attributes:
        hooks: the observed layers.
        size: D, length of the statistics vector.
    """

    def __init__(
        self,
        observer: nn.Module,
        patch: int,
        shape: Sequence[int],
        per_image: bool = False,
        kinds: Sequence[Kind] = ("bn", "conv"),
    ) -> None:
        self.observer, self.patch = observer, patch
        self._measure = image_statistics if per_image else BatchStatistics.apply
        self._per_image = per_image
        self._parts: dict[int, Tensor] = {}
        self._skip: set[int] = set()
        self._active = True
        wanted = tuple(LAYERS[kind] for kind in kinds)
        layers = [(n, m) for n, m in observer.named_modules() if isinstance(m, wanted)]
        found: list[Kind] = ["bn" if isinstance(m, nn.BatchNorm2d) else "conv" for _, m in layers]
        shapes: dict[int, tuple[int, ...]] = {}
        self._handles = []
        for i, ((_, module), kind) in enumerate(zip(layers, found, strict=True)):
            cell = patch if kind == "conv" else 0
            self._handles.append(module.register_forward_pre_hook(self._hook(i, cell, shapes)))
        self.hooks: list[Hook] = []
        self.size = 0
        with torch.no_grad():
            device = next(observer.parameters()).device
            observer(torch.zeros(2, *shape, device=device))
        for i, ((name, _), kind) in enumerate(zip(layers, found, strict=True)):
            _, channels, height, width = shapes[i]
            rows, columns = grid(height, width, patch)
            cells = (rows // patch) * (columns // patch) if kind == "conv" else 0
            self.hooks.append(Hook(name, kind, self.size, channels, cells))
            self.size += self.hooks[-1].size

    def _hook(
        self, i: int, cell: int, shapes: dict[int, tuple[int, ...]]
    ) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def collect(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if self._active and i not in self._skip:
                shapes.setdefault(i, tuple(inputs[0].shape))
                self._parts[i] = self._measure(inputs[0], cell)

        return collect

    def __call__(self, x: Tensor, skip: set[int] | None = None) -> tuple[Tensor, Tensor]:
        """Forward pass with statistics.

        Args:
            x: (B, C, H, W), normalised.
            skip: hooks to leave out this time; their part of the vector is zero.

        Returns:
            logits (B, K) and the statistics vector (D,), or (B, D) when per image.
        """
        self._parts, self._skip = {}, skip or set()
        logits = self.observer(x)
        if not self.hooks:
            return logits, x.new_zeros((len(x), 0) if self._per_image else 0)
        absent = (len(x),) if self._per_image else ()
        parts = [
            self._parts[i] if i in self._parts else x.new_zeros(*absent, hook.size) for i, hook in enumerate(self.hooks)
        ]
        self._parts = {}
        return logits, torch.cat(parts, dim=-1)

    def logits(self, x: Tensor) -> Tensor:
        """Forward pass without statistics and without gradient: (B, K)."""
        self._active = False
        try:
            with torch.no_grad():
                return self.observer(x)
        finally:
            self._active = True

    def close(self) -> None:
        """Take the hooks off the network."""
        for handle in self._handles:
            handle.remove()


def running_statistics(observer: nn.Module, hooks: Sequence[Hook], vector: Tensor) -> Tensor:
    """Replace the BN layers' parts of a statistics vector by the layers' own running mean and variance."""
    modules = dict(observer.named_modules())
    result = vector.clone()
    for hook in hooks:
        if hook.kind == "bn":
            layer = modules[hook.name]
            assert isinstance(layer, nn.BatchNorm2d)
            assert layer.running_mean is not None
            assert layer.running_var is not None
            result[hook.start : hook.start + hook.size] = torch.cat([layer.running_mean, layer.running_var])
    return result
