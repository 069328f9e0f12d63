"""Stage slimming: a network is trained, pruned and mended with a condensed set as its only data."""

from __future__ import annotations

import contextlib
import copy
import functools
import statistics as descriptive
from typing import Any

import torch
from torch import Tensor, nn

from edc.training.cohort import Cohort
from edc.data.augment import Normaliser
from edc.data.feed import Feed
from edc.errors import EdcError
from edc.stages.evaluate import Condensed, Real
from edc.reporting.figures import lines
from edc.stages.context import Job
from edc.nets import build
from edc.nets.flops import multiply_accumulates
from edc.nets.slim import kept, scales, slimmed
from edc.nets.vgg import VGG
from edc.stages.progress import bar
from edc.training.students import Student

HISTORY = ("seed", "ratio", "channels", "parameters", "macs", "pruned_accuracy", "finetuned_accuracy")


def run(job: Job) -> None:
    """Sparsity training, global pruning of channels, fine-tuning with the same labels (Liu et al. 2017; EDC Figure 4).

    Every seed is trained once with an L1 norm on its BN scales, then pruned to every ratio; each smaller network is
    tested as cut and after fine-tuning. Ratio 0 is the network as trained, asked for or not. Nothing but the condensed
    set is learned from.

    Raises:
        EdcError: a ratio would remove a whole layer.
    """
    row, dataset, device = job.row, job.dataset, torch.device(job.device)
    normaliser = Normaliser(dataset.mean, dataset.std, device)
    source: Condensed | Real = Real(job, normaliser) if row.images is None else Condensed(job, normaliser)
    test = job.load("test")
    feed = Feed(test, dataset, normaliser, device)
    # One unit is one training: of the whole network, then of every pruned one.
    ratios = sorted({ratio for ratio in row.ratios if ratio > 0})
    units = [(seed, ratio) for seed in row.seeds for ratio in (None, *ratios)]
    lengths = [row.epochs if ratio is None else row.finetune for _, ratio in units]

    checkpoint = job.checkpoint()
    state = job.resume(checkpoint) or {"unit": 0, "epoch": 0, "history": [], "sparse": None, "student": None}
    history, sparse = state["history"], state["sparse"]
    done = sum(lengths[: state["unit"]]) + state["epoch"]
    with contextlib.ExitStack() as stack:
        tracked = stack.enter_context(job.track())
        tracked.dataset(row.dataset, source.digest)
        progress = stack.enter_context(bar(sum(lengths), f"slimming {job.key}", done, "epoch"))
        for unit in range(state["unit"], len(units)):
            seed, ratio = units[unit]
            student, cut = prepare(job, seed, ratio, sparse, feed, device)
            if kept_state := state.pop("student", None):
                student.load_state(kept_state)
            cohort = Cohort([student])
            for epoch in range(state.pop("epoch", 0), lengths[unit]):
                student.begin_epoch(epoch)
                for batch in source.epoch(epoch):
                    cohort.step(*batch)
                loss = job.finite(student.end_epoch(), f"epoch {epoch}")
                student.history.append([epoch, student.rate, loss, None])
                progress.update()
                job.keep(checkpoint, functools.partial(position, unit, epoch + 1, history, sparse, student))
            right = student.test(feed)
            history.append([seed, ratio or 0.0, *sizes(student.model, job), cut, right])
            if ratio is None:
                with student.average.swapped() if student.average is not None else contextlib.nullcontext():
                    sparse = copy.deepcopy(student.model.state_dict())
                    for wanted in ratios[-1:]:  # before any time goes into the smaller ones
                        remaining(job, student.model, wanted)
            checkpoint.save({**position(unit + 1, 0, history, sparse, None), "seconds": job.seconds})
        scores = summary(history)
        for step, values in measured(scores):
            tracked.metrics(values, step=step)
        tracked.artifact(job.table("history.csv", HISTORY, history))
        curves = {
            name: list(zip(scores["ratios"], scores[f"{key}_mean"], scores[f"{key}_std"], strict=True))
            for name, key in (("as cut", "pruned"), ("after fine-tuning", "finetuned"))
        }
        tracked.artifact(lines(job.path("curves.png"), curves, "share of channels removed", "test accuracy, %"))
        job.finish(
            ["history.csv"],
            dataset_digest=source.digest,
            test_digest=test.digest,
            scores=scores,
            image_bytes=source.image_bytes,
            label_bytes=source.label_bytes,
        )


def measured(scores: dict[str, Any]) -> list[tuple[int, dict[str, float]]]:
    """Steps and values as a tracked run shows them: one step a ratio."""
    names = ("pruned", "finetuned", "parameters", "macs")
    return [
        (i, {"ratio": ratio} | {name: scores[f"{name}_mean"][i] for name in names})
        for i, ratio in enumerate(scores["ratios"])
    ]


def prepare(
    job: Job, seed: int, ratio: float | None, sparse: dict[str, Any] | None, feed: Feed, device: torch.device
) -> tuple[Student, float | None]:
    """The student of one unit, and its accuracy as cut (None for the whole network)."""
    row, dataset = job.row, job.dataset
    size, channels = dataset.image_size, dataset.channels
    model = build(row.student, classes=dataset.classes, image_size=size, channels=channels, seed=seed)
    if ratio is None:
        return Student(seed, row, dataset, device, job.precision, model, row.sparsity), None
    assert isinstance(model, VGG)
    assert sparse is not None
    model.load_state_dict(sparse)
    small = slimmed(model, remaining(job, model, ratio))
    # Fine-tuning has a schedule of its own length.
    settings = row.model_copy(update={"epochs": max(1, row.finetune)})
    student = Student(seed, settings, dataset, device, job.precision, small)
    return student, student.test(feed)


def remaining(job: Job, model: nn.Module, ratio: float) -> list[Tensor]:
    """Which channels of every layer stay.

    Raises:
        EdcError: a layer would lose them all.
    """
    assert isinstance(model, VGG)
    try:
        return kept(model, ratio)
    except EdcError as error:
        raise EdcError(f"slimming.{job.key}.ratios: {error}") from None


def sizes(model: nn.Module, job: Job) -> tuple[int, int, int]:
    """Channels, parameters and multiply-accumulates of one image."""
    assert isinstance(model, VGG)
    shape = (job.dataset.channels, job.dataset.image_size, job.dataset.image_size)
    parameters = sum(p.numel() for p in model.parameters())
    return sum(len(s) for s in scales(model)), parameters, multiply_accumulates(model, shape)


def position(
    unit: int, epoch: int, history: list[list[Any]], sparse: dict[str, Any] | None, student: Student | None
) -> dict[str, Any]:
    """What a checkpoint keeps."""
    kept_state = None if student is None else student.state()
    return {"unit": unit, "epoch": epoch, "history": history, "sparse": sparse, "student": kept_state}


def summary(history: list[list[Any]]) -> dict[str, Any]:
    """For every ratio, ascending, mean and standard deviation (n - 1) over the seeds; ratio 0 is the whole network."""
    ratios = sorted({row[1] for row in history})
    found: dict[str, Any] = {"ratios": ratios}
    columns = {"channels": 2, "parameters": 3, "macs": 4, "pruned": 5, "finetuned": 6}
    for name, column in columns.items():
        means, spreads = [], []
        for ratio in ratios:
            # The whole network is neither cut nor mended: what it was trained to counts as both.
            values = [float(row[6] if row[column] is None else row[column]) for row in history if row[1] == ratio]
            means.append(descriptive.fmean(values))
            spreads.append(descriptive.stdev(values) if len(values) > 1 else None)
        found |= {f"{name}_mean": means, f"{name}_std": spreads}
    return found
