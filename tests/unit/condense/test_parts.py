"""Blends, sizes, staggered starts and perturbed observers, against a plain loop with autograd and PyTorch's Adam."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.laboratory import KilledError
from support.rows import synthesize_row
from support.synthesis import CLASSES, NORMALISER, SHAPE, made, network, start
from torch import Tensor, nn

from edc.condense.engine import Progress, augmentation
from edc.condense.initialise import groups_of
from edc.condense.observer import Observer
from edc.condense.parts import first_rounds, next_part
from edc.config.optimise import Optimise
from edc.config.rows import SynthesizeRow
from edc.data.rng import generator
from edc.nets.frozen import frozen

CASES: dict[str, dict[str, Any]] = {
    "blend": {"optimise": {"blend": {"share": 0.25, "times": 2}}},
    "smaller first": {"optimise": {"blend": {"share": 0.5, "times": 1}, "sizes": [6, 8]}},
    "sizes alone": {"optimise": {"sizes": [8, 5, 8]}},
    "stagger": {"optimise": {"stagger": 2}},
    "perturb": {"perturb": {"steps": 3, "radius": 0.5}, "match": {"variance": 11.0}},
}


def row(case: str, iterations: int = 7) -> SynthesizeRow:
    """Seven iterations, which two or three parts do not divide, two observers' BN layers."""
    match = {"layers": ["bn"], "target": "global", "weight": 0.1, "ema": 0.0} | CASES[case].get("match", {})
    changes = CASES[case] | {"match": match, "statistics": None, "augment": {"roll": (0, 2)}}
    return synthesize_row(iterations=iterations, **changes)


def observers(settings: SynthesizeRow) -> list[Observer]:
    return [Observer.make(name, frozen(network(i)), settings, 4, SHAPE, None) for i, name in enumerate(("o0", "o1"))]


def plain_loss(model: nn.Module, x: Tensor, labels: Tensor, settings: SynthesizeRow) -> Tensor:
    """Cross-entropy and the distances of the BN layers' inputs to their running statistics, the first ten times."""
    terms: list[Tensor] = []
    layers = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]

    def add(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        mean, variance = inputs[0].mean((0, 2, 3)), inputs[0].var((0, 2, 3), unbiased=False)
        term = (mean - layer.running_mean).norm() + settings.match.variance * (variance - layer.running_var).norm()
        terms.append((1 if terms else 10) * term)

    handles = [layer.register_forward_pre_hook(add) for layer in layers]
    loss = F.cross_entropy(model(x), labels)
    for handle in handles:
        handle.remove()
    return loss + settings.match.weight * sum(terms)


def climbed(model: nn.Module, x: Tensor, labels: Tensor, settings: SynthesizeRow) -> nn.Module:
    model = copy.deepcopy(model).requires_grad_(True)
    for _ in range(settings.perturb.steps if settings.perturb else 0):
        model.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        for p in model.parameters():
            p.data += settings.perturb.radius / settings.perturb.steps * p.grad / gradient.norm()
    return model.requires_grad_(False)


@pytest.mark.parametrize("case", CASES)
def test_whole_run_against_a_plain_loop(case: str) -> None:
    settings = row(case)
    optimise, pretrained = settings.optimise, [network(0), network(1)]
    images, labels = start()
    expected = images.clone()
    for g, group in enumerate(groups_of(CLASSES, 2, 4, 1)):

        def view(x: Tensor, k: int, g: int = g) -> Tensor:
            return augmentation(generator(0, "synthesize", g, k), settings.augment, k, 7, x.shape[-1])(x)

        def at(x: Tensor, part: int) -> Tensor:
            size = (optimise.sizes or [8] * 9)[part]
            return F.interpolate(x, size=(size, size), mode="bilinear")

        begin, targets = images[group], labels[group]
        models = [climbed(model, view(begin, 0), targets, settings) for model in pretrained]
        x = at(begin, 0).requires_grad_(True)
        adam, part = torch.optim.Adam([x], betas=(0.5, 0.9)), 0
        late = torch.tensor([bool(i) and c == targets[i - 1] for i, c in enumerate(targets)])
        for k in range(7):
            if (now := math.floor(k * optimise.parts / 7)) != part:
                part, share = now, optimise.blend.share if optimise.blend else 1.0
                x = (share * at(x.detach(), part) + (1 - share) * at(begin, part)).requires_grad_(True)
                adam = torch.optim.Adam([x], betas=(0.5, 0.9))
            begun = ~late if optimise.stagger == 2 and k < 3.5 else torch.ones_like(late)
            adam.param_groups[0]["lr"] = 0.05 * 0.5 * (1 + math.cos(math.pi * k / 7))
            loss = plain_loss(models[(g * 7 + k) % 2], view(x[begun], k), targets[begun], settings)
            adam.zero_grad()
            loss.backward()
            adam.step()
            x.data = x.data.maximum(NORMALISER.low).minimum(NORMALISER.high)
        expected[group] = x.detach()
    result, _ = made(settings, group=4, observers=observers(settings))
    difference = (result - expected).abs()  # Adam's first steps follow rounding noise where there is no gradient
    assert float(difference.median()) < 1e-6
    assert float((difference > 1e-4).float().mean()) < 0.01


@pytest.mark.parametrize("case", ["smaller first", "stagger", "perturb"])
def test_several_groups_at_once_give_what_one_after_the_other_gives(case: str) -> None:
    """Those in parts side by side; late starts and perturbed observers are made one by one anyway."""
    settings = row(case, 4)
    one, three = (made(settings, group=2, at_once=n, observers=observers(settings))[0] for n in (1, 3))
    difference = (one - three).abs()
    assert float(difference.median()) < 1e-6
    assert float((difference > 1e-4).float().mean()) < 0.01


def test_late_images_rest_until_they_begin() -> None:
    seen: list[Tensor] = []
    settings = row("stagger")
    made(settings, observers=observers(settings), after=lambda now: seen.append(now.pixels.clone()))
    late, images = first_rounds(start()[1], 2) == 1, start()[0]
    assert [torch.equal(x[late], images[late]) for x in seen] == [True] * 4 + [False] * 3
    assert not torch.equal(seen[0][~late], images[~late])


@pytest.mark.parametrize("case", CASES)
def test_interrupted_runs_end_with_the_same_pixels(case: str, tmp_path: Path) -> None:
    settings, path = row(case), tmp_path / "state.pt"
    expected, whole = made(settings, group=4, observers=observers(settings))
    for stop in (1, 3, 4, 6, 7, 10, 14):

        def after(now: Progress, stop: int = stop) -> None:
            if now.group * 7 + now.iteration == stop:
                torch.save(vars(now), path)
                raise KilledError

        with pytest.raises(KilledError):
            made(settings, group=4, after=after, observers=observers(settings))
        state = Progress(**torch.load(path, weights_only=True))
        result, state = made(settings, group=4, state=state, observers=observers(settings))
        assert torch.equal(result, expected), stop
        assert state.history == whole.history


def test_golden_blend_and_shares() -> None:
    """shared/spec/new_methods.md, section 8, cases 4 and 5."""
    x = begin = torch.full((1, 1, 4, 4), 0.8, dtype=torch.float64)
    x, settings = x - 0.6, Optimise.model_validate({"iterations": 4, "blend": {"share": 0.5, "times": 3}})
    for part, value in ((1, 0.5), (2, 0.65), (3, 0.725)):
        x = next_part(x, begin, settings, part)
        torch.testing.assert_close(x, torch.full_like(x, value))
    rounds = first_rounds(torch.arange(3).repeat_interleave(10), 8).view(3, 10)
    assert [r.bincount().cumsum(0).tolist() for r in rounds] == [[2, 4, 5, 6, 7, 8, 9, 10]] * 3
    assert first_rounds(torch.arange(2), 8).tolist() == [0, 0]  # the only image of a class begins at once


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimise": {"sizes": [6, 8], "blend": {}}}, r"sizes = \[6, 8\]: expected 4, one more than blend.times"),
        ({"iterations": 3, "optimise": {"blend": {}}}, "iterations = 3: expected at least 4"),
        ({"iterations": 3, "optimise": {"stagger": 8}}, "iterations = 3: expected at least 8"),
        ({"optimise": {"sizes": [6, 8]}}, r"optimise.sizes = \[6, 8\]: expected match.layers \['bn'\]"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        synthesize_row(**changes)
