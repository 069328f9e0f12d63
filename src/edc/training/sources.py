"""Where the batches of a student come from: a condensed set with its labels, or the whole training set."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edc.config.phases import HardLabels
from edc.config.rows import RelabelRow
from edc.data.augment import Normaliser
from edc.data.feed import Feed
from edc.data.replay import Replay, batch_count, batches_of
from edc.data.rng import generator

Batch = tuple[Tensor, Tensor | None, Tensor]
"""Images (B, C, S, S), soft labels (B, K) or None, and classes (B,), or where hard labels are smoothed or mixed their
probabilities (B, K)."""
Regime = Literal["soft", "static", "hard"]


class Source(Protocol):
    """Batches of a student's N `images`."""

    images: int

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch."""


class Condensed:
    """A condensed set, images (N, C, S, S) uint8 and classes (N,) on the device, augmented as for the teachers.

    Targets are the stored logits: (E, N, K) under the regime soft, (N, K) under static. Phases are the regime of every
    epoch where it changes. For ``views`` see :class:`~edc.data.replay.Replay`.
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
        phases: Sequence[str] = (),
        hard: HardLabels | None = None,
        views: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.images, self.classes, self.targets, self.regime, self.batch = len(images), classes, targets, regime, batch
        self.replay, self.reuse = Replay(images, choices, normaliser, views), reuse
        self.stored, self.phases, self.hard = choices.epochs, list(phases), hard or HardLabels()
        # Batches of a pool are read one by one, several of an epoch each.
        self._draws = functools.lru_cache(maxsize=32)(self.replay.draws)
        self.of_hard = self.replay
        if self.hard.mix != "none":
            self.of_hard = Replay(images, choices.model_copy(update={"mix": self.hard.mix}), normaliser)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch; CutMix and mixup under per-epoch soft labels, and where hard labels are mixed.

        Where fewer epochs are stored than trained, they are used again in order (cycle), in an order drawn anew for
        every round (shuffle), or batch by batch: drawn without replacement from all stored batches, anew in every epoch
        (pool) or when all were used (pool_once). Soft phases go on where the last one ended; hard ones have views that
        no soft label was stored for.
        """
        regime: str = self.regime
        number = epoch
        if self.phases:
            regime = self.phases[epoch]
            number = self.phases[:epoch].count("soft") if regime == "soft" else self.stored + epoch
        if regime == "hard":
            yield from self._hard(number)
            return
        if regime == "soft" and self.reuse in ("pool", "pool_once"):
            yield from self._pooled(number)
            return
        position, stored = divmod(number, self.stored) if regime == "soft" else (0, number)
        if self.reuse == "shuffle" and position:
            stored = int(generator(self.replay.row.seed, "reuse", position).permutation(self.stored)[stored])
        targets = soft_targets(self.targets, regime, stored, self.classes.device)
        assert targets is not None
        for index, x in self.replay.epoch(stored, self.batch, mix=regime == "soft"):
            yield x, targets[index].to(torch.float32), self.classes[index]

    def _hard(self, number: int) -> Iterator[Batch]:
        mixed, a = self.hard.mix != "none", self.hard.smoothing
        draws = self.of_hard.draws(number) if mixed else None
        for index, x in self.of_hard.epoch(number, self.batch, mix=mixed):
            labels = self.classes[index]
            if mixed or a:
                labels = smoothed(labels, self.targets.shape[-1], a)
            if draws is not None:
                chosen = index.cpu()
                others = smoothed(self.classes[draws.partners[chosen].to(index.device)], self.targets.shape[-1], a)
                share = draws.own_shares(self.of_hard.images.shape[-1])[chosen].to(index.device)[:, None]
                labels = share * labels + (1 - share) * others
            yield x, None, labels

    def _pooled(self, epoch: int) -> Iterator[Batch]:
        count = batch_count(self.images, self.batch)
        places, seed = self.stored * count, self.replay.row.seed
        if self.reuse == "pool":
            batches = generator(seed, "pool", epoch).choice(places, count, replace=False)
        else:
            position, part = divmod(epoch, self.stored)
            batches = generator(seed, "pool", "once", position).permutation(places)[part * count : (part + 1) * count]
        for chosen in batches:
            stored, number = divmod(int(chosen), count)
            draws = self._draws(stored)
            index = batches_of(draws.order, self.batch)[number]
            targets = torch.from_numpy(np.array(self.targets[stored, index.numpy()])).to(self.classes.device)
            classes = self.classes[index.to(self.classes.device)]
            yield self.replay.batch([(draws, index)]), targets.to(torch.float32), classes


class Real:
    """The training set with its hard labels, the upper bound of condensation."""

    def __init__(self, feed: Feed, batch: int) -> None:
        self.feed, self.batch, self.images = feed, batch, len(feed)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch; the same for every seed of the student."""
        for x, labels in self.feed.epoch(generator(0, "real", epoch), self.batch):
            yield x, None, labels


def smoothed(classes: Tensor, count: int, smoothing: float) -> Tensor:
    """One-hot vectors (B, K), smoothed: 1 - a + a / K for the class, a / K for the others (Szegedy et al. 2016)."""
    return F.one_hot(classes, count).to(torch.float32) * (1 - smoothing) + smoothing / count


def soft_targets(targets: Any, regime: str, epoch: int, device: torch.device) -> Tensor | None:
    """The soft labels of one epoch as logits (N, K) in half precision, on the device; None under hard labels."""
    if regime == "hard":
        return None
    rows = targets[epoch] if regime == "soft" else targets
    return torch.from_numpy(np.array(rows)).to(device)
