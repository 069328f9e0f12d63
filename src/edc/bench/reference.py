"""The matching loss as its formula is written: layers, norms and running values one by one, by autograd.

Slow and simple: tests compare the engine with it, and the benchmark measures it beside the engine.
"""

from __future__ import annotations

import copy
from collections.abc import Set

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edc.config.choices import Match


def plain_statistics(x: Tensor, patch: int) -> list[Tensor]:
    """Mean and biased variance of a map (B, C, H, W) per channel, and per cell where ``patch`` is not 0."""
    variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
    statistics = [mean, variance]
    if patch:
        height, width = (-(-side // patch) * patch for side in x.shape[-2:])
        y = F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
        cells = y.unfold(2, patch, patch).unfold(3, patch, patch)
        variance, mean = torch.var_mean(cells, dim=(0, 1, 4, 5), correction=0)
        statistics += [mean.flatten(), variance.flatten()]
    return statistics


class Oracle:
    """One observer and the loss of :class:`edc.condense.matching.StatisticsMatcher`, computed in `dtype`.

    The network is copied without its hooks; whatever it was placed with, its weights say how it computes. Targets are
    the global one (D,) and the classes' (K, D).
    """

    def __init__(
        self,
        network: nn.Module,
        patch: int,
        settings: Match,
        everything: Tensor,
        table: Tensor,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.network = copy.deepcopy(network)
        for module in self.network.modules():
            module._forward_pre_hooks.clear()  # a collector's come along with the copy
        self.patch, self.settings, self.dtype = patch, settings, dtype
        self.everything, self.table = everything.to(dtype), table.to(dtype)
        self.inputs: dict[int, Tensor] = {}
        self.running: dict[tuple[int, int], Tensor] = {}
        layers = [m for m in self.network.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
        self.patches = [patch if isinstance(m, nn.Conv2d) else 0 for m in layers]
        for i, layer in enumerate(layers):
            layer.register_forward_pre_hook(lambda _, inputs, i=i: self.inputs.__setitem__(i, inputs[0]))

    def statistics(self, x: Tensor) -> tuple[Tensor, list[list[Tensor]]]:
        """Logits and the statistics of every layer."""
        logits = self.network(x)
        return logits, [plain_statistics(self.inputs[i].to(self.dtype), patch) for i, patch in enumerate(self.patches)]

    def visit(self, x: Tensor, labels: Tensor, skip: Set[int] = frozenset()) -> tuple[Tensor, Tensor]:
        """Logits and the loss of one visit to a group of images (B, C, S, S) with classes (B,)."""
        logits, of_layers = self.statistics(x)
        loss = torch.zeros((), dtype=self.dtype, device=x.device)
        start, alpha, rho = 0, self.settings.alpha, self.settings.ema
        for i, statistics in enumerate(of_layers):
            targets = []
            for s in statistics:
                targets.append(
                    (self.everything[start : start + len(s)], self.table[labels][:, start : start + len(s)].mean(0))
                )
                start += len(s)
            if self.settings.swap_class_patch and len(targets) == 4:
                targets[2], targets[3] = (targets[2][0], targets[3][1]), (targets[3][0], targets[2][1])
            if i in skip:
                continue
            for j, (s, (of_all, of_classes)) in enumerate(zip(statistics, targets, strict=True)):
                first = s if self.settings.ema_init == "first" else torch.zeros_like(s)
                e = (rho * self.running.get((i, j), first) + (1 - rho) * s).detach()
                self.running[i, j] = e
                shifted = e + s - s.detach()
                term = alpha * (of_all - shifted).norm() + (1 - alpha) * (of_classes - shifted).norm()
                loss = loss + (self.settings.first_hook if i == 0 else 1.0) * term
        return logits, loss
