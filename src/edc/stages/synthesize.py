"""Stage synthesize: make the images of a condensed set."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from edc.condense.budget import groups_at_once
from edc.data.augment import Normaliser
from edc.pipeline.devices import share_of_memory
from edc.condense.engine import HISTORY, Observer, Progress, synthesize
from edc.reporting.figures import contact_sheet
from edc.condense.initialise import Start, groups_of, initial_images
from edc.stages.context import Job
from edc.stages.observers import load_observer
from edc.nets.passes import images_at_once
from edc.stages.progress import bar
from edc.storage import RESULTS, read_tensors

GRAPHS = {"sam": 2}
"""Regularisers that keep the maps of more than one forward pass at a time -> of how many."""


def run(job: Job) -> None:
    """Start from real images or noise, optimise against the observers where the recipe says so, store uint8."""
    row, dataset, device = job.row, job.dataset, torch.device(job.device)
    train = job.load("train")
    normaliser = Normaliser(dataset.mean, dataset.std, device)
    start = Start(train, row, dataset, normaliser, device, lambda: [load_observer(job, key) for key in row.scorers])
    pixels, labels = initial_images(start)
    state = Progress()
    with job.track() as tracked:
        tracked.dataset(row.dataset, train.digest)
        if row.optimise.iterations:
            observers = load_observers(job)
            groups = groups_of(dataset.classes, row.ipc, row.optimise.group, row.optimise.rounds)
            checkpoint = job.checkpoint()
            if kept := job.resume(checkpoint):
                state = Progress(**{name: kept[name] for name in vars(state)})
            networks = [observer.watcher.observer for observer in observers]
            memory = share_of_memory(job.plan.machine.memory, device)
            counted = len(groups[0]) * GRAPHS.get(row.regularise.method, 1)
            at_once = groups_at_once(networks, pixels.shape[1:], counted, device, memory)
            state.fit(at_once)
            total, done = (
                len(groups) * row.optimise.iterations,
                state.group * row.optimise.iterations + state.together * state.iteration,
            )
            with bar(total, f"synthesize {job.key}", done) as progress:

                def after(now: Progress) -> None:
                    losses = (value for entry in now.history[-now.together :] for value in entry[-3:])
                    job.finite(sum(losses), f"iteration {now.iteration - 1}")
                    progress.update(now.together)
                    job.keep(checkpoint, lambda: vars(now))

                def keep(finished: torch.Tensor) -> torch.Tensor:
                    return normaliser.decode(finished).cpu()

                pixels = synthesize(pixels, labels, groups, observers, row, normaliser, state, after, at_once, keep)
        elif pixels.is_floating_point():
            parts = pixels.split(images_at_once(dataset.image_size))
            pixels = torch.cat([normaliser.decode(part.to(device)).cpu() for part in parts])
        if row.jpeg is not None:
            pixels = jpeg_round_trip(pixels, row.jpeg)
        for group, iteration, _, *losses in state.history:
            step = int(group) * row.optimise.iterations + int(iteration)
            tracked.metrics(dict(zip(HISTORY[3:], losses, strict=True)), step=step)
        job.tensors("images.safetensors", {"images": pixels, "labels": labels})
        tracked.artifact(job.table("history.csv", HISTORY, state.history))
        sheet = contact_sheet(job.path("contact_sheet.png"), pixels, labels, train)
        tracked.artifact(sheet)
        job.finish(
            ["images.safetensors"],
            dataset_digest=train.digest,
            shape=list(pixels.shape),
            dtype="uint8",
            image_bytes=pixels.numel(),
        )


def load_observers(job: Job) -> list[Observer]:
    """The recipe's observers, in visiting order, with their statistics where convolutions or classes are matched."""
    row, dataset = job.row, job.dataset
    shape = (dataset.channels, dataset.image_size, dataset.image_size)
    device = torch.device(job.device)
    patch, stored = 1, None
    if row.statistics is not None:
        stored = job.upstream("statistics", row.statistics)
        patch = stored["params"]["statistics"]["patch"]
    found = []
    for key in row.observers:
        targets = None
        if stored is not None:
            targets = read_tensors(RESULTS / "statistics" / row.statistics / f"{key}.safetensors")
            targets = {name: tensor.to(device) for name, tensor in targets.items()}
        found.append(Observer.make(key, load_observer(job, key), row, patch, shape, targets))
    return found


def jpeg_round_trip(pixels: torch.Tensor, quality: int) -> torch.Tensor:
    """Images (N, C, S, S) uint8 as they come back from JPEG files with 4:2:0 subsampling: how most codes store them."""
    found = torch.empty_like(pixels)
    for i, picture in enumerate(pixels):
        buffer = io.BytesIO()
        array = picture[0].numpy() if len(picture) == 1 else picture.permute(1, 2, 0).numpy()
        Image.fromarray(array).save(buffer, "JPEG", quality=quality, subsampling=2)
        back = torch.from_numpy(np.array(Image.open(buffer)))
        found[i] = back if len(picture) == 1 else back.permute(2, 0, 1)
    return found
