"""Stage synthesize: make the images of a condensed set."""

from __future__ import annotations

import torch

from edc.data.augment import Normaliser
from edc.engine import HISTORY, Observer, Progress, synthesize
from edc.figures import contact_sheet
from edc.initialise import class_major, initial_images
from edc.job import Job
from edc.observers import load_observer
from edc.progress import bar
from edc.storage import RESULTS, read_tensors


def run(job: Job) -> None:
    """Start from real images or noise, optimise against the observers where the recipe says so, store uint8."""
    row, dataset, device = job.row, job.dataset, torch.device(job.device)
    train = job.load("train")
    pixels, labels = initial_images(train, row, dataset.flip)
    normaliser = Normaliser(dataset.mean, dataset.std, device)
    state = Progress()
    with job.track() as tracked:
        tracked.dataset(row.dataset, train.digest)
        if row.optimise.iterations:
            observers = load_observers(job)
            groups = class_major(dataset.classes, row.ipc, row.optimise.group)
            checkpoint = job.checkpoint()
            if kept := job.resume(checkpoint):
                state = Progress(**{name: kept[name] for name in vars(state)})
            total, done = (
                len(groups) * row.optimise.iterations,
                state.group * row.optimise.iterations + state.iteration,
            )
            with bar(total, f"synthesize {job.key}", done) as progress:

                def after(now: Progress) -> None:
                    progress.update()
                    job.keep(checkpoint, lambda: vars(now))

                start = pixels if pixels.is_floating_point() else normaliser.encode(pixels.to(device))
                images = synthesize(
                    start.to(device), labels.to(device), groups, observers, row, normaliser, state, after
                )
            pixels = normaliser.decode(images).cpu()
        elif pixels.is_floating_point():
            pixels = normaliser.decode(pixels.to(device)).cpu()
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
    """The recipe's observers with their statistics, in visiting order."""
    row, dataset = job.row, job.dataset
    stored = job.upstream("statistics", row.statistics)
    patch = stored["params"]["statistics"]["patch"]
    shape = (dataset.channels, dataset.image_size, dataset.image_size)
    device = torch.device(job.device)
    found = []
    for key in row.observers:
        targets = read_tensors(RESULTS / "statistics" / row.statistics / f"{key}.safetensors")
        targets = {name: tensor.to(device) for name, tensor in targets.items()}
        found.append(Observer.make(key, load_observer(job, key), row, patch, shape, targets))
    return found
