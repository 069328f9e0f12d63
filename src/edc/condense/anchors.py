"""Paired anchors of CIM (arXiv 2607.00916): every cell of a mosaic keeps the features of the real image it began as."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edc.condense.composites import best_images, check_candidates, scores, tile
from edc.condense.initialise import InitialisationInputs
from edc.nets.features import layer_input
from edc.nets.passes import images_at_once


def anchor_index(inputs: InitialisationInputs) -> Tensor:
    """The training images in every cell of the mosaics, cells row by row: int64 (K * IPC, factor^2).

    Of each class the ``candidates`` first images are scored as a whole. Of the IPC * factor^2 with the lowest
    cross-entropy, ascending, mosaic i takes number i, i + IPC, i + 2 IPC, ...

    Raises:
        EdcError: a class has too few candidates.
    """
    check_candidates(inputs)
    train, row, scorers = inputs.train, inputs.row, inputs.scorers()
    cells, chosen = row.initialise.factor**2, []
    for c in range(len(train.classes)):
        candidates = train.by_class(c)[: row.initialise.candidates]
        losses = []
        for part in candidates.split(images_at_once(train.shape[-1])):
            images = inputs.normaliser.encode(train.read(part).to(inputs.device))
            labels = torch.full((len(part),), c, device=inputs.device)
            losses.append(scores(scorers, images, labels, train.shape[-1]).cpu())
        best = best_images(torch.cat(losses), row.ipc * cells)
        chosen.append(candidates[best].view(cells, row.ipc).T)
    return torch.cat(chosen)


def mosaics(inputs: InitialisationInputs) -> tuple[Tensor, Tensor]:
    """Anchors shrunk into cells, by nearest neighbour: uint8 (K * IPC, C, S, S), class after class, and classes (N,).

    Raises:
        EdcError: a class has too few candidates.
    """
    train, factor, index = inputs.train, inputs.row.initialise.factor, anchor_index(inputs)
    images = [tile(train.read(part.T.flatten()), factor, train.shape[-1]) for part in index.split(inputs.row.ipc)]
    return torch.cat(images), train.labels[index[:, 0]]


def cells(images: Tensor, factor: int) -> Tensor:
    """The cells of images (B, C, S, S), row by row, resized bilinearly: (B * factor^2, C, S, S); differentiable."""
    rows = images.tensor_split(factor, dim=-2)
    parts = [part for row in rows for part in row.tensor_split(factor, dim=-1)]
    size = images.shape[-2:]
    resized = [F.interpolate(part, size=size, mode="bilinear", align_corners=False) for part in parts]
    return torch.stack(resized, dim=1).flatten(0, 1)


def anchor_distance(network: nn.Module, layer: str, views: Tensor, anchors: Tensor) -> Tensor:
    """Mean absolute difference between a layer's inputs F for views and anchors, both (n, C, S, S) normalised: (n,).

    mean | F(anchor) - F(view) | over the entries of F; the gradient reaches the views alone.
    """
    with torch.no_grad():
        target = layer_input(network, layer, anchors)
    return (target - layer_input(network, layer, views)).abs().flatten(1).mean(dim=1)
