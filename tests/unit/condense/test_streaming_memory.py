"""Streamed sets decode a picture once however many crops are asked of it, and hold no more for that."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from edc.condense.composites import composites
from edc.condense.initialise import InitialisationInputs
from edc.config.rows import Dataset, SynthesizeRow
from edc.data import pictures
from edc.data.augment import Normaliser
from edc.data.crops import draw_crops
from edc.data.sets import StreamedSet, load_split

NAMES, EACH, SIDE = ("ant", "bee"), 12, 16


class Opened(Counter[str]):
    """How often each picture was opened, by Pillow itself; at which time most were open at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.now, self.most, lock, real = 0, 0, threading.Lock(), Image.open

        @contextmanager
        def counting(path: Path) -> Iterator[Image.Image]:
            with lock:
                self[path.name] += 1
                self.now += 1
                self.most = max(self.most, self.now)
            with real(path) as picture:
                yield picture
            with lock:
                self.now -= 1

        monkeypatch.setattr(pictures.Image, "open", counting)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Pictures of 20 to 31 pixels, none square."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in NAMES:
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(EACH):
                values = rng.integers(0, 256, (20 + i, 31 - i, 3), dtype=np.uint8)
                Image.fromarray(values).save(tmp_path / part / name / f"{name}{i:02}.png")
    return tmp_path


def dataset(root: Path, **changes: Any) -> Dataset:
    values = {"name": "d", "family": "d", "kind": "folder", "root": str(root), "image_size": SIDE, "classes": 2}
    values |= {"mean": [0.5] * 3, "std": [0.25] * 3, "streamed": True, "val_fraction": 0.0}
    return Dataset(**values | changes)


def streamed(root: Path, **changes: Any) -> StreamedSet:
    found = load_split(dataset(root, **changes), "train")
    assert isinstance(found, StreamedSet)
    return found


@pytest.mark.parametrize("threads", [1, 2])
def test_a_picture_is_decoded_once_for_all_its_crops(root: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    train, times = streamed(root), 5
    index = torch.tensor([7, 3, 20, 0, 11, 23]).repeat_interleave(times)
    crops = draw_crops(np.random.default_rng(0), len(index), (0.1, 0.9))
    apart = torch.cat([train.read(index[i : i + 1], crops[i : i + 1], 6) for i in range(len(index))])
    monkeypatch.setattr(pictures, "SMALL", 0)
    monkeypatch.setattr(pictures, "available_cores", lambda: threads)
    opened = Opened(monkeypatch)
    together = train.read(index, crops, 6)
    assert torch.equal(together, apart)
    assert dict(opened) == {f"{NAMES[i // EACH]}{i % EACH:02}.png": 1 for i in index.unique().tolist()}
    assert 1 <= opened.most <= threads


@pytest.mark.filterwarnings("ignore:.*unreadable so far")
def test_the_stand_in_of_an_unreadable_picture_is_cropped_as_often(root: Path) -> None:
    (root / "train" / "ant" / "ant03.png").write_bytes(b"broken")
    train = streamed(root, unreadable_limit=1)
    index = torch.tensor([0, 3]).repeat_interleave(3)
    crops = draw_crops(np.random.default_rng(0), 6, (0.1, 0.9))
    found = train.read(index, crops)
    assert torch.equal(found[3:], train.read([4] * 3, crops[3:]))
    assert len(found.flatten(1).unique(dim=0)) == 6


class Brightness(nn.Module):
    """Answers by the channel means."""

    def forward(self, x: Tensor) -> Tensor:
        return 5 * x.mean(dim=(2, 3))[:, :2]


def test_composites_decode_every_candidate_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = 8
    row = SynthesizeRow(
        dataset="d",
        recipe="r",
        ipc=1,
        seed=0,
        scorers=["o"],
        initialise={"method": "composites", "candidates": candidates, "crops": 5, "factor": 2},
        match={"method": "none"},
        optimise={"iterations": 0},
    )
    device = torch.device("cpu")
    values = dataset(root)
    opened = Opened(monkeypatch)
    normaliser = Normaliser(values.mean, values.std, device)
    images, labels = composites(
        InitialisationInputs(streamed(root), row, values, normaliser, device, lambda: [Brightness()])
    )
    assert (images.shape, labels.tolist()) == ((2, 3, SIDE, SIDE), [0, 1])
    assert set(opened.values()) == {1}
    assert Counter(name[:3] for name in opened) == dict.fromkeys(NAMES, candidates)
