"""Composites: which crops are kept, in what order, and how they are tiled."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rows import synthesize_row
from support.synthesis import inputs, pictures
from torch import Tensor, nn

from edc.condense.composites import best_crops, best_images, composites, padded, scores, tile
from edc.condense.initialise import InitialisationInputs, pick
from edc.data.crops import draw_crops
from edc.data.images import ImageSet
from edc.data.rng import generator
from edc.errors import EdcError

SIZE, COUNTS = 8, (30, 20, 25)


class Brightness(nn.Module):
    """Answers by the channel means, and counts what it is asked."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        self.sign, self.asked = sign, 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        assert x.shape[1:] == (3, SIZE, SIZE)
        return self.sign * 5 * x.mean(dim=(2, 3))


def start(
    train: ImageSet | None = None,
    scorers: list[nn.Module] | None = None,
    ipc: int = 3,
    seed: int = 0,
    iterations: int = 0,
    flip: bool = True,
    **initialise: Any,
) -> InitialisationInputs:
    train = train or pictures(COUNTS)
    choices = {"method": "composites", "candidates": 20} | initialise
    row = synthesize_row(iterations, ipc=ipc, seed=seed, scorers=["o"], initialise=choices, match={"target": "none"})
    return inputs(train, row, scorers or [Brightness()], flip)


def test_several_observers_answer_with_their_mean_logits() -> None:
    crops = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 0])
    one = scores([Brightness()], crops, labels, SIZE)
    torch.testing.assert_close(scores([Brightness(), Brightness()], crops, labels, SIZE), one)
    both = scores([Brightness(), Brightness(-1.0)], crops, labels, SIZE)
    torch.testing.assert_close(both, torch.full((4,), 3.0).log())
    expected = F.cross_entropy(Brightness()(padded(crops, SIZE)), labels, reduction="none")
    torch.testing.assert_close(one, expected)


def test_equal_scores_keep_their_order() -> None:
    losses = torch.tensor([[2.0, 1.0, 1.0], [0.5, 0.5, 0.5], [3.0, 1.0, 2.0]])
    best, lowest = best_crops(losses)
    assert best.tolist() == [1, 0, 1]
    assert lowest.tolist() == [1.0, 0.5, 1.0]
    assert best_images(lowest, 3).tolist() == [1, 0, 2]
    assert best_images(lowest, 2).tolist() == [1, 0]


@given(st.integers(1, 4), st.integers(1, 3), st.integers(4, 20), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_every_crop_fills_its_cell(factor: int, n: int, size: int, source: int) -> None:
    """Against nearest-neighbour resizing by the library, cell by cell."""
    crops = torch.arange(n * factor**2 * source * source, dtype=torch.float64).view(-1, 1, source, source)
    images = tile(crops, factor, size)
    assert images.shape == (n, 1, size, size)
    sides = [len(part) for part in torch.arange(size).tensor_split(factor)]
    assert sides == sorted(sides, reverse=True)
    for i, image in enumerate(images):
        rows = [list(strip.split(sides, dim=-1)) for strip in image.split(sides, dim=-2)]
        for cell in range(factor**2):
            result = rows[cell // factor][cell % factor]
            crop = crops[i + cell * n]
            # Exact arithmetic: the library's float32 scale may be off by one pixel.
            down, across = (torch.arange(length) * source // length for length in result.shape[-2:])
            assert torch.equal(result, crop[:, down][:, :, across])


@pytest.mark.parametrize("factor", [1, 2])
def test_the_crops_with_the_lowest_losses_are_used(factor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step written plainly, one image and one crop at a time; forward passes are cut at odd places."""
    monkeypatch.setattr("edc.nets.passes.IMAGES", 13)
    scorer, network = Brightness(), Brightness()
    given = start(scorers=[scorer], factor=factor, crops=4, crop_scale=[0.2, 0.9])
    result, labels = composites(given)
    assert scorer.asked == 3 * 20 * 4  # no more than the candidates
    assert result.dtype == torch.uint8
    assert labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    train = given.train
    for c in range(3):
        rng = generator(0, "composites", c)
        members = train.by_class(c)
        members = members[torch.from_numpy(rng.permutation(len(members))[:20])]
        draws = draw_crops(rng, 4 * len(members), (0.2, 0.9), (1.0, 1.0))
        ranked = []
        for i, member in enumerate(members):
            options = []
            for k in range(4):
                crop = train.read([int(member)], draws[4 * i + k : 4 * i + k + 1], SIZE // factor)
                logits = network(padded(given.normaliser.encode(crop), SIZE))
                options.append((float(F.cross_entropy(logits, torch.tensor([c]))), crop))
            ranked.append(min(options, key=lambda option: option[0]))
        ranked.sort(key=lambda option: option[0])
        best = torch.cat([crop for _, crop in ranked[: 3 * factor**2]])
        assert torch.equal(result[3 * c : 3 * c + 3], tile(best, factor, SIZE))


def test_a_composite_is_a_function_of_seed_and_class() -> None:
    first = composites(start())[0]
    assert torch.equal(first, composites(start())[0])
    assert not torch.equal(first, composites(start(seed=1))[0])
    fewer = pictures(COUNTS)
    keep = torch.cat([fewer.by_class(0)[:15], fewer.by_class(1), fewer.by_class(2)])
    smaller = composites(start(fewer.select(keep.sort().values)))[0]
    assert torch.equal(first[3:], smaller[3:])  # a class is independent of the others


def test_drawn_from_a_pool() -> None:
    pool = composites(start(ipc=4, factor=2))[0].view(3, 4, 3, SIZE, SIZE)
    for draw in ("independent", "softmin", "distinct"):
        result = composites(start(ipc=3, factor=2, pool=4, draw=draw))[0].view(3, 3, 3, SIZE, SIZE)
        for c in range(3):
            picks = pick(generator(0, "initialise", c), 4, 3, draw)
            assert torch.equal(result[c], pool[c, torch.from_numpy(picks)])
    few = composites(start(ipc=10, pool=2))[0].view(3, 10, -1)
    assert all(1 <= len(images.unique(dim=0)) <= 2 for images in few)


@pytest.mark.parametrize(("iterations", "flip", "mirrored"), [(5, True, True), (5, False, False), (0, True, False)])
def test_what_is_optimised_starts_mirrored_by_chance(iterations: int, flip: bool, mirrored: bool) -> None:
    plain = composites(start(ipc=10, pool=10, draw="distinct"))[0]
    result = composites(start(ipc=10, pool=10, draw="distinct", iterations=iterations, flip=flip))[0]
    same = (result == plain).flatten(1).all(dim=1)
    assert bool(same.all()) is not mirrored
    assert torch.equal(torch.where(same[:, None, None, None], result, result.flip(-1)), plain)


@pytest.mark.parametrize(
    ("changes", "begin", "end"),
    [
        ({"ipc": 6, "factor": 2}, "initialise.candidates = 20: 6 composites of 2 x 2 crops need 24;", "ipc or"),
        ({"ipc": 6, "factor": 2, "candidates": 100}, "class 'b' has 20 training images, 6 composites of", "ipc or"),
        ({"ipc": 2, "pool": 8, "factor": 2}, "initialise.candidates = 20: 8 composites of 2 x 2", "initialise.pool or"),
        ({"ipc": 3, "pool": 2, "draw": "distinct"}, "initialise.pool = 2: expected at least ipc = 3 where", None),
        ({"train": pictures((30,) * 3, 4), "factor": 5, "ipc": 1, "candidates": 30}, "initialise.factor = 5:", None),
    ],
)
def test_too_few_candidates_are_refused(changes: dict[str, Any], begin: str, end: str | None) -> None:
    network = Brightness()
    with pytest.raises(EdcError) as refused:
        composites(start(scorers=[network], **changes))
    assert str(refused.value).startswith(begin)
    assert end is None or str(refused.value).endswith(f"lower {end} initialise.factor")
    assert network.asked == 0
