"""Smaller stores of soft labels: values by hand, round trips, bytes, and how stored epochs are used again."""

from collections import Counter

import numpy as np
import pytest
import torch
from support.rows import dataset

from edc.config.protocol import LabelChoices, Loss
from edc.config.rows import RelabelRow
from edc.data.augment import Normaliser
from edc.data.replay import batch_count
from edc.training.label_store import StoredLabels, compress, files, label_bytes, open_store
from edc.training.losses import gift, kl
from edc.training.sources import Condensed

LOGITS = np.random.default_rng(0).normal(0, 4, (3, 5, 9)).astype(np.float16)


def test_gift_by_hand() -> None:
    """Case 2 of its golden cases: t = (2, -1, 2), y = 0, z = (1, 2, 0)."""
    z, t = torch.tensor([[1.0, 2.0, 0.0]]).double(), torch.tensor([[2.0, -1.0, 2.0]]).double()
    loss = Loss(name="gift", ce_weight=0.1, smoothing=0.1)
    assert float(gift(z, t, torch.tensor([0]), loss)) == pytest.approx(0.953738, abs=1e-6)
    assert float(gift(7 * z, t, torch.tensor([0]), loss)) == pytest.approx(0.953738, abs=1e-6)


def test_the_largest_two_are_normalised_among_themselves() -> None:
    """Case 3: t = (2, -1, 1) at temperature 2."""
    choices = LabelChoices(top_k=2)
    labels = StoredLabels(compress(np.array([[[2, -1, 1]]], np.float16), choices), 3, choices, "kl")
    target = torch.from_numpy(labels[0])
    np.testing.assert_allclose((target / 2).softmax(1)[0], [0.622459, 0, 0.377541], atol=1e-6)
    loss = kl(torch.zeros(1, 3), target, torch.tensor([0]), Loss(name="kl", temperature=2))
    expected = 0.622459 * np.log(0.622459) + 0.377541 * np.log(0.377541) + np.log(3)
    assert float(loss) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("loss", ["kl", "mse_ce"])
@pytest.mark.parametrize("top_k", [None, 4, 9, 20])
@pytest.mark.parametrize("bits", [16, 8, 4])
def test_what_is_stored_comes_back(bits: int, top_k: int | None, loss: str) -> None:
    choices = LabelChoices(bits=bits, top_k=top_k)
    arrays = compress(LOGITS, choices)
    assert list(arrays) == files(choices, 9)
    labels = open_store(arrays.__getitem__, 9, choices, loss)
    assert tuple(labels.shape) == LOGITS.shape
    stored = np.stack([labels[epoch] for epoch in range(3)]).astype(np.float64)
    k = min(top_k or 9, 9)
    largest = np.argsort(-LOGITS, axis=-1, kind="stable")[..., :k]
    original, copy = (np.take_along_axis(values, largest, -1).astype(np.float64) for values in (LOGITS, stored))
    step = np.ptp(original, axis=-1, keepdims=True) / (2**bits - 1)
    assert (abs(original - copy) <= 0.51 * step).all()
    rest = np.sort(stored, axis=-1)[..., : 9 - k]
    fill = -1e4 if loss == "kl" else np.broadcast_to(copy.min(-1, keepdims=True), rest.shape)
    np.testing.assert_allclose(rest, fill)


@pytest.mark.parametrize("top_k", [None, 4, 3])
@pytest.mark.parametrize("bits", [16, 8, 4])
def test_bytes_are_those_of_the_arrays(bits: int, top_k: int | None) -> None:
    choices = LabelChoices(bits=bits, top_k=top_k)
    assert label_bytes("soft", list(LOGITS.shape), choices) == sum(a.nbytes for a in compress(LOGITS, choices).values())


def test_a_row_of_equal_logits_is_stored_exactly() -> None:
    choices = LabelChoices(bits=4)
    labels = StoredLabels(compress(np.full((1, 2, 5), 3, np.float16), choices), 5, choices, "kl")
    np.testing.assert_array_equal(labels[0], 3)


def source(reuse: str, regime: str = "soft") -> Condensed:
    """Six images of two stored epochs; a label holds its epoch and its image."""
    row = RelabelRow(dataset="d", images="i", observers=["o"], flip=True, epochs=2, batch=3, views=2, mix="none")
    targets = np.stack([np.stack([np.full(6, epoch), np.arange(6)], 1) for epoch in range(2)]).astype(np.float16)
    images = torch.randint(0, 256, (6, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    values = dataset(image_size=8)
    normaliser = Normaliser(values.mean, values.std)
    return Condensed(images, torch.arange(6) % 2, targets, regime, row, 3, normaliser, reuse)  # type: ignore[arg-type]


def seen(given: Condensed, epoch: int) -> list[tuple[int, int, float]]:
    """Stored epoch, image and a checksum of the view, in order."""
    return [
        (int(target[0]), int(target[1]), round(float(view.sum()), 3))
        for x, targets, _ in given.epoch(epoch)
        for view, target in zip(x, targets, strict=True)
    ]


@pytest.mark.parametrize("reuse", ["cycle", "shuffle", "pool"])
def test_views_and_labels_stay_together_when_used_again(reuse: str) -> None:
    given = source(reuse)
    first = {row[:2]: row[2] for epoch in range(2) for row in seen(source("cycle"), epoch)}
    later = [row for epoch in range(8) for row in seen(given, epoch)]
    assert all(first[epoch, image] == pytest.approx(view, abs=0.01) for epoch, image, view in later)
    assert len({row[:2] for row in later}) == 12
    assert seen(given, 5) == seen(source(reuse), 5)


def test_orders_of_use() -> None:
    epochs = {
        reuse: [Counter(row[0] for row in seen(source(reuse), e)) for e in range(8)] for reuse in ("cycle", "shuffle")
    }
    assert epochs["cycle"] == [Counter({e % 2: 6}) for e in range(8)]
    assert epochs["shuffle"] != epochs["cycle"]
    assert all(epochs["shuffle"][e] + epochs["shuffle"][e + 1] == Counter({0: 6, 1: 6}) for e in range(0, 8, 2))
    pooled = [seen(source("pool"), e) for e in range(8)]
    assert all(len({row[:2] for row in rows}) == 6 for rows in pooled)  # without replacement
    assert any(len({row[0] for row in rows}) == 2 for rows in pooled)
    assert batch_count(6, 3) == 2


def test_hard_labels_never_run_out_of_views() -> None:
    given = source("cycle", "hard")
    views = [sum(float(x.sum()) for x, _, _ in given.epoch(epoch)) for epoch in (0, 2)]
    assert views[0] != views[1]
