"""Stage pretrain: train an observer on the dataset."""

from __future__ import annotations

from typing import Any

import torch

from edc.training.cohort import Cohort
from edc.data.augment import Normaliser
from edc.data.feed import Feed
from edc.stages.context import Job
from edc.nets import build, parameter_count
from edc.config.rows import PretrainRow
from edc.stages.progress import bar
from edc.data.rng import generator
from edc.training.schedules import multiplier
from edc.training.trainee import Trainee
from edc.training.optimisers import accuracy, load_optimiser, set_rate

HISTORY = ("epoch", "lr", "train_loss", "val_accuracy")


def run(job: Job) -> None:
    """Train one network with random crops and flips; keep the last epoch's weights (EDC appendix, Table 19)."""
    row, dataset, device = job.row, job.dataset, torch.device(job.device)
    train = job.load("train")
    val = job.load("val") if dataset.val_fraction else None
    network = build(
        row.network,
        classes=dataset.classes,
        image_size=dataset.image_size,
        channels=dataset.channels,
        seed=row.seed,
        weights=row.weights,
    )
    trainee = Trainee(network, row.optimiser, device, job.precision)
    model, optimiser, cohort = trainee.model, trainee.optimiser, Cohort([trainee])
    normaliser = Normaliser(dataset.mean, dataset.std, device)
    feed = Feed(train, dataset, normaliser, device)
    held = Feed(val, dataset, normaliser, device) if val else None
    history: list[list[Any]] = []
    checkpoint = job.checkpoint()
    if state := job.resume(checkpoint):
        model.load_state_dict(state["model"])
        load_optimiser(optimiser, state["optimiser"])
        history = state["history"]
    with job.track() as tracked, bar(row.epochs, f"pretrain {job.key}", len(history), "epoch") as progress:
        tracked.dataset(row.dataset, train.digest)
        for epoch in range(len(history), row.epochs):
            rate = row.optimiser.lr * multiplier(row.schedule, epoch, row.epochs, [h[2] for h in history])
            set_rate(optimiser, rate)
            loss = job.finite(train_epoch(cohort, feed, row, epoch), f"epoch {epoch}")
            right = accuracy(model, held) if held else None
            history.append([epoch, rate, loss, right])
            measured = {"train_loss": loss, "lr": rate} | ({"val_accuracy": right} if right is not None else {})
            tracked.metrics(measured, step=epoch)
            progress.set_postfix({name: f"{value:.3g}" for name, value in measured.items()})
            progress.update()
            job.keep(
                checkpoint,
                lambda: {
                    "model": model.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "history": history,
                },
            )
        job.tensors("weights.safetensors", model.state_dict())
        tracked.artifact(job.table("history.csv", HISTORY, history))
        job.finish(
            ["weights.safetensors"],
            dataset_digest=train.digest,
            train_images=len(train),
            parameters=parameter_count(model),
            val_accuracy=history[-1][3] if history and val else None,
        )


def train_epoch(cohort: Cohort, feed: Feed, row: PretrainRow, epoch: int) -> float:
    """One pass over the training images; returns the mean loss."""
    (trainee,) = cohort.trainees
    trainee.start_epoch()
    rng = generator(row.seed, "pretrain", epoch)
    batches = feed.epoch(rng, row.batch)
    # Dropout, where a network has it, draws from torch's own generator.
    torch.manual_seed(int(rng.integers(2**31)))
    for x, labels in batches:
        cohort.step(x, None, labels)
    return trainee.end_epoch()
