"""Sums of per-image statistics, from which the global and the per-class targets of matching follow."""

from __future__ import annotations

import torch

from edc.condense.layout import Layout


class ClassSums:
    """Running sums of per-image statistics of K classes, in float32, from which both targets follow.

    A batch's variance over (image, pixel) is the mean of the images' variances plus the variance of their means, so
    per-image statistics suffice.
    """

    def __init__(self, layout: Layout, classes: int, device: torch.device) -> None:
        self.layout = layout
        self.means = torch.zeros(classes, layout.half, device=device)
        self.variances, self.squares = torch.zeros_like(self.means), torch.zeros_like(self.means)
        self.everything = torch.zeros(2, layout.half, device=device)
        self.counts = torch.zeros(classes, device=device)

    def add(self, means: torch.Tensor, variances: torch.Tensor, labels: torch.Tensor) -> None:
        """Add one batch: every image's means and variances (B, D / 2), and classes (B,)."""
        mean = means.mean(dim=0)
        spread = (means - mean).square_().mean(dim=0)
        self.everything += torch.stack([mean, variances.mean(dim=0) + spread]) * len(labels)
        self.means.index_add_(0, labels, means)
        self.variances.index_add_(0, labels, variances)
        self.squares.index_add_(0, labels, means * means)
        self.counts.index_add_(0, labels, torch.ones_like(labels, dtype=self.counts.dtype))

    def result(self, class_variance: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Global vector (D,) and class table (K, D); "mixture" adds the variance of the images' means to a class's."""
        means, variances, squares = (
            table / self.counts[:, None] for table in (self.means, self.variances, self.squares)
        )
        if class_variance == "mixture":
            variances += (squares - means * means).clamp_min_(0)
        mean, variance = (self.everything / self.counts.sum()).unsqueeze(1)
        return self.layout.vector(mean, variance)[0], self.layout.vector(means, variances)

    def state(self) -> dict[str, torch.Tensor]:
        return {name: getattr(self, name) for name in ("means", "variances", "squares", "everything", "counts")}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        for name, tensor in state.items():
            getattr(self, name).copy_(tensor)
