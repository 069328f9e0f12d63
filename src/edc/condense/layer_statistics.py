"""Statistics of an observer's layers, as one vector.

Every ``Conv2d`` and ``BatchNorm2d`` is looked at, in the order of registration, through its input x of shape
(B, C, H, W): mean and (biased) variance per channel, and for convolutions also mean and variance per cell of the map
(EDC section 3.1 after G-VBSM). A layer's part of the vector is ``[mean C | var C | cell mean U | cell var U]``, the
last two for convolutions only; the vector of all layers has length D.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from edc.condense.maps import Maps
from edc.condense.moments import Averages, Layout, Source, Sums
from edc.nets.placing import answers

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


def in_float32(x: Tensor) -> Tensor:
    """The tensor itself where it is in float32, else a copy that is; asking takes less time than `to`."""
    return x if x.dtype == torch.float32 else x.to(torch.float32)


def in_full(device: torch.device) -> AbstractContextManager[object]:
    """A context in which nothing is computed in half precision, whatever the network computes in."""
    kind = device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


class Watched(NamedTuple):
    """A tensor that was measured on its way through the network.

    Attributes:
        values: without its graph.
        version: how often it had been changed in place by then.
        maps: a view of them in the order of memory; None where that would be a copy.
    """

    values: Tensor
    version: int
    maps: Maps | None


class Slopes:
    """What one forward pass leaves for its backward pass: the watched tensors, and later how they are pulled.

    Args:
        layout: of the statistics.
        images: in each group.

    Attributes:
        inputs: the watched tensors, by number of source.
    """

    def __init__(self, layout: Layout, images: int) -> None:
        self.layout, self.images = layout, images
        self.inputs: dict[int, Watched] = {}
        self.means = torch.empty(0)
        self.values: list[list[Tensor]] | None = None

    def receive(self, gradient: Tensor | None) -> None:
        """Take the gradient (G, D) of the statistics; None: nothing depends on them."""
        self.values = None if gradient is None else self.layout.slopes(gradient, self.means, self.images)

    def pull(self, number: int, watched: Watched, gradient: Tensor) -> Tensor | None:
        """The gradient of a watched tensor with the statistics' part; None: nothing is added."""
        if self.values is None or self.inputs.get(number) is not watched:  # a layer that ran twice counts once
            return None
        if watched.values._version != watched.version:
            raise RuntimeError("a watched tensor was changed in place after it was measured")
        maps = watched.maps or Maps(in_float32(watched.values), len(self.means))
        part = maps.restored(self.layout.sources[number].pull(maps, self.values[number])).add_(gradient)
        return part if part.dtype == gradient.dtype else part.to(gradient.dtype)


class Statistics(torch.autograd.Function):
    """Ties the statistics to the logits, upstream of which all watched tensors lie.

    So the statistics' gradient is known, and turned into slopes for all layers at once, before the backward pass
    reaches the first watched tensor; each then takes its part where its gradient passes by anyway.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, statistics: Tensor, slopes: Slopes) -> tuple[Tensor, Tensor]:
        """Logits (B, K) and statistics (G, D) as they are."""
        ctx.slopes, ctx.shape = slopes, logits.shape
        ctx.set_materialize_grads(False)
        return logits.view_as(logits), statistics.view_as(statistics)

    @staticmethod
    def backward(ctx: Any, to_logits: Tensor | None, to_statistics: Tensor | None) -> tuple[Tensor | None, None, None]:
        """The logits' gradient as it is; that of the statistics waits for the watched tensors."""
        ctx.slopes.receive(to_statistics)
        if to_logits is None and to_statistics is not None:
            to_logits = to_statistics.new_zeros(ctx.shape)  # or the backward pass would end here
        return to_logits, None, None


def observed(observer: nn.Module, kinds: Sequence[Kind]) -> list[tuple[str, Kind, nn.Module]]:
    """Layers that are looked at, in the order of registration."""
    wanted = tuple(LAYERS[kind] for kind in kinds)
    layers = [(name, module) for name, module in observer.named_modules() if isinstance(module, wanted)]
    return [(name, "bn" if isinstance(module, nn.BatchNorm2d) else "conv", module) for name, module in layers]


class Watcher:
    """Collects an observer's statistics during its forward pass.

    Layers that see the same tensor share one measurement.

    Args:
        observer: the network, in eval mode.
        patch: side of the cells, pixels of the feature map.
        shape: (C, H, W) of the images; one forward pass with zeros finds the maps' sizes.
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
        kinds: Sequence[Kind] = ("bn", "conv"),
    ) -> None:
        self.observer, self.patch = observer, patch
        layers = observed(observer, kinds)
        device = next(observer.parameters()).device
        self._active, self._groups, self._wanted = False, 1, set[int]()
        self._measured: dict[int, Sums | Averages] = {}
        seen = _inputs(observer, [module for _, _, module in layers], torch.zeros(2, *shape, device=device))
        tensors: dict[tuple[int, int], int] = {}
        self._sources = [tensors.setdefault((id(x), version), len(tensors)) for x, version in seen]
        convolved = {source for source, (_, kind, _) in zip(self._sources, layers, strict=True) if kind == "conv"}
        sources = [
            Source(x.shape[1], x.shape[2], x.shape[3], number in convolved, patch)
            for number, (x, _) in dict(zip(self._sources, seen, strict=True)).items()
        ]
        self.hooks: list[Hook] = []
        self.size = 0
        for (name, kind, _), number in zip(layers, self._sources, strict=True):
            cells = sources[number].cells if kind == "conv" else 0
            self.hooks.append(Hook(name, kind, self.size, sources[number].channels, cells))
            self.size += self.hooks[-1].size
        parts = [(number, hook.kind == "conv") for number, hook in zip(self._sources, self.hooks, strict=True)]
        self.layout = Layout(sources, parts, device)
        self._slopes = Slopes(self.layout, 0)
        self._handles = [
            layers[self._sources.index(number)][2].register_forward_pre_hook(self._hook(number))
            for number in range(len(sources))
        ]

    def _hook(self, number: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def collect(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if self._active and number in self._wanted:
                self._measure(number, inputs[0])

        return collect

    def _measure(self, number: int, x: Tensor) -> None:
        values = x.detach()
        source, maps = self.layout.sources[number], Maps(in_float32(values), self._groups)
        with in_full(x.device):
            self._measured[number] = source.measure(maps)
        if torch.is_grad_enabled() and x.requires_grad:
            # Not a copy, which would stay until the backward pass.
            view = maps if maps.values.data_ptr() == values.data_ptr() else None
            slopes, watched = self._slopes, Watched(values, values._version, view)
            slopes.inputs[number] = watched
            x.register_hook(lambda gradient: slopes.pull(number, watched, gradient))

    def __call__(self, x: Tensor, skip: set[int] | None = None, groups: int | None = None) -> tuple[Tensor, Tensor]:
        """Forward pass with statistics.

        Args:
            x: (B, C, H, W), normalised.
            skip: hooks that are not looked at this time; their part of the vector means nothing.
            groups: the images are so many groups of equal size, one after the other, with statistics of their own.

        Returns:
            logits (B, K) and the statistics vector (D,), or (groups, D).
        """
        logits, means, variances, slopes = self._pass(x, skip, groups or 1)
        statistics = self.layout.vector(means, variances)
        if logits.requires_grad:
            slopes.means = means
            logits, statistics = Statistics.apply(logits, statistics, slopes)
        return logits, statistics if groups is not None else statistics[0]

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances of every image on its own, each (B, D / 2) in :class:`Layout`'s order; no gradient."""
        with torch.no_grad():
            _, means, variances, _ = self._pass(x, None, len(x))
        return means, variances

    def _pass(self, x: Tensor, skip: set[int] | None, groups: int) -> tuple[Tensor, Tensor, Tensor, Slopes]:
        self._groups, self._measured = groups, {}
        self._wanted = {number for i, number in enumerate(self._sources) if not skip or i not in skip}
        self._slopes = slopes = Slopes(self.layout, len(x) // groups)
        self._active = True
        try:
            # The hook on a leaf would outlive this pass.
            logits = answers(self.observer, x.view_as(x) if x.is_leaf else x)
        finally:
            self._active = False
            measured, self._measured, self._slopes = self._measured, {}, Slopes(self.layout, 0)
        means, variances = self.layout.moments(measured, groups, slopes.images)
        return logits, means, variances, slopes

    def logits(self, x: Tensor) -> Tensor:
        """Forward pass without statistics and without gradient: (B, K)."""
        with torch.no_grad():
            return answers(self.observer, x)

    def close(self) -> None:
        """Take the hooks off the network."""
        for handle in self._handles:
            handle.remove()


def _inputs(observer: nn.Module, layers: Sequence[nn.Module], x: Tensor) -> list[tuple[Tensor, int]]:
    """What each layer is given in a forward pass, and how often that tensor had been changed in place by then."""
    found: dict[int, tuple[Tensor, int]] = {}

    def note(i: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: found.update({i: (inputs[0], inputs[0]._version)})

    handles = [layer.register_forward_pre_hook(note(i)) for i, layer in enumerate(layers)]
    with torch.no_grad():
        observer(x)
    for handle in handles:
        handle.remove()
    return [found[i] for i in range(len(layers))]


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
