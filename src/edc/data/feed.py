"""Batches for a network: shuffled, augmented and normalised images on its device."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from edc.config.rows import Dataset
from edc.data.augment import Normaliser, pad_crop
from edc.data.crops import CropDraws, draw_crops
from edc.data.images import Images, ImageSet, Indices
from edc.data.replay import batches_of
from edc.nets.distributed import own_part

T = TypeVar("T")

PREFETCH = 3
"""Batches decoded in advance."""
DECODERS = 2
"""Batches decoded at once, so that no core idles at the end of a batch."""


class Feed:
    """Batches of one set of images, epoch by epoch, augmented as the dataset says.

    Images in memory are moved to the device once; streamed ones are decoded in the background, a few batches ahead.
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
        """Every image once, in random order, each with its own crop and flip: as :meth:`plain`.

        All draws are made by this call, so later draws of the caller do not depend on how many batches were read. Where
        several processes share the run, a batch has this process's images and the classes of all.

        Args:
            join: add a single last image to the batch before, because batch norm needs two.
            start: batches to skip; the others do not change.
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
        """Images (default: all) in order: float32 (B, C, S, S), normalised, and classes (B,), on the device."""
        order = torch.arange(len(self)) if indices is None else torch.as_tensor(indices, dtype=torch.int64).cpu()
        batches = list(order.split(batch)) if len(order) else []
        for index, pixels in zip(batches, self._pixels(batches, None), strict=True):
            yield self.normaliser.encode(pixels), self.labels[index.to(self.device)]

    def _augmented(
        self, batches: Sequence[Tensor], offsets: Tensor | None, crops: CropDraws | None, flips: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        parts = [own_part(index) for index in batches]
        for index, part, pixels in zip(batches, parts, self._pixels(parts, crops), strict=True):
            labels, index = self.labels[index.to(self.device)], part.to(self.device)
            if offsets is None:  # cropped already
                pixels = torch.where(flips[index][:, None, None, None], pixels.flip(-1), pixels)
            else:
                pixels = pad_crop(pixels, offsets[index], self.dataset.pad, flips[index])
            yield self.normaliser.encode(pixels), labels

    def _pixels(self, batches: Sequence[Tensor], crops: CropDraws | None) -> Iterator[Tensor]:
        """uint8 (B, C, S, S) on the device, batch after batch."""
        work = [functools.partial(self._read, index, crops) for index in batches]
        if isinstance(self.images, ImageSet):
            yield from (read() for read in work)
        else:
            yield from (pixels.to(self.device, non_blocking=True) for pixels in prefetched(work))

    def _read(self, index: Tensor, crops: CropDraws | None) -> Tensor:
        pixels = self.images.read(index, None if crops is None else crops[index])
        return pixels.pin_memory() if self.device.type == "cuda" and not pixels.is_cuda else pixels


def prefetched(work: Iterable[Callable[[], T]], depth: int = PREFETCH) -> Iterator[T]:
    """Results of functions in order, computed by threads up to `depth` in advance.

    An exception is raised in the place of its result; no thread continues after a reader stops early.
    """
    remaining = iter(work)
    pool = ThreadPoolExecutor(DECODERS, thread_name_prefix="feed")
    waiting: deque[Future[T]] = deque()
    try:
        waiting.extend(pool.submit(job) for job in islice(remaining, depth))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(job) for job in islice(remaining, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
