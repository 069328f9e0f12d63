"""An observer in synthesis: a frozen network with the statistics its layers are matched against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edc.condense.layer_statistics import StatisticsCollector, running_statistics
from edc.condense.matching import StatisticsMatcher
from edc.config.optimise import Perturb
from edc.config.rows import SynthesizeRow
from edc.errors import EdcError
from edc.nets.frozen import frozen
from edc.nets.placing import compute_logits


@dataclass
class Observer:
    """A frozen network's row, the collector of its statistics, and the loss that matches them.

    Attributes:
        pretrained: copies of its weights, once they were perturbed.
    """

    name: str
    collector: StatisticsCollector
    matcher: StatisticsMatcher
    pretrained: list[Tensor] = field(default_factory=list)

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
        anchors = row.match.target == "anchors"  # features, and no statistics
        collector = StatisticsCollector(network, patch, shape, () if anchors else tuple(row.match.layers))
        if targets is None:
            if not collector.hooks and not anchors:
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

    def perturb(self, images: Tensor, labels: Tensor, settings: Perturb) -> None:
        """Move the pretrained weights up the cross-entropy of images (B, C, S, S), normalised (DWA, NeurIPS 2024).

        ``steps`` times theta <- theta + radius / steps * g / ||g||, the norm over all weights together. BN layers keep
        their running statistics, which are used and matched. Each call begins at the pretrained weights; the published
        code goes on from the previous group's where one process makes several groups with one network.
        """
        network = self.collector.observer
        weights: list[Tensor] = list(network.parameters())
        self.pretrained = self.pretrained or [weight.detach().clone() for weight in weights]
        with torch.no_grad():
            torch._foreach_copy_(weights, self.pretrained)
        network.requires_grad_(True)
        for _ in range(settings.steps):
            loss = F.cross_entropy(compute_logits(network, images), labels)
            gradients = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
            scale = settings.radius / settings.steps / torch.nn.utils.get_total_norm(gradients)
            with torch.no_grad():
                for weight, gradient in zip(weights, gradients, strict=True):
                    weight.add_(gradient * scale)
        frozen(network)
