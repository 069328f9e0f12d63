"""Stage synthesize: make the images of a condensed set."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from edc.condense.anchors import anchor_index
from edc.condense.budget import groups_at_once
from edc.condense.engine import HISTORY, Progress, synthesize
from edc.condense.initialise import InitialisationInputs, groups_of, initial_images
from edc.nets.distributed import gathered, own_range, summed
from edc.nets.passes import images_at_once
from edc.nets.processes import processes
from edc.reporting.figures import contact_sheet
from edc.stages.context import Context
from edc.stages.observers import load_observers, matched_observers
from edc.stages.progress import ProgressLog
from edc.storage import write_tensors

GRAPHS = {"sam": 2}
"""Regularisers that hold the maps of more than one forward pass at a time -> of how many."""


def run(context: Context) -> None:
    """Start from real images or noise, optimise against the observers where the recipe says so, store uint8."""
    row, dataset, device = context.row, context.dataset, context.device
    train = context.images("train")

    def scorers() -> list[torch.nn.Module]:
        return list(load_observers(context, row.scorers).values())

    inputs = InitialisationInputs(train, row, dataset, context.normaliser, device, scorers)
    pixels, labels = initial_images(inputs)
    state = Progress()
    if row.optimise.iterations:
        index = anchor_index(inputs) if row.match.target == "anchors" else None
        anchors = None if index is None else lambda images: train.read(index[images].flatten())
        pixels = optimise(context, pixels, labels, state, anchors)
    elif pixels.is_floating_point():
        parts = pixels.split(images_at_once(dataset.image_size))
        pixels = torch.cat([context.normaliser.decode(part.to(device)).cpu() for part in parts])
    if row.jpeg is not None:
        pixels = jpeg_round_trip(pixels, row.jpeg)
    write_tensors(context.path("images.safetensors"), {"images": pixels, "labels": labels})
    context.write_table("history.csv", HISTORY, state.history)
    contact_sheet(context.path("contact_sheet.png"), pixels, labels, train)
    context.finish(
        ["images.safetensors"],
        dataset_digest=train.digest,
        shape=list(pixels.shape),
        dtype="uint8",
        image_bytes=pixels.numel(),
    )


def optimise(
    context: Context, pixels: Tensor, labels: Tensor, state: Progress, anchors: Callable[[Tensor], Tensor] | None
) -> Tensor:
    """Match the images to the observers, group after group; resumes from a checkpoint.

    From initial images (N, C, S, S), uint8 or normalised, and classes (N,) to uint8 (N, C, S, S); the state is changed
    in place. For the anchors see :func:`edc.condense.engine.synthesize`. Processes that share the run make a range of
    the groups each; the images are those of one process.
    """
    row, dataset = context.row, context.dataset
    observers = matched_observers(context, row)
    groups = groups_of(dataset.classes, row.ipc, row.optimise.group, row.optimise.rounds)
    own = own_range(len(groups))
    state.group = own.start
    if saved := context.resume(own=True):
        for name in vars(state):
            setattr(state, name, saved[name])
    networks = [observer.collector.observer for observer in observers]
    images = len(groups[0]) * GRAPHS.get(row.regularise.method, 1)
    images *= row.initialise.factor**2 if anchors is not None else 1
    at_once = groups_at_once(networks, pixels.shape[1:], images, context.device, context.memory)
    state.fit(at_once)
    total = len(own) * row.optimise.iterations
    done = (state.group - own.start) * row.optimise.iterations + state.together * state.iteration

    bar = ProgressLog(total, f"synthesize {context.key}", done)

    def after(now: Progress) -> None:
        loss = sum(value for entry in now.history[-now.together :] for value in entry[-3:])
        context.finite(loss, f"iteration {now.iteration - 1}")
        bar.update(now.together, {"loss": f"{loss / now.together:.3g}"})
        context.checkpoint(lambda: vars(now))

    def decode(finished: Tensor) -> Tensor:
        return context.normaliser.decode(finished).cpu()

    groups = groups[: own.stop]
    pixels = synthesize(
        pixels, labels, groups, observers, row, context.normaliser, state, after, at_once, decode, anchors
    )
    state.history = gathered(state.history)
    # Each image is zero but in one process. A set is in the machine's memory, not on the device, unless it must be.
    return pixels if processes() == 1 else summed(pixels.to(context.device)).cpu()


def jpeg_round_trip(pixels: Tensor, quality: int) -> Tensor:
    """Images (N, C, S, S) uint8 as they come back from JPEG files with 4:2:0 subsampling: how most codes store them."""
    decoded = torch.empty_like(pixels)
    for i, picture in enumerate(pixels):
        buffer = io.BytesIO()
        array = picture[0].numpy() if len(picture) == 1 else picture.permute(1, 2, 0).numpy()
        Image.fromarray(array).save(buffer, "JPEG", quality=quality, subsampling=2)
        back = torch.from_numpy(np.array(Image.open(buffer)))
        decoded[i] = back if len(picture) == 1 else back.permute(2, 0, 1)
    return decoded
