"""Loss along directions and gradients of batches, against exact small cases."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edc.config.protocol import Loss
from edc.data.rng import generator
from edc.training.landscape import cosine, direction, directions, gradient, local_cosines, mean_loss, moved, part

SHAPE = (2, 8, 8)
CLASSES = 3


def small(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, CLASSES))


def batch(count, soft=False):
    random = torch.Generator().manual_seed(count)
    targets = torch.randn(count, CLASSES, generator=random) if soft else None
    return torch.randn(count, *SHAPE, generator=random), targets, torch.arange(count) % CLASSES


def test_directions_have_the_norms_of_the_filters():
    model = small()
    found = direction(model, np.random.default_rng(0))
    for weight, way in zip(model.parameters(), found, strict=True):
        if weight.dim() < 2:
            assert not way.any()
        else:
            lengths = [w.detach().flatten(1).norm(dim=1) for w in (weight, way)]
            torch.testing.assert_close(lengths[0], lengths[1])
    doubled = small()
    with torch.no_grad():
        for weight in doubled.parameters():
            weight *= 2
    for way, longer in zip(directions(model, 3, 2)[1], directions(doubled, 3, 2)[1], strict=True):
        torch.testing.assert_close(longer, 2 * way)


def test_moved_weights_are_restored_exactly():
    model = small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    along = direction(model, np.random.default_rng(0))
    with moved(model, along, 0.5):
        torch.testing.assert_close(model[0].weight, before["0.weight"] + 0.5 * along[0])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_mean_loss_weighs_images_not_batches():
    model, loss = small().eval(), Loss(name="mse_ce", ce_weight=0.1)
    whole = batch(7, soft=True)
    pieces = [part(whole, slice(0, 5)), part(whole, slice(5, 7))]
    assert mean_loss(model, pieces, loss) == pytest.approx(mean_loss(model, [whole], loss), rel=1e-5)
    x, _, labels = whole
    assert mean_loss(model, pieces, None) == pytest.approx(F.cross_entropy(model(x), labels).item(), rel=1e-5)


@pytest.mark.parametrize("name", ["mse_ce", "kl"])
def test_gradient_of_all_is_the_mean_of_its_parts(name, monkeypatch):
    model, loss, whole = small(), Loss(name=name), batch(12, soft=True)
    expected = gradient(model, whole, loss)
    parts = torch.stack([gradient(model, part(whole, slice(i, i + 3)), loss) for i in (0, 3, 6, 9)])
    torch.testing.assert_close(parts.mean(0), expected, rtol=1e-4, atol=1e-6)
    monkeypatch.setattr("edc.training.landscape.CHUNK", 5)
    torch.testing.assert_close(gradient(model, whole, loss), expected, rtol=1e-4, atol=1e-6)
    assert expected.numel() == sum(weight.numel() for weight in model.parameters())
    assert not model.training


def test_cosines_grow_to_one_with_the_batch():
    whole, found = local_cosines(small(), batch(24), Loss(), [2, 8, 24, 50], 8, generator(0, "test"))
    assert list(found) == [2, 8, 24]
    means = [np.mean(values) for values in found.values()]
    assert means[0] < means[1] < means[2]
    assert found[24] == pytest.approx([1.0] * 8, abs=1e-5)
    assert cosine(whole, -2 * whole) == pytest.approx(-1)
    again = local_cosines(small(), batch(24), Loss(), [2, 8], 8, generator(0, "test"))[1]
    assert again[8] == found[8]
