"""The choices of synthesis beside EDC's own: what is matched, regularised, cropped and rolled."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rows import synthesize_row as row
from support.synthesis import CLASSES, NORMALISER, SHAPE, make_observers, network, start
from torch import Tensor, nn

from edc.condense.engine import Progress, augmentation, step, synthesize
from edc.condense.initialise import groups_of
from edc.condense.observer import Observer
from edc.config.choices import SynthesisAugment
from edc.config.rows import SynthesizeRow
from edc.errors import EdcError

WHOLE = {"crop_scale": (1.0, 1.0), "flip": False}


def one_visit(
    settings: SynthesizeRow, observer: Observer | None = None, moved: float = 0.1
) -> tuple[dict[str, Tensor], Tensor]:
    images, labels = start()
    images.requires_grad_(True)
    observer = observer or make_observers(settings)[0]
    observer.matcher.start_group(labels)
    losses = step(images, images.detach() + moved, labels, observer, settings, range(1), 0)
    return losses, images


def test_bn_needs_a_bn_layer() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, CLASSES)).eval()
    with pytest.raises(EdcError, match="o0 has no BN layer"):
        Observer.make("o0", model, row(statistics=None, match={"layers": ["bn"], "target": "global"}), 1, SHAPE, None)


def test_a_global_target_is_both_with_all_of_the_weight() -> None:
    category = row(observers=1, match={"alpha": 1.0})
    layers = row(observers=1, match={"target": "global", "alpha": 0.3})  # alpha is for categories only
    one, other = one_visit(category)[0]["matching"], one_visit(layers)[0]["matching"]
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    half = one_visit(row(observers=1, match={"alpha": 0.5}))[0]["matching"]
    assert not torch.equal(half, one)


@pytest.mark.parametrize("layers", [["bn"], ["conv"]])
def test_classes_can_be_matched_in_one_kind_of_layer(layers: list[str]) -> None:
    """LPLD's loss: the distance of a group's statistics to its classes' in these layers, and nothing else."""
    settings = row(observers=1, match={"layers": layers, "target": "class", "weight": 1.0, "first_hook": 1.0})
    images, labels = start()
    (observer,), (whole,) = make_observers(settings), make_observers(row(observers=1))
    table = whole.matcher.class_table
    assert table is not None
    observer.matcher.start_group(labels)
    x = NORMALISER.encode(images)
    measured, target = whole.collector(x)[1].detach(), table[labels].mean(0)
    expected = 0.0
    for hook in whole.collector.hooks:
        if hook.kind in layers:
            lengths = torch.tensor([0, *hook.lengths]).cumsum(0) + hook.start
            for first, last in pairwise(lengths):
                expected += float((measured[first:last] - target[first:last]).norm())
    assert float(observer.matcher(observer.collector(x)[1])) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("carry", [False, True])
def test_running_statistics_are_carried_to_the_next_group_if_asked(carry: bool) -> None:
    settings = row(iterations=2, observers=1, match={"carry": carry, "ema": 0.5})
    images, labels = start()

    def seen(state: Progress) -> list[Tensor]:
        """Running statistics after every iteration."""
        found: list[Tensor] = []

        def after(now: Progress) -> None:
            found.append(now.running["o0"].clone())

        groups, observers = groups_of(CLASSES, 2, 3, 1), make_observers(settings)
        synthesize(images, labels, groups, observers, settings, NORMALISER, state, after)
        return found

    # The second group on its own has the same draws of the augmentation.
    assert torch.equal(seen(Progress())[2], seen(Progress(group=1, done=images.clone()))[0]) != carry


def test_statistic_flatness_vanishes_on_images_that_rest() -> None:
    settings = row(observers=1, match={"ema": 0.0}, regularise={"method": "statistics", "weight": 1.0})
    rest, _ = one_visit(settings, moved=0.0)
    assert float(rest["regularise"].detach()) == pytest.approx(0, abs=1e-4)
    losses, images = one_visit(settings, moved=0.3)
    moved = losses["regularise"]
    assert float(moved.detach()) > 0.1
    (gradient,) = torch.autograd.grad(moved, images)
    assert gradient.abs().sum() > 0


def test_sharpness_is_the_rise_of_the_loss_up_its_gradient() -> None:
    settings = row(
        observers=1,
        match={"target": "none", "cross_entropy": 0.5},
        augment=WHOLE,
        regularise={"method": "sam", "weight": 1.0, "radius": 0.2},
    )
    losses, images = one_visit(settings)
    model, (_, labels) = network(0), start()
    plain = F.cross_entropy(model(images), labels)
    (gradient,) = torch.autograd.grad(plain, images)
    step_up = 0.2 * gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    expected = 0.5 * (F.cross_entropy(model(images + step_up), labels) - plain)
    torch.testing.assert_close(losses["regularise"][0], expected, rtol=1e-4, atol=1e-6)
    assert float(expected.detach()) > 0


@given(st.integers(0, 3), st.integers(0, 2), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_roll_and_padding_move_pixels_and_make_none_up(pad: int, roll: int, seed: int) -> None:
    choices = SynthesisAugment(pad=pad, crop_scale=(1.0, 1.0), flip=True, roll=(-roll, roll))
    images = 1 + torch.arange(2 * 64, dtype=torch.float32).view(2, 1, 8, 8)
    result = augmentation(np.random.default_rng(seed), choices, 0, 1, 8)(images)
    assert result.shape == images.shape
    kept = result[result > 0]
    assert len(set(kept.tolist())) == len(kept)
    assert set(kept.tolist()) <= set(images.flatten().tolist())
    assert len(kept) >= 2 * (8 - pad) ** 2
    if not pad:
        assert len(kept) == images.numel()


def test_the_curriculum_begins_with_whole_images() -> None:
    choices = SynthesisAugment(crop_scale=(0.08, 1.0), flip=False, curriculum={"name": "step", "milestone": 0.5})
    images = torch.rand(1, 1, 16, 16)
    for seed in range(20):
        early = augmentation(np.random.default_rng(seed), choices, 4, 10, 16)(images)
        assert torch.equal(early, images)
    late = [augmentation(np.random.default_rng(seed), choices, 5, 10, 16)(images) for seed in range(20)]
    assert not all(torch.equal(x, images) for x in late)
