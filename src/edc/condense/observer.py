"""An observer in synthesis: a frozen network with the statistics its layers are matched against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edc.condense.layer_statistics import StatisticsCollector, running_statistics
from edc.condense.matching import StatisticsMatcher
from edc.config.rows import SynthesizeRow
from edc.errors import EdcError


@dataclass
class Observer:
    """A frozen network's row, the collector of its statistics, and the loss that matches them."""

    name: str
    collector: StatisticsCollector
    matcher: StatisticsMatcher

    @classmethod
    def make(
        cls,
        name: str,
        network: nn.Module,
        row: SynthesizeRow,
        patch: int,
        shape: Sequence[int],
        targets: dict[str, Tensor] | None,
    ) -> Observer:
        """Register the hooks and check that the stored statistics are of this network, in eval mode on its device.

        Args:
            patch: cell side the statistics were made with.
            shape: (C, H, W) of the images.
            targets: "global" (D,) and "classes" (K, D); None where only BN layers are matched, to themselves.

        Raises:
            EdcError: the statistics are of another network or image size, or there is nothing to match.
        """
        collector = StatisticsCollector(network, patch, shape, tuple(row.match.layers))
        if targets is None:
            if not collector.hooks:
                raise EdcError(f"observer {name} has no BN layer, and match.layers = ['bn'] matches nothing else")
            device = next(network.parameters()).device
            running = running_statistics(network, collector.hooks, torch.zeros(collector.size, device=device))
            return cls(name, collector, StatisticsMatcher(collector.hooks, row.match, running, None))
        every = StatisticsCollector(network, patch, shape)  # the statistics' own layout
        every.close()
        if (size := targets["global"].numel()) != every.size:
            raise EdcError(f"statistics of {name} have {size} values, the network has {every.size}; make them again")
        if len(row.match.layers) == 1:
            parts = [
                torch.arange(hook.start, hook.start + hook.size)
                for hook in every.hooks
                if hook.kind in row.match.layers
            ]
            index = torch.cat(parts).to(targets["global"].device)
            targets = {key: target[..., index] for key, target in targets.items()}
        table = targets["classes"] if row.match.classwise else None
        return cls(name, collector, StatisticsMatcher(collector.hooks, row.match, targets["global"], table))
