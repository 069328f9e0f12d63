"""CIM: which real images make up a mosaic, and the loss that keeps the features of each in its cell."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from support.rows import synthesize_row
from support.synthesis import CLASSES, NORMALISER, SHAPE, inputs, network, nothing, pictures, start
from torch import Tensor, nn

from edc.condense.anchors import anchor_index, mosaics
from edc.condense.engine import Progress, augmentation, step, synthesize
from edc.condense.initialise import groups_of
from edc.condense.observer import Observer
from edc.config.rows import SynthesizeRow
from edc.data.rng import generator
from edc.errors import EdcError

SIAMESE = {"pad": 1, "crop_scale": (1.0, 1.0), "cutout": 0.5}


def row(iterations: int = 1, layer: str = "penultimate", cross_entropy: float = 0.0, **changes: Any) -> SynthesizeRow:
    initialise = {"method": "mosaics", "factor": 2, "candidates": 20} | changes.pop("initialise", {})
    match = {"target": "anchors", "layer": layer, "weight": 2.0, "cross_entropy": cross_entropy}
    changes = {"augment": SIAMESE, "scorers": ["o0"], "statistics": None} | changes
    return synthesize_row(iterations, 1, initialise=initialise, match=match, **changes)


def observer(settings: SynthesizeRow) -> Observer:
    return Observer.make("o0", network(0), settings, 1, SHAPE, None)


class Means(nn.Module):
    """The channels' means as logits."""

    def forward(self, x: Tensor) -> Tensor:
        return 5 * x.mean(dim=(2, 3))


def test_mosaics_are_tiled_from_the_first_images_that_are_easiest() -> None:
    train = pictures((30, 20, 25))
    made = inputs(train, row(), [Means()])
    images, labels = mosaics(made)
    index = anchor_index(made)
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]
    for c in range(CLASSES):
        first = [i for i in range(len(train)) if train.labels[i] == c][:20]
        x = made.normaliser.encode(train.read(torch.tensor(first)))
        losses = [-float(F.log_softmax(5 * image.mean(dim=(1, 2)), 0)[c]) for image in x]
        easiest = [i for _, i in sorted(zip(losses, first, strict=True))][:8]
        for i in range(2):
            a, b, c_, d = (train.read(torch.tensor([easiest[i + 2 * k]]))[0][:, ::2, ::2] for k in range(4))
            assert index[2 * c + i].tolist() == easiest[i::2]
            assert torch.equal(images[2 * c + i], torch.cat([torch.cat([a, b], 2), torch.cat([c_, d], 2)], 1))


@pytest.mark.parametrize(("layer", "depth"), [("penultimate", 8), ("3", 3)])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("cross_entropy", [0.0, 0.5])
def test_the_loss_and_its_gradient(layer: str, depth: int, groups: int, cross_entropy: float) -> None:
    """Against cell by cell and feature by feature; cross-entropy is that of the whole image."""
    settings = row(layer=layer, cross_entropy=cross_entropy)
    pixels, labels = start()
    anchors = start(1, ipc=8)[0]
    one, other = pixels.clone().requires_grad_(True), pixels.clone().requires_grad_(True)
    losses = step(one, one.detach(), labels, observer(settings), settings, range(groups), 4, anchors)

    model, each = network(0), len(pixels) // groups
    expected = {name: torch.zeros(groups) for name in ("matching", *(["cross_entropy"] if cross_entropy else []))}
    for g in range(groups):
        siamese = augmentation(generator(0, "synthesize", g, 4), settings.augment, 4, 1, 8)
        for i in range(g * each, (g + 1) * each):
            for k, (y, x) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
                cell = other[i : i + 1, :, y : y + 4, x : x + 4]
                view = siamese(F.interpolate(cell, scale_factor=2, mode="bilinear"))
                real = siamese(anchors[4 * i + k : 4 * i + k + 1])
                expected["matching"][g] += 2.0 * (model[:depth](real) - model[:depth](view)).abs().mean()
            if cross_entropy:
                loss = F.cross_entropy(model(siamese(other[i : i + 1])), labels[i : i + 1])
                expected["cross_entropy"][g] += cross_entropy * loss / each
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-4, atol=1e-5)
    torch.stack(list(losses.values())).sum().backward()
    torch.stack(list(expected.values())).sum().backward()
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-6)
    assert float(one.grad.abs().sum()) > 0


def test_synthesis_brings_the_cells_nearer_to_their_anchors_without_clamping() -> None:
    train = pictures((30, 20, 25))
    optimise = {"lr": 0.1, "betas": (0.9, 0.999), "schedule": "constant", "clamp": False}
    settings = row(40, optimise=optimise, augment={"crop_scale": (1.0, 1.0), "flip": False})
    made = inputs(train, settings, [network(0)])
    (images, labels), index, state = mosaics(made), anchor_index(made), Progress()
    common = (images, labels, groups_of(CLASSES, 2, 2, 1), [observer(settings)], settings, NORMALISER, state, nothing)
    result = synthesize(*common, anchors=lambda chosen: train.read(index[chosen].flatten()))
    for group in range(CLASSES):
        losses = [entry[4] for entry in state.history if entry[0] == group]
        assert losses[-1] < 0.5 * losses[0]
    assert bool((result > NORMALISER.high).any())


def test_a_cutout_is_one_square_of_the_mean_pixel() -> None:
    settings, places = row().augment.model_copy(update={"pad": 0, "flip": False}), set()
    for k in range(30):
        view = augmentation(generator(0, "x", k), settings, 0, 1, 8)(torch.ones(2, 3, 8, 8))
        rows, columns = (1 - view[0, 0]).amax(1).nonzero().flatten(), (1 - view[0, 0]).amax(0).nonzero().flatten()
        expected = torch.ones(2, 3, 8, 8)
        expected[..., rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = 0
        assert torch.equal(view, expected)
        assert 2 <= len(rows) <= 4
        assert 2 <= len(columns) <= 4
        places.add((int(rows[0]), int(columns[0])))
    assert len(places) > 10


def test_anchors_are_refused_without_mosaics_or_the_layer() -> None:
    with pytest.raises(ValidationError, match=r"expected initialise.method = 'mosaics' and .* found 'real'"):
        row(initialise={"method": "real"})
    with pytest.raises(ValidationError, match=r"initialise.pool = 5: expected null"):
        row(initialise={"pool": 5})
    settings = row(layer="layer3")
    with pytest.raises(EdcError, match="layer of Sequential 'layer3'"):
        step(start()[0], start()[0], start()[1], observer(settings), settings, range(1), 0, start(1, ipc=8)[0])
