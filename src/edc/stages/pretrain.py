"""Stage pretrain: train an observer on the dataset."""

from __future__ import annotations

from typing import Any

import torch

from edc.config.rows import PretrainRow
from edc.data.feed import Feed
from edc.data.rng import generator
from edc.nets import parameter_count
from edc.stages.context import Context
from edc.stages.progress import ProgressLog
from edc.storage import write_tensors
from edc.training.evaluation import accuracy
from edc.training.optimisers import load_optimiser, set_rate
from edc.training.schedules import multiplier
from edc.training.trainer import Trainer, build_for
from edc.training.trainer_group import TrainerGroup

HISTORY = ("epoch", "lr", "train_loss", "val_accuracy")


def run(context: Context) -> None:
    """Train one network with random crops and flips; keep the last epoch's weights (EDC appendix, Table 19)."""
    row, dataset, device = context.row, context.dataset, context.device
    train = context.images("train")
    val = context.images("val") if dataset.val_fraction else None
    network = build_for(dataset, row.network, row.seed, weights=row.weights)
    trainer = Trainer(network, row.optimiser, device, context.precision)
    model, optimiser, cohort = trainer.model, trainer.optimiser, TrainerGroup([trainer])
    feed = context.feed(train)
    val_feed = context.feed(val) if val else None
    history: list[list[Any]] = []
    if state := context.resume():
        model.load_state_dict(state["model"])
        load_optimiser(optimiser, state["optimiser"])
        history = state["history"]

    def position() -> dict[str, Any]:
        return {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "history": history}

    bar = ProgressLog(row.epochs, f"pretrain {context.key}", len(history), "epoch")
    for epoch in range(len(history), row.epochs):
        rate = row.optimiser.lr * multiplier(row.schedule, epoch, row.epochs, [h[2] for h in history])
        set_rate(optimiser, rate)
        loss = context.finite(train_epoch(cohort, feed, row, epoch), f"epoch {epoch}")
        right = accuracy(model, val_feed) if val_feed else None
        history.append([epoch, rate, loss, right])
        bar.update(values={"loss": f"{loss:.3g}"} | ({} if right is None else {"accuracy": f"{right:.3g} %"}))
        context.checkpoint(position)
    write_tensors(context.path("weights.safetensors"), model.state_dict())
    context.write_table("history.csv", HISTORY, history)
    context.finish(
        ["weights.safetensors"],
        dataset_digest=train.digest,
        train_images=len(train),
        parameters=parameter_count(model),
        val_accuracy=history[-1][3] if history and val else None,
    )


def train_epoch(cohort: TrainerGroup, feed: Feed, row: PretrainRow, epoch: int) -> float:
    """One pass over the training images; returns the mean loss."""
    (trainer,) = cohort.trainers
    trainer.start_epoch()
    rng = generator(row.seed, "pretrain", epoch)
    batches = feed.epoch(rng, row.batch)
    # Dropout, where a network has it, draws from torch's own generator.
    torch.manual_seed(int(rng.integers(2**31)))
    for x, labels in batches:
        cohort.step(x, None, labels)
    return trainer.end_epoch()
