"""Batches on their way to a network: the bits of the formula, and a bounded number of them in memory."""

import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import rows
from torch import Tensor

from edc.config.rows import Dataset
from edc.data.augment import Normaliser, pad_crop
from edc.data.crops import draw_crops
from edc.data.feed import PREFETCH, Feed, prefetched
from edc.data.images import Images, ImageSet
from edc.data.replay import batches_of
from edc.data.rng import generator
from edc.data.sets import load_split
from edc.errors import EdcError

N, SIZE = 41, 8


dataset = partial(rows.dataset, kind="folder", pad=2, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.4], val_fraction=0.0)


def image_set(n: int = N) -> ImageSet:
    draws = torch.Generator().manual_seed(n)
    images = torch.randint(0, 256, (n, 3, SIZE, SIZE), generator=draws, dtype=torch.uint8)
    return ImageSet(images, torch.arange(n) % 3, ("a", "b", "c"))


def made(images: Images, given: Dataset) -> Feed:
    return Feed(images, given, Normaliser(given.mean, given.std), "cpu")


def same(result: list[tuple[Tensor, Tensor]], expected: list[tuple[Tensor, Tensor]]) -> None:
    assert len(result) == len(expected)
    for (x, labels), (wanted, truth) in zip(result, expected, strict=True):
        assert torch.equal(x, wanted)
        assert torch.equal(labels, truth)


@pytest.mark.parametrize(("batch", "join"), [(10, True), (10, False), (20, True), (100, True), (1, False)])
@pytest.mark.parametrize("flip", [True, False])
def test_padded_crops_have_the_bits_of_the_formula(batch: int, join: bool, flip: bool) -> None:
    """The draws and the arithmetic of the training loop, written out: results made with it must come out again."""
    images, given = image_set(), dataset(flip=flip)
    normaliser = Normaliser(given.mean, given.std)
    rng = generator(3, "pretrain", 5)
    order = torch.from_numpy(rng.permutation(N))
    offsets = torch.from_numpy(rng.integers(0, 5, (N, 2)))
    flips = torch.from_numpy(rng.random(N) < (0.5 if flip else 0.0))
    expected = []
    for index in batches_of(order, batch) if join else order.split(batch):
        x = normaliser.encode(pad_crop(images.images[index], offsets[index], 2, flips[index]))
        expected.append((x, images.labels[index]))

    same_rng = generator(3, "pretrain", 5)
    result = made(images, given).epoch(same_rng, batch, join)
    # What is drawn next, a dropout seed, must not depend on when the batches are made.
    assert same_rng.integers(2**31) == rng.integers(2**31)
    same(list(result), expected)
    if join and batch == 20:
        assert [len(labels) for _, labels in expected] == [20, 21]


@pytest.mark.parametrize("scale", [None, (0.3, 1.0)])
@pytest.mark.parametrize("start", [1, 4, 5, 9])
def test_skipped_batches_leave_the_others_as_they_are(start: int, scale: tuple[float, float] | None) -> None:
    feed = made(image_set(), dataset(crop_scale=scale))
    whole = list(feed.epoch(generator(1), 10, join=False))
    assert len(whole) == 5
    same(list(feed.epoch(generator(1), 10, join=False, start=start)), whole[start:])


def test_random_areas_take_the_place_of_padding() -> None:
    images, given = image_set(), dataset(crop_scale=(0.3, 0.8))
    rng = generator(2)
    order = rng.permutation(N)
    crops = draw_crops(rng, N, (0.3, 0.8))
    flips = rng.random(N) < 0.5
    assert 0 < flips.sum() < N
    normaliser = Normaliser(given.mean, given.std)
    result = list(made(images, given).epoch(generator(2), 10))
    shown = torch.cat([x for x, _ in result])
    for position, row in enumerate(order):
        pixels = images.read([row], crops[row : row + 1])
        expected = normaliser.encode(pixels.flip(-1) if flips[row] else pixels)
        assert torch.equal(shown[position : position + 1], expected)
        assert not torch.equal(expected, normaliser.encode(images.read([row])))
    assert torch.equal(torch.cat([labels for _, labels in result]), images.labels[torch.from_numpy(order)])


@pytest.mark.parametrize("batch", [1, 10, 41, 500])
def test_plain_batches_are_the_images_in_order(batch: int) -> None:
    images, given = image_set(), dataset(crop_scale=(0.3, 0.8))
    feed = made(images, given)
    assert len(feed) == N
    encode = Normaliser(given.mean, given.std).encode
    expected = list(zip(encode(images.images).split(batch), images.labels.split(batch), strict=True))
    same(list(feed.plain(batch)), expected)
    chosen = torch.tensor([7, 3, 3, 40])
    same(list(feed.plain(3, chosen)), [(encode(images.images[i]), images.labels[i]) for i in chosen.split(3)])
    assert list(feed.plain(3, [])) == []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    images = image_set()
    for part in ("train", "val"):
        for i, (image, label) in enumerate(zip(images.images, images.labels, strict=True)):
            folder = tmp_path / part / "abc"[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i:02d}.png")
    return tmp_path


def test_streamed_batches_are_those_from_memory(root: Path) -> None:
    given = dataset(root=str(root))
    streamed = made(load_split(given.model_copy(update={"streamed": True}), "train"), given)
    resident = made(load_split(given, "train"), given)
    assert not isinstance(streamed.images, ImageSet)
    same(list(streamed.epoch(generator(1), 10)), list(resident.epoch(generator(1), 10)))
    same(list(streamed.plain(7)), list(resident.plain(7)))
    cropped = given.model_copy(update={"crop_scale": (0.3, 0.9)})
    one, other = made(streamed.images, cropped), made(resident.images, cropped)
    for (x, labels), (y, truth) in zip(one.epoch(generator(1), 10), other.epoch(generator(1), 10), strict=True):
        assert torch.equal(labels, truth)
        assert (x - y).abs().max() <= 1 / 255 / 0.2 + 1e-6  # one grey level, see crop_and_resize


class Counted(Images):
    """Streamed images that count how many of them are held: decoded, and not yet let go by the network."""

    def __init__(self, n: int) -> None:
        self.labels, self.classes = torch.arange(n) % 3, ("a", "b", "c")
        self.lock, self.alive, self.peak, self.total = threading.Lock(), 0, 0, 0

    shape, digest = (3, SIZE, SIZE), ""  # type: ignore[assignment]

    def read(self, indices: Any, crops: Any = None, size: Any = None) -> Tensor:
        with self.lock:
            self.alive += len(indices)
            self.total += len(indices)
            self.peak = max(self.peak, self.alive)
        return torch.zeros(len(indices), 3, SIZE, SIZE, dtype=torch.uint8)

    def select(self, indices: Any) -> Images:
        raise NotImplementedError

    def release(self, n: int) -> None:
        with self.lock:
            self.alive -= n


def test_with_threads_the_bound_holds_too_and_every_image_comes_once() -> None:
    images = Counted(1003)
    feed = made(images, dataset())
    seen = 0
    for x, labels in feed.epoch(generator(0), 10):
        assert len(x) == len(labels)
        seen += len(x)
        images.release(len(x))
    assert seen == images.total == 1003
    assert 10 < images.peak <= (1 + PREFETCH) * 10 + 3
    assert images.alive == 0


def test_a_reader_that_stops_early_leaves_nothing_running() -> None:
    images = Counted(1000)
    batches = made(images, dataset()).plain(10)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert images.total <= (1 + PREFETCH) * 10
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("feed")]


def test_an_error_in_the_background_comes_up_in_its_place() -> None:
    def work(i: int) -> int:
        if i == 5:
            raise EdcError("five")
        return i

    results = prefetched(lambda i=i: work(i) for i in range(9))
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(EdcError, match="five"):
        next(results)


def test_results_come_in_order_although_later_ones_are_ready_first() -> None:
    second = threading.Event()

    def work(i: int) -> int:
        if i == 0:
            assert second.wait(30)  # ready only once the next one is
        if i == 1:
            second.set()
        return i

    assert list(prefetched(lambda i=i: work(i) for i in range(6))) == list(range(6))


def test_an_unreadable_picture_stops_the_epoch_with_its_name(root: Path) -> None:
    (root / "train" / "a" / "00.png").write_bytes(b"broken")
    given = dataset(root=str(root), streamed=True)
    feed = made(load_split(given, "train"), given)
    with pytest.raises(EdcError, match=r"a/00\.png \(not a known image format\); expected at most 0"):
        list(feed.epoch(np.random.default_rng(0), 10))
