"""Synthesis on tiny real networks: its loss, its order, its independence and its resumption."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.laboratory import KilledError
from support.rows import synthesize_row as row
from support.synthesis import CLASSES, NORMALISER, SHAPE, made, make_observers, network, nothing, start
from torch import Tensor, nn

from edc.condense.engine import HISTORY, Progress, groups_together, step, synthesize
from edc.condense.initialise import groups_of
from edc.condense.layer_statistics import StatisticsCollector
from edc.condense.matching import StatisticsMatcher
from edc.condense.observer import Observer
from edc.condense.regularise import flatness
from edc.data.augment import Normaliser, crop_boxes
from edc.data.rng import generator
from edc.errors import EdcError


def view(images: Tensor, box: Sequence[int], flip: bool) -> Tensor:
    """One crop and one flip for all images, written plainly."""
    top, left, height, width = box
    part = images[..., top : top + height, left : left + width]
    part = F.interpolate(part, size=images.shape[-2:], mode="bilinear", align_corners=False)
    return part.flip(-1) if flip else part


def test_golden_total_loss(golden: dict[str, Any]) -> None:
    """Real layers with the golden residuals: cross-entropy + weight * (10 r_1 + r_2 + r_3) + weight * flatness."""
    case = golden["recover_total_loss"]
    # On constant images every convolution passes the pixel on, and the second logit is the pixel.
    model = nn.Sequential(*[nn.Conv2d(1, 1, 1, bias=False) for _ in range(3)], nn.AvgPool2d(8), nn.Flatten())
    model.append(nn.Linear(1, 2, bias=False)).eval().requires_grad_(False)
    for layer in model[:3]:
        layer.weight.fill_(1.0)
    model[-1].weight.copy_(torch.tensor([[0.0], [1.0]]))
    pixel = math.log(math.exp(case["ce"]) - 1)  # -log softmax of class 0

    def kl(other: float) -> float:
        logits, averaged = torch.tensor([[[0.0, pixel]], [[0.0, other]]], dtype=torch.float64)
        return float(flatness(logits, averaged, 4.0, "batch_mean"))

    low, high = pixel - 5, pixel
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if kl(middle) > case["kl_flat"] else (low, middle)
    assert kl(low) == pytest.approx(case["kl_flat"], rel=1e-9)

    settings = row(
        observers=1,
        match={"weight": case["r_loss"], "first_hook": case["first_multiplier"], "alpha": 0.5, "ema": 0.0},
        regularise={"method": "logits", "weight": case["flatness_weight"], "tau": 4.0},
    )
    images = torch.full((2, 1, 8, 8), pixel, requires_grad=True)
    collector = StatisticsCollector(model, 4, (1, 8, 8))
    target = collector(images.detach())[1]
    for hook, residual in zip(collector.hooks, case["r_feature_in_named_modules_order"], strict=True):
        first = hook.start
        for length in hook.lengths:  # each of the four statistics misses its target by a quarter
            target[first] += residual / 4
            first += length
    observer = Observer("o0", collector, StatisticsMatcher(collector.hooks, settings.match, target, target[None]))
    labels = torch.zeros(2, dtype=torch.int64)
    observer.matcher.start_group(labels)
    losses = step(images, torch.full_like(images, low), labels, observer, settings, range(1), 0)
    assert losses["cross_entropy"].item() == pytest.approx(case["ce"], abs=1e-5)
    assert losses["matching"].item() == pytest.approx(case["r_loss"] * (case["first_multiplier"] * 1 + 2 + 3), abs=1e-5)
    assert losses["regularise"].item() == pytest.approx(case["flatness_weight"] * case["kl_flat"], abs=1e-6)
    assert sum(losses.values()).item() == pytest.approx(case["total"], abs=1e-5)
    sum(losses.values()).backward()
    assert images.grad.abs().sum() > 0


def test_terms_that_are_off_are_absent() -> None:
    images, labels = start()
    images.requires_grad_(True)

    def terms(**choices: Any) -> set[str]:
        settings = row(observers=1, **choices)
        observer = make_observers(settings)[0]
        observer.matcher.start_group(labels)
        return set(step(images, images.detach(), labels, observer, settings, range(1), 0))

    assert terms(match={"target": "none"}) == {"cross_entropy"}
    assert terms() == {"cross_entropy", "matching"}
    assert terms(regularise={"method": "logits"}) == {"cross_entropy", "matching", "regularise"}


def test_statistics_of_another_network_are_refused() -> None:
    targets = {"global": torch.zeros(5), "classes": torch.zeros(CLASSES, 5)}
    with pytest.raises(EdcError, match=r"statistics of o0 have 5 values, the network has \d+") as error:
        Observer.make("o0", network(0), row(), 4, SHAPE, targets)
    assert "\n" not in str(error.value)


CHOICES: dict[str, dict[str, Any]] = {
    "default": {},
    "flatness": {
        "match": {"weight": 0.1, "ema_init": "zero", "alpha": 0.25},
        "regularise": {"method": "logits", "beta": 0.5, "weight": 100.0},
    },
    "drop": {"augment": {"flip": False, "crop_scale": (0.08, 1.0)}, "match": {"weight": 0.1, "drop": 0.5, "ema": 0.0}},
    "constant": {"match": {"cross_entropy": 0.5}, "optimise": {"schedule": "constant", "clamp": False, "lr": 0.5}},
    "drop_ema": {"match": {"weight": 1.0, "drop": 0.5}},
}


@pytest.mark.parametrize("choices", ["default", "flatness", "drop", "constant"])
def test_whole_run_against_a_plain_loop(choices: str) -> None:
    settings = row(iterations=5, **CHOICES[choices])
    images, labels = start()
    observers = make_observers(settings)
    expected, visits = images.clone(), 0
    for g, group in enumerate(groups_of(CLASSES, 2, 4, 1)):
        x, targets = images[group].clone(), labels[group]
        averaged = x.clone()
        momentum, square = torch.zeros_like(x), torch.zeros_like(x)
        for observer in observers:
            observer.matcher.start_group(targets)
        for k in range(5):
            observer = observers[visits % 2]
            visits += 1
            rng = generator(0, "synthesize", g, k)
            box = crop_boxes(rng, 1, 8, settings.augment.crop_scale)[0]
            flip = bool(rng.random() < 0.5) and settings.augment.flip
            hooks = observer.collector.hooks
            drop = settings.match.drop
            skip = {i for i, h in enumerate(hooks) if drop and h.kind == "conv" and rng.random() < drop}
            x.requires_grad_(True)
            logits, statistics = observer.collector(view(x, box, flip), skip)
            loss = settings.match.cross_entropy * F.cross_entropy(
                logits, targets
            ) + settings.match.weight * observer.matcher(statistics, skip)
            if settings.regularise.method == "logits":
                averaged_logits = observer.collector.logits(view(averaged, box, flip))
                loss = loss + settings.regularise.weight * flatness(logits, averaged_logits, 4.0, "batch_mean")
            (gradient,) = torch.autograd.grad(loss, x)
            x = x.detach()
            averaged = settings.regularise.beta * averaged + (1 - settings.regularise.beta) * x
            momentum = 0.5 * momentum + 0.5 * gradient
            square = 0.9 * square + 0.1 * gradient**2
            rate = 0.5 if choices == "constant" else 0.05 * 0.5 * (1 + math.cos(math.pi * k / 5))
            x = x - rate * (momentum / (1 - 0.5 ** (k + 1))) / ((square / (1 - 0.9 ** (k + 1))).sqrt() + 1e-8)
            if choices != "constant":
                x = x.maximum(NORMALISER.low).minimum(NORMALISER.high)
        expected[group] = x
    result, _ = made(settings, group=4)
    # Adam's first steps divide by |gradient|: where that is rounding noise, so is the direction.
    difference = (result - expected).abs()
    assert float(difference.median()) < 1e-6
    assert float((difference > 1e-4).float().mean()) < 0.01


@pytest.mark.parametrize("regularise", ["none", "logits", "statistics", "sam", "densification"])
def test_several_groups_at_once_give_what_one_after_the_other_gives(regularise: str) -> None:
    """Three groups of two images, all at once; each with its own draws, statistics and history."""
    settings = row(iterations=4, regularise={"method": regularise, "weight": 1.0})
    one, kept = made(settings, group=2)
    three, together = made(settings, group=2, at_once=3)
    assert (one - start()[0]).abs().max() > 0.1
    difference = (one - three).abs()  # see above
    assert float(difference.median()) < 1e-6
    assert float((difference > 1e-4).float().mean()) < 0.01
    assert [line[:3] for line in together.history] == [line[:3] for line in kept.history]
    np.testing.assert_allclose(together.history, kept.history, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("choices", "together"),
    [
        ({}, 3),
        ({"iterations": 5}, 1),  # the second group would begin with another observer
        ({"match": {"carry": True}}, 1),
        ({"match": {"drop": 0.5}}, 1),
    ],
)
def test_groups_that_depend_on_each_other_are_made_one_by_one(choices: dict[str, Any], together: int) -> None:
    groups = groups_of(CLASSES, 4, 4, 1)
    assert groups_together(groups, 0, row(**choices), 2, 3) == together
    assert groups_together(groups, len(groups) - 1, row(**choices), 2, 3) == 1


def test_networks_in_half_precision_find_the_same_direction() -> None:
    """Pixels, statistics and loss stay in full precision."""
    settings = row(match={"weight": 1.0})
    images, labels = start()
    gradients = []
    for precision in (torch.float32, torch.bfloat16):
        observer = make_observers(settings, precision)[0]
        observer.matcher.start_group(labels)
        pixels = images.clone().requires_grad_()
        losses = step(pixels, images, labels, observer, settings, range(1), 0)
        assert {loss.dtype for loss in losses.values()} == {torch.float32}
        torch.stack(list(losses.values())).sum().backward()
        assert pixels.grad is not None
        gradients.append(pixels.grad.flatten())
    assert float(F.cosine_similarity(*gradients, dim=0)) > 0.98
    assert not torch.equal(*gradients)


def test_same_seed_same_images_and_the_initial_ones_do_not_change() -> None:
    images, _ = start()
    one, _ = made(row(regularise={"method": "logits"}), group=4, images=images)
    assert torch.equal(images, start()[0])
    two, _ = made(row(regularise={"method": "logits"}), group=4)
    other, _ = made(row(seed=1, regularise={"method": "logits"}), group=4)
    assert torch.equal(one, two)
    assert not one.requires_grad
    assert not torch.equal(one, other)


@pytest.mark.parametrize("choices", ["flatness", "drop_ema"])
def test_interrupted_runs_end_with_the_same_pixels(choices: str, tmp_path: Path) -> None:
    """Whatever the iteration a run is killed in, it resumes from its saved state bit for bit."""
    settings = row(iterations=5, **CHOICES[choices])
    path = tmp_path / "state.pt"
    expected, whole = made(settings, group=4)
    for stop in range(1, 11):

        def after(now: Progress, stop: int = stop) -> None:
            if now.group * 5 + now.iteration == stop:
                torch.save(vars(now), path)
                raise KilledError

        with pytest.raises(KilledError):
            made(settings, group=4, after=after)
        state = Progress(**torch.load(path, weights_only=True))
        result, state = made(settings, group=4, state=state)
        assert torch.equal(result, expected), stop
        assert state.history == whole.history
    assert (whole.group, whole.iteration, whole.pixels) == (2, 0, None)
    # Nothing is left to do for a finished state.
    assert torch.equal(made(settings, group=4, state=whole, after=pytest.fail)[0], expected)


def test_saved_tensors_need_no_gradient(tmp_path: Path) -> None:
    """A leaf that wants a gradient is no leaf any more once it is moved to a GPU, and Adam refuses it."""

    def after(now: Progress) -> None:
        torch.save(vars(now), tmp_path / "state.pt")

    made(row(iterations=1), after=after)
    kept = torch.load(tmp_path / "state.pt", weights_only=True)
    tensors = [kept[name] for name in ("pixels", "averaged", "done")] + list(kept["running"].values())
    assert len(tensors) == 4
    assert not any(tensor.requires_grad for tensor in tensors)


def test_an_interrupted_run_resumes_where_fewer_groups_fit(tmp_path: Path) -> None:
    """The groups being optimised restart one by one, with the same result."""
    settings = row(iterations=4)

    def after(now: Progress) -> None:
        if now.group == 0 and now.iteration == 3:
            torch.save(vars(now), tmp_path / "state.pt")

    made(settings, group=2, at_once=3, after=after)
    expected, whole = made(settings, group=2)
    kept = Progress(**torch.load(tmp_path / "state.pt", weights_only=True))
    assert kept.together == 3
    result, state = made(settings, group=2, state=kept)
    assert torch.equal(result, expected)
    assert state.history == whole.history


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_set_on_the_host_has_the_result_of_one_on_the_gpu(tmp_path: Path) -> None:
    """From bytes to bytes, killed in the second group."""
    settings = row(iterations=4)
    images, labels = start()
    device = torch.device("cuda")
    normaliser = Normaliser((0.5, 0.4, 0.3), (0.25, 0.2, 0.3), device)
    pixels = NORMALISER.decode(images)

    def keep(finished: Tensor) -> Tensor:
        return normaliser.decode(finished).cpu()

    def run(
        images: Tensor, state: Progress, after: Callable[[Progress], None], keep: Callable[[Tensor], Tensor]
    ) -> Tensor:
        observers, groups = make_observers(settings, device="cuda"), groups_of(CLASSES, 2, 3, 1)
        return synthesize(images, labels, groups, observers, settings, normaliser, state, after, 1, keep)

    def after(now: Progress) -> None:
        if (now.group, now.iteration) == (1, 2):
            torch.save(vars(now), tmp_path / "state.pt")

    expected = normaliser.decode(run(normaliser.encode(pixels.to(device)), Progress(), nothing, Tensor.detach)).cpu()
    assert torch.equal(run(pixels, Progress(), after, keep), expected)
    state = Progress(**torch.load(tmp_path / "state.pt", map_location="cpu", weights_only=True))
    assert torch.equal(run(pixels, state, nothing, keep), expected)


@pytest.mark.parametrize("at_once", [1, 2])
def test_results_are_what_finish_returns(at_once: int) -> None:
    """From pixels to pixels, as the stage has it: equal to rounding at the end, nothing kept before a group is done."""
    settings, sizes = row(iterations=4), []
    images, labels = start()
    pixels = NORMALISER.decode(images)

    def after(now: Progress) -> None:
        sizes.append(now.done.numel())

    def keep(finished: Tensor) -> Tensor:
        sizes.append(len(finished))
        return NORMALISER.decode(finished)

    groups = groups_of(CLASSES, 2, 3, 1)
    asked = (labels, groups, make_observers(settings), settings, NORMALISER, Progress(), after, at_once)
    result = synthesize(pixels, *asked, keep)
    whole, _ = made(settings, group=3, images=NORMALISER.encode(pixels), at_once=at_once)
    assert torch.equal(result, NORMALISER.decode(whole))
    everything = pixels.numel()
    assert sizes == ([0] * 4 + [3] + [everything] * 4 + [3] if at_once == 1 else [0] * 4 + [6])


def test_pixels_stay_in_the_range_of_pictures() -> None:
    result, _ = made(row(iterations=8, optimise={"lr": 2.0}))
    assert (result >= NORMALISER.low).all()
    assert (result <= NORMALISER.high).all()
    on_edge = (result == NORMALISER.low) | (result == NORMALISER.high)
    assert on_edge.any()  # the steps were large enough to leave it


def test_history_of_a_long_run_is_thinned() -> None:
    _, state = made(row(iterations=210, observers=2, match={"target": "none"}))
    assert [line[:3] for line in state.history] == [[0, k, k % 2] for k in [*range(0, 210, 2), 209]]
    assert {len(line) for line in state.history} == {len(HISTORY)}
