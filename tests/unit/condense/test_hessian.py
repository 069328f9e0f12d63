"""Curvature of the synthesis loss against exact small cases, and against the engine."""

import itertools
import math

import pytest
import torch
from support.rows import synthesize_row
from support.synthesis import NORMALISER, SHAPE, network
from torch import nn

from edc.condense.engine import Progress, step, synthesize
from edc.condense.hessian import (
    Group,
    difference_product,
    exact_product,
    frobenius,
    iterates,
    plain_statistics,
    random_signs,
    synthesis_loss,
    without_regulariser,
)
from edc.condense.layer_statistics import StatisticsCollector
from edc.condense.observer import Observer


def every_sign(*shape):
    """All vectors of signs: over them the estimate is no estimate."""
    return [torch.tensor(v).double().view(shape) for v in itertools.product((-1.0, 1.0), repeat=math.prod(shape))]


def test_norm_of_a_quadratic():
    half = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix, x = half + half.T, torch.ones(6, dtype=torch.float64)

    def loss(x):
        return 0.5 * x @ matrix @ x

    for product in (exact_product(loss, x), difference_product(loss, x, 0.3)):
        norm, error = frobenius(product, every_sign(6))
        assert norm == pytest.approx(float(matrix.norm()), rel=1e-12)
        assert error > 0
    v = torch.arange(6.0, dtype=torch.float64)
    torch.testing.assert_close(exact_product(loss, x)(v), matrix @ v)


def test_differences_include_a_kink_that_the_exact_hessian_does_not():
    x, v = torch.tensor([0.01, 5.0]), torch.ones(2)
    assert exact_product(lambda x: (x.abs() * x.abs().sqrt()).sum(), x)(v)[1] > 0
    bent = difference_product(lambda x: x.relu().sum(), x, 0.05)(v)
    torch.testing.assert_close(bent, torch.tensor([1 / 0.1, 0.0]))


def group(regularise="logits", iterations=7, **match):
    """Six images of three classes and two observers with made-up statistics."""
    match |= {"weight": 0.5}
    row = synthesize_row(iterations, match=match, regularise={"method": regularise, "weight": 5.0, "beta": 0.5})
    random = torch.Generator().manual_seed(0)
    observers = []
    for i, key in enumerate(row.observers):
        size = StatisticsCollector(network(i, nn.Tanh), 3, SHAPE).size
        targets = {"global": torch.rand(size, generator=random), "classes": torch.rand(3, size, generator=random)}
        observers.append(
            Observer.make(key, network(i, nn.Tanh), row, 3, SHAPE, targets if row.match.needs_statistics else None)
        )
    labels = torch.arange(3).repeat_interleave(2)
    for observer in observers:
        observer.matcher.start_group(labels)
    start = torch.randn(6, *SHAPE, generator=random)
    return Group(start, labels, observers, row, NORMALISER)


@pytest.mark.parametrize("patch", [0, 3, 4])
def test_statistics_and_their_gradient_are_those_of_synthesis(patch):
    x = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0), requires_grad=True)
    layer = torch.nn.Conv2d(3, 1, 1) if patch else torch.nn.BatchNorm2d(3).eval()
    found, expected = plain_statistics(x, patch), StatisticsCollector(layer, patch or 1, x.shape[1:])(x)[1]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    weights = torch.linspace(-1, 1, len(found))
    slopes = [torch.autograd.grad((s * weights).sum(), x)[0] for s in (found, expected)]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "choices",
    [
        {"ema": 0.0},
        {"alpha": 0.2, "ema": 0.0, "swap_class_patch": True},
        {"target": "global", "ema": 0.0, "drop": 0.5},
        {"layers": ["bn"], "target": "global", "ema": 0.0},
        {"layers": ["bn"], "target": "class", "ema": 0.0},
        {"layers": ["conv"], "target": "both", "ema": 0.0},
        {"target": "none"},
    ],
    ids=str,
)
def test_the_loss_is_that_of_the_engine(choices):
    """Of the last round of visits, without memory and regulariser; value and gradient."""
    made = group(**choices)
    row = without_regulariser(made.row)
    x = made.start.clone().requires_grad_(True)
    # With two observers and seven iterations the last round is visits 5 and 6.
    terms = [step(x, x, made.labels, made.observers[k % 2], row, range(1), k) for k in (5, 6)]
    expected = sum(sum(term.values()) for term in terms)[0] / 2
    slope = torch.autograd.grad(expected, x)[0]
    found = synthesis_loss(made)(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.autograd.grad(found, x)[0], slope, rtol=1e-4, atol=1e-6)


def test_hessian_of_synthesis_agrees_with_differences_where_there_are_no_kinks():
    made = group()
    loss, probes = synthesis_loss(made), random_signs(3, made.start, 0)
    product = exact_product(loss, made.start)
    first, second = (product(v) for v in probes[:2])
    assert float((probes[1] * first).sum()) == pytest.approx(float((probes[0] * second).sum()), rel=1e-3, abs=1e-5)
    norms = [frobenius(way, probes)[0] for way in (product, difference_product(loss, made.start, 3e-3))]
    assert norms[0] > 0
    assert norms[1] == pytest.approx(norms[0], rel=0.02)


def test_iterates_are_those_of_the_synthesis():
    made = group(carry=True)
    plain = without_regulariser(made.row)
    kept = {row.regularise.method: iterates(made, row, [0, 2, 7]) for row in (made.row, plain)}
    assert list(kept["logits"]) == list(kept["none"]) == [0, 2, 7]
    assert torch.equal(kept["logits"][0], made.start)
    assert not torch.equal(kept["logits"][7], kept["none"][7])
    again = group(carry=True)  # fresh observers, that remember nothing of another run
    everything = [torch.arange(6)]
    end = synthesize(
        again.start, again.labels, everything, again.observers, plain, again.normaliser, Progress(), lambda _: None
    )
    assert torch.equal(kept["none"][7], end)
