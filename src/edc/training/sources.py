"""Where the batches of a student come from: a condensed set with its labels, or the whole training set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from edc.config.rows import RelabelRow
from edc.data.augment import Normaliser
from edc.data.feed import Feed
from edc.data.replay import Replay, batch_count, batches_of
from edc.data.rng import generator

Batch = tuple[Tensor, Tensor | None, Tensor]
"""Images (B, C, S, S), soft labels (B, K) or None, and classes (B,)."""
Regime = Literal["soft", "static", "hard"]


class Source(Protocol):
    """Batches of a student's N `images`."""

    images: int

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch."""


class Condensed:
    """A condensed set, images (N, C, S, S) uint8 and classes (N,) on the device, augmented as for the teachers.

    Targets are the stored logits: (E, N, K) under the regime soft, (N, K) under static.
    """

    def __init__(
        self,
        images: Tensor,
        classes: Tensor,
        targets: np.ndarray,
        regime: Regime,
        choices: RelabelRow,
        batch: int,
        normaliser: Normaliser,
        reuse: str = "cycle",
    ) -> None:
        self.images, self.classes, self.targets, self.regime, self.batch = len(images), classes, targets, regime, batch
        self.replay, self.reuse = Replay(images, choices, normaliser), reuse
        self.stored = choices.epochs

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch; CutMix and mixup under per-epoch soft labels only.

        Where fewer epochs are stored than trained, they are used again in order (cycle), in an order drawn anew for
        every round (shuffle), or batch by batch, drawn without replacement from all stored batches (pool).
        """
        if self.reuse == "pool" and self.regime == "soft":
            yield from self._pooled(epoch)
            return
        position, stored = divmod(epoch, self.stored) if self.regime == "soft" else (0, epoch)
        if self.reuse == "shuffle" and position:
            stored = int(generator(self.replay.row.seed, "reuse", position).permutation(self.stored)[stored])
        targets = soft_targets(self.targets, self.regime, stored, self.classes.device)
        for index, x in self.replay.epoch(stored, self.batch, mix=self.regime == "soft"):
            yield x, None if targets is None else targets[index].to(torch.float32), self.classes[index]

    def _pooled(self, epoch: int) -> Iterator[Batch]:
        count = batch_count(self.images, self.batch)
        rng = generator(self.replay.row.seed, "pool", epoch)
        for chosen in rng.choice(self.stored * count, count, replace=False):
            stored, number = divmod(int(chosen), count)
            draws = self.replay.draws(stored)
            index = batches_of(draws.order, self.batch)[number]
            targets = soft_targets(self.targets, "soft", stored, self.classes.device)
            assert targets is not None
            index = index.to(self.classes.device)
            yield self.replay.batch([(draws, index.cpu())]), targets[index].to(torch.float32), self.classes[index]


class Real:
    """The training set with its hard labels, the upper bound of condensation."""

    def __init__(self, feed: Feed, batch: int) -> None:
        self.feed, self.batch, self.images = feed, batch, len(feed)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch; the same for every seed of the student."""
        for x, labels in self.feed.epoch(generator(0, "real", epoch), self.batch):
            yield x, None, labels


def soft_targets(targets: Any, regime: str, epoch: int, device: torch.device) -> Tensor | None:
    """The soft labels of one epoch as logits (N, K) in half precision, on the device; None under hard labels."""
    if regime == "hard":
        return None
    rows = targets[epoch] if regime == "soft" else targets
    return torch.from_numpy(np.array(rows)).to(device)
