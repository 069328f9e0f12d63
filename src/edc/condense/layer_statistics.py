"""Statistics of an observer's layers, as one vector of length D.

Every ``Conv2d`` and ``BatchNorm2d`` is measured, in the order of registration, at its input x of shape (B, C, H, W):
mean and (biased) variance per channel, and for convolutions also mean and variance per cell of the map (EDC section 3.1
after G-VBSM). A layer's part of the vector is ``[mean C | var C | cell mean U | cell var U]``, the last two for
convolutions only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from edc.condense.layout import Layout
from edc.condense.maps import Maps
from edc.condense.moments import Averages, LayerInput, Sums
from edc.nets.placing import compute_logits

Kind = Literal["bn", "conv"]
LAYERS: dict[Kind, type[nn.Module]] = {"bn": nn.BatchNorm2d, "conv": nn.Conv2d}


@dataclass(frozen=True)
class Hook:
    """One measured layer: its name in the network, its first index in the vector, channels C and cells U (0 for BN)."""

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


def in_float32(x: Tensor) -> Tensor:
    """The tensor itself if it is in float32, else a converted copy; the comparison is faster than `to`."""
    return x if x.dtype == torch.float32 else x.to(torch.float32)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context without autocast, whatever precision the network's passes have."""
    kind = device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


class MeasuredInput(NamedTuple):
    """A layer's input as it was measured.

    Attributes:
        values: without its graph.
        version: PyTorch's count of in-place changes at that time.
        maps: a view of the values in memory order; None where that would be a copy.
    """

    values: Tensor
    version: int
    maps: Maps | None


class StatisticsGradient:
    """What a forward pass stores for its backward pass: the measured inputs, later their gradients' coefficients."""

    def __init__(self, layout: Layout, images: int) -> None:
        self.layout, self.images = layout, images
        self.inputs: dict[int, MeasuredInput] = {}
        self.means = torch.empty(0)
        self.coefficients: list[list[Tensor]] | None = None

    def receive(self, gradient: Tensor | None) -> None:
        """Set the gradient (G, D) of the statistics; None: nothing depends on them."""
        self.coefficients = None if gradient is None else self.layout.coefficients(gradient, self.means, self.images)

    def add_to(self, gradient: Tensor, number: int, measured: MeasuredInput) -> Tensor | None:
        """The gradient of a measured input with the statistics' part; None: nothing is added."""
        if self.coefficients is None or self.inputs.get(number) is not measured:  # a layer that ran twice counts once
            return None
        if measured.values._version != measured.version:
            raise RuntimeError("a layer's input was changed in place after it was measured")
        maps = measured.maps or Maps(in_float32(measured.values), len(self.means))
        part = maps.restored(self.layout.inputs[number].gradient(maps, self.coefficients[number])).add_(gradient)
        return part if part.dtype == gradient.dtype else part.to(gradient.dtype)


class JoinStatistics(torch.autograd.Function):
    """Makes the statistics outputs of the same node as the logits, upstream of which all measured inputs lie.

    So the statistics' gradient is known, and its coefficients computed for all layers at once, before the backward pass
    reaches the first measured input; each input's hook then adds its part to the gradient it gets anyway.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, statistics: Tensor, stored: StatisticsGradient) -> tuple[Tensor, Tensor]:
        """Logits (B, K) and statistics (G, D) as they are."""
        ctx.stored, ctx.shape = stored, logits.shape
        ctx.set_materialize_grads(False)
        return logits.view_as(logits), statistics.view_as(statistics)

    @staticmethod
    def backward(ctx: Any, to_logits: Tensor | None, to_statistics: Tensor | None) -> tuple[Tensor | None, None, None]:
        """The logits' gradient as it is; that of the statistics is stored for the inputs' hooks."""
        ctx.stored.receive(to_statistics)
        if to_logits is None and to_statistics is not None:
            to_logits = to_statistics.new_zeros(ctx.shape)  # or the backward pass would end here
        return to_logits, None, None


def measured_layers(observer: nn.Module, kinds: Sequence[Kind]) -> list[tuple[str, Kind, nn.Module]]:
    """Name, kind and module of the layers that are measured, in the order of registration."""
    modules = observer.named_modules()
    return [(name, kind, module) for name, module in modules for kind in kinds if isinstance(module, LAYERS[kind])]


class StatisticsCollector:
    """Collects an observer's statistics during its forward pass.

    Layers with the same input tensor share one measurement.

    Args:
        observer: the network, in eval mode.
        patch: side of the cells, pixels of the feature map.
        shape: (C, H, W) of the images; one forward pass with zeros determines the maps' sizes.
        kinds: which layers are measured.

    Attributes:
        hooks: the measured layers.
        size: D, length of the statistics vector. Images of another size have statistics of the same length only where
            no convolution is measured.
        layout: of the latest images' size.
    """

    def __init__(
        self, observer: nn.Module, patch: int, shape: Sequence[int], kinds: Sequence[Kind] = ("bn", "conv")
    ) -> None:
        self.observer, self.patch = observer, patch
        self._layers = measured_layers(observer, kinds)
        self._active, self._groups, self._selected = False, 1, set[int]()
        self._measured: dict[int, Sums | Averages] = {}
        self._numbers: list[int] = []
        self._layouts: dict[tuple[int, ...], Layout] = {}
        self.layout = self._layout(tuple(shape))
        self.hooks: list[Hook] = []
        self.size = 0
        for (name, kind, _), number in zip(self._layers, self._numbers, strict=True):
            item = self.layout.inputs[number]
            self.hooks.append(Hook(name, kind, self.size, item.channels, item.cells if kind == "conv" else 0))
            self.size += self.hooks[-1].size
        self._gradient = StatisticsGradient(self.layout, 0)
        self._handles = [
            self._layers[self._numbers.index(number)][2].register_forward_pre_hook(self._hook(number))
            for number in range(len(self.layout.inputs))
        ]

    def _layout(self, shape: tuple[int, ...]) -> Layout:
        """The layout for images (C, H, W), made when they are first seen."""
        if shape not in self._layouts:
            device = next(self.observer.parameters()).device
            modules = [module for _, _, module in self._layers]
            tensors = _inputs(self.observer, modules, torch.zeros(2, *shape, device=device))
            numbers: dict[tuple[int, int], int] = {}
            self._numbers = [numbers.setdefault((id(x), version), len(numbers)) for x, version in tensors]
            parts = [(number, kind == "conv") for number, (_, kind, _) in zip(self._numbers, self._layers, strict=True)]
            convolved = {number for number, patched in parts if patched}
            inputs = [
                LayerInput(x.shape[1], x.shape[2], x.shape[3], number in convolved, self.patch)
                for number, (x, _) in dict(zip(self._numbers, tensors, strict=True)).items()
            ]
            self._layouts[shape] = Layout(inputs, parts, device)
        return self._layouts[shape]

    def _hook(self, number: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def collect(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if self._active and number in self._selected:
                self._measure(number, inputs[0])

        return collect

    def _measure(self, number: int, x: Tensor) -> None:
        values = x.detach()
        maps = Maps(in_float32(values), self._groups)
        with without_autocast(x.device):
            self._measured[number] = self.layout.inputs[number].measure(maps)
        if torch.is_grad_enabled() and x.requires_grad:
            # Not a copy, which would stay until the backward pass.
            view = maps if maps.values.data_ptr() == values.data_ptr() else None
            stored, measured = self._gradient, MeasuredInput(values, values._version, view)
            stored.inputs[number] = measured
            x.register_hook(lambda gradient: stored.add_to(gradient, number, measured))

    def __call__(self, x: Tensor, skip: set[int] | None = None, groups: int | None = None) -> tuple[Tensor, Tensor]:
        """Logits (B, K) of normalised images and the statistics vector (D,), or (groups, D).

        Groups have equal size, lie one after the other, and have each their own statistics. Of the skipped hooks, the
        part of the vector is undefined.
        """
        logits, means, variances, stored = self._pass(x, skip, groups or 1)
        statistics = self.layout.vector(means, variances)
        if logits.requires_grad:
            stored.means = means
            logits, statistics = JoinStatistics.apply(logits, statistics, stored)
        return logits, statistics if groups is not None else statistics[0]

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances of every single image, each (B, D / 2) in :class:`Layout`'s order; no gradient."""
        with torch.no_grad():
            _, means, variances, _ = self._pass(x, None, len(x))
        return means, variances

    def _pass(self, x: Tensor, skip: set[int] | None, groups: int) -> tuple[Tensor, Tensor, Tensor, StatisticsGradient]:
        self._groups, self._measured = groups, {}
        self.layout = self._layout(tuple(x.shape[1:]))
        self._selected = {number for i, number in enumerate(self._numbers) if not skip or i not in skip}
        self._gradient = stored = StatisticsGradient(self.layout, len(x) // groups)
        self._active = True
        try:
            # The hook on a leaf would outlive this pass.
            logits = compute_logits(self.observer, x.view_as(x) if x.is_leaf else x)
        finally:
            self._active = False
            measured, self._measured, self._gradient = self._measured, {}, StatisticsGradient(self.layout, 0)
        means, variances = self.layout.moments(measured, groups, stored.images)
        return logits, means, variances, stored

    def logits(self, x: Tensor) -> Tensor:
        """Forward pass without statistics and without gradient: (B, K)."""
        with torch.no_grad():
            return compute_logits(self.observer, x)

    def close(self) -> None:
        """Remove the hooks from the network."""
        for handle in self._handles:
            handle.remove()


def _inputs(observer: nn.Module, layers: Sequence[nn.Module], x: Tensor) -> list[tuple[Tensor, int]]:
    """Each layer's input in a forward pass, and that tensor's count of in-place changes at that time."""
    inputs: dict[int, tuple[Tensor, int]] = {}

    def hook(i: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, args: inputs.update({i: (args[0], args[0]._version)})

    handles = [layer.register_forward_pre_hook(hook(i)) for i, layer in enumerate(layers)]
    with torch.no_grad():
        observer(x)
    for handle in handles:
        handle.remove()
    return [inputs[i] for i in range(len(layers))]


def running_statistics(observer: nn.Module, hooks: Sequence[Hook], vector: Tensor) -> Tensor:
    """Replace the BN layers' parts of a statistics vector by the layers' own running mean and variance."""
    modules = dict(observer.named_modules())
    result = vector.clone()
    for hook in hooks:
        if hook.kind == "bn":
            layer: Any = modules[hook.name]
            result[hook.start : hook.start + hook.size] = torch.cat([layer.running_mean, layer.running_var])
    return result
