"""The loss that matches statistics of an observer's layers (EDC section 3.1, after SRe2L and G-VBSM)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from edc.condense.layer_statistics import Hook
from edc.config.choices import Match


class StatisticsMatcher:
    """The matching loss of one observer and its running statistics (EDC Eq. 5; soft category-aware matching).

    With s the batch's statistics and e their running value, e <- rho e + (1 - rho) s, the loss of layer l is

        r_l = sum over its statistics of alpha * ||S_global - s~|| + (1 - alpha) * ||S_class - s~||,
        s~ = e + s - stopgrad(s),

    norms unsquared, and the total is sum_l w_l r_l with w = ``first_hook`` for the first layer and 1 for the others.
    Norms of variances count ``variance`` times.
    Several groups of images may be matched at once: then everything per group has a leading dimension G, and there is
    one loss per group.

    Since s~ has the value e and the gradient of s, d loss / d s is known in closed form: the unit vectors
    (e - S) / ||e - S|| of every statistic. Autograd differentiates nothing of this.

    Without class targets alpha is 1. Targets are the global one (D,) and the classes' (K, D).
    """

    def __init__(
        self, hooks: Sequence[Hook], settings: Match, global_target: Tensor, class_table: Tensor | None
    ) -> None:
        self.settings, self.global_target = settings, global_target
        self.alpha = settings.global_share if class_table is not None else 1.0
        if class_table is not None and settings.swap_class_patch:
            class_table = class_table[:, swapped_cells(hooks)]
        self.class_table = class_table
        device = global_target.device
        lengths = torch.tensor([length for hook in hooks for length in hook.lengths], dtype=torch.int64)
        self.segment = torch.repeat_interleave(torch.arange(len(lengths)), lengths).to(device)
        # Means and variances alternate.
        weights = [
            (settings.first_hook if i == 0 else 1.0) * (settings.variance if j % 2 else 1.0)
            for i, hook in enumerate(hooks)
            for j in range(len(hook.lengths))
        ]
        self.weights = torch.tensor(weights, device=device)
        self.owner = torch.tensor([i for i, hook in enumerate(hooks) for _ in range(hook.size)], device=device)
        self.running: Tensor | None = None
        self._value = torch.zeros_like(global_target)
        self.class_target = global_target

    def start_group(self, labels: Tensor, reset: bool = True) -> None:
        """Set the class target, the mean of the rows of the images' classes (B,), or (G, B) of several groups.

        `reset` forgets the running statistics.
        """
        if self.class_table is not None:
            self.class_target = self.class_table[labels].mean(dim=-2)
        if reset:
            self.running = None

    def _update(self, statistics: Tensor, skip: set[int] | None) -> Tensor:
        running = self.running
        if running is None:
            # NaN marks statistics that were never updated; they start from their first value.
            start = float("nan") if self.settings.ema_init == "first" else 0.0
            running = torch.full_like(statistics, start)
        updated = torch.lerp(torch.where(running.isnan(), statistics, running), statistics, 1 - self.settings.ema)
        if skip:
            skipped = torch.isin(self.owner, torch.tensor(sorted(skip), device=self.owner.device))
            updated = torch.where(skipped, running, updated)
        self.running = updated
        return updated.nan_to_num() if skip else updated

    def norms(self, residual: Tensor) -> Tensor:
        """Length of every statistic's part of a vector (..., D): (..., number of statistics)."""
        squares = residual.new_zeros(*residual.shape[:-1], len(self.weights))
        return squares.index_add_(-1, self.segment, residual * residual).sqrt_()

    def __call__(self, statistics: Tensor, skip: set[int] | None = None, update: bool = True) -> Tensor:
        """The loss of one visit, a scalar or (G,), whose gradient reaches the batch through ``statistics``.

        These are (D,), or (G, D), with their graph; `update` updates the running ones first.
        """
        if update or self.running is None:
            self._value = self._update(statistics.detach(), skip)
        return self.distance(statistics, [(self.alpha, self.global_target), (1 - self.alpha, self.class_target)], skip)

    def distance(
        self, statistics: Tensor, targets: Sequence[tuple[float, Tensor]], skip: set[int] | None = None
    ) -> Tensor:
        """Weighted distance of the running statistics to targets (share, (D,)), with the gradient of the batch's."""
        value, weights = self._value, self.weights
        if skip:
            absent = torch.zeros(int(self.owner[-1]) + 1, device=weights.device)
            absent[sorted(skip)] = 1
            present = torch.zeros_like(weights)
            present[self.segment] = 1 - absent[self.owner]
            weights = weights * present
        loss = torch.zeros((), device=value.device)
        direction = torch.zeros_like(value)
        for share, target in targets:
            if share == 0:
                continue
            residual = value - target
            norms = self.norms(residual)
            loss = loss + share * (weights * norms).sum(-1)
            unit = torch.where(norms > 0, share * weights / norms, 0.0)
            direction += residual * unit[..., self.segment]
        # Value of the loss, gradient of the closed form.
        return loss + (statistics * direction).sum(-1) - (statistics.detach() * direction).sum(-1)


def swapped_cells(hooks: Sequence[Hook]) -> Tensor:
    """Index that exchanges cell means and cell variances, which EDC's code confuses: int64 (D,)."""
    index = torch.arange(sum(hook.size for hook in hooks))
    for hook in hooks:
        if hook.kind == "conv":
            means, variances = hook.start + 2 * hook.channels, hook.start + 2 * hook.channels + hook.cells
            order = [*range(variances, variances + hook.cells), *range(means, means + hook.cells)]
            index[means : means + 2 * hook.cells] = torch.tensor(order)
    return index


def skipped_hooks(hooks: Sequence[Hook], drop: float, rng: np.random.Generator) -> set[int]:
    """Convolutions left out of a visit, each with probability ``drop`` (G-VBSM's beta_dr)."""
    if drop == 0:
        return set()
    return {i for i, hook in enumerate(hooks) if hook.kind == "conv" and rng.random() < drop}
