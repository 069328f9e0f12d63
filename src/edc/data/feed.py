"""Images on their way to a network: shuffled, augmented and normalised batches on its device."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from edc.data.augment import Normaliser, pad_crop
from edc.data.crops import CropDraws, draw_crops
from edc.data.images import Images, ImageSet, Indices
from edc.data.replay import batches_of

if TYPE_CHECKING:
    from edc.config.rows import Dataset

T = TypeVar("T")

AHEAD = 3
"""Batches decoded or waiting while the network works on one."""
DECODERS = 2
"""Batches decoded at once: the end of one must not leave cores idle."""


class Feed:
    """Brings one set of images to a network, epoch by epoch.

    Images in memory are kept on the device; streamed ones are decoded in the background, a few batches ahead.

    Args:
        images: what to show.
        dataset: how training images are augmented.
        normaliser: into the space the network sees, on the device.
        device: where the batches go.
    """

    def __init__(self, images: Images, dataset: Dataset, normaliser: Normaliser, device: torch.device | str) -> None:
        self.dataset, self.normaliser, self.device = dataset, normaliser, torch.device(device)
        self.images = images.to(self.device) if isinstance(images, ImageSet) else images
        self.labels = images.labels.to(self.device)

    def __len__(self) -> int:
        return len(self.labels)

    def epoch(
        self, rng: np.random.Generator, batch: int, join: bool = True, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once, in random order, each with its own crop and flip.

        All draws are made by this call, before the first batch is asked for: the order, the offsets in the padding or
        the rectangles, the flips. What the caller draws afterwards does not depend on how far the batches were read.

        Args:
            rng: source of the draws.
            batch: images per batch.
            join: a last image left alone joins the batch before, for batch norm's sake.
            start: batches left out at the beginning; the others stay as they are.

        Returns:
            Images float32 (B, C, S, S), normalised, and classes (B,), on the device.
        """
        n, dataset = len(self), self.dataset
        order = torch.from_numpy(rng.permutation(n))
        offsets = crops = None
        if dataset.crop_scale is None:
            offsets = torch.from_numpy(rng.integers(0, 2 * dataset.pad + 1, (n, 2))).to(self.device)
        else:
            crops = draw_crops(rng, n, dataset.crop_scale)
        flips = torch.from_numpy(rng.random(n) < (0.5 if dataset.flip else 0.0)).to(self.device)
        batches = batches_of(order, batch) if join else list(order.split(batch))
        return self._augmented(batches[start:], offsets, crops, flips)

    def plain(self, batch: int, indices: Indices | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Images as they are, in order.

        Args:
            batch: images per batch.
            indices: which; None: all.

        Returns:
            Images float32 (B, C, S, S), normalised, and classes (B,), on the device.
        """
        order = torch.arange(len(self)) if indices is None else torch.as_tensor(indices, dtype=torch.int64).cpu()
        batches = list(order.split(batch)) if len(order) else []
        for index, pixels in zip(batches, self._pixels(batches, None), strict=True):
            yield self.normaliser.encode(pixels), self.labels[index.to(self.device)]

    def _augmented(
        self, batches: Sequence[Tensor], offsets: Tensor | None, crops: CropDraws | None, flips: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for index, pixels in zip(batches, self._pixels(batches, crops), strict=True):
            chosen = index.to(self.device)
            if offsets is None:  # cropped already
                pixels = torch.where(flips[chosen][:, None, None, None], pixels.flip(-1), pixels)
            else:
                pixels = pad_crop(pixels, offsets[chosen], self.dataset.pad, flips[chosen])
            yield self.normaliser.encode(pixels), self.labels[chosen]

    def _pixels(self, batches: Sequence[Tensor], crops: CropDraws | None) -> Iterator[Tensor]:
        """uint8 (B, C, S, S) on the device, batch after batch."""
        if isinstance(self.images, ImageSet):
            for index in batches:
                yield self.images.read(index, None if crops is None else crops[index])
            return
        for pixels in ahead(functools.partial(self._decoded, index, crops) for index in batches):
            yield pixels.to(self.device, non_blocking=True)

    def _decoded(self, index: Tensor, crops: CropDraws | None) -> Tensor:
        pixels = self.images.read(index, None if crops is None else crops[index])
        return pixels.pin_memory() if self.device.type == "cuda" else pixels


def ahead(work: Iterable[Callable[[], T]], depth: int = AHEAD) -> Iterator[T]:
    """Results in order, worked out by threads up to `depth` ahead of the one asked for.

    An exception comes up where its result would have; a reader that stops early leaves nothing running.
    """
    remaining = iter(work)
    pool = ThreadPoolExecutor(DECODERS, thread_name_prefix="feed")
    waiting: deque[Future[T]] = deque()
    try:
        waiting.extend(pool.submit(job) for job in islice(remaining, depth))
        while waiting:
            found = waiting.popleft().result()
            waiting.extend(pool.submit(job) for job in islice(remaining, 1))
            yield found
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
