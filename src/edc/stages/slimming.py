"""Stage slimming: a network, new or pretrained, is trained, pruned and fine-tuned on a condensed set alone."""

from __future__ import annotations

import copy
import functools
from typing import Any

from torch import Tensor, nn

from edc.config.rows import twice_chance
from edc.data.feed import Feed
from edc.errors import EdcError
from edc.nets.slim import kept_channels, slimmed
from edc.nets.vgg import VGG
from edc.reporting.figures import lines
from edc.stages.context import Context
from edc.stages.observers import pretrained
from edc.stages.progress import ProgressLog
from edc.stages.sources import training_data
from edc.training.slimming import HISTORY, sizes, slimming_scores
from edc.training.students import Student, train_epoch
from edc.training.trainer import build_for
from edc.training.trainer_group import TrainerGroup


def run(context: Context) -> None:
    """Sparsity training, global pruning of channels, fine-tuning with the same labels (Liu et al. 2017; EDC Figure 4).

    Every seed is trained once with an L1 norm on its BN scales, then pruned to every ratio; each smaller network is
    tested before and after fine-tuning. Ratio 0 is the network as trained, listed or not. A network that was trained
    on the real images before (``pretrained``) is tested before this training, too.

    Raises:
        EdcError: the unpruned network is near chance, so that pruning it shows nothing, or a ratio would remove a whole
            layer.
    """
    row, dataset = context.row, context.dataset
    data = training_data(context)
    start = {seed: pretrained(context, key) for seed, key in zip(row.seeds, row.pretrained or [], strict=False)}
    test = context.images(row.split)
    feed = context.feed(test)
    # One unit is one training: of the unpruned network, then of every pruned one.
    ratios = sorted({ratio for ratio in row.ratios if ratio > 0})
    units = [(seed, ratio) for seed in row.seeds for ratio in (None, *ratios)]
    lengths = [row.epochs if ratio is None else row.finetune for _, ratio in units]

    state = context.resume() or {"unit": 0, "epoch": 0, "history": [], "sparse": None, "student": None}
    history, sparse = state["history"], state["sparse"]
    done = sum(lengths[: state["unit"]]) + state["epoch"]
    bar = ProgressLog(sum(lengths), f"slimming {context.key}", done, "epoch")
    for unit in range(state["unit"], len(units)):
        seed, ratio = units[unit]
        student, before = prepare(context, seed, ratio, start.get(seed), sparse, feed)
        if saved := state.pop("student", None):
            student.load_state(saved)
        cohort = TrainerGroup([student])
        for epoch in range(state.pop("epoch", 0), lengths[unit]):
            train_epoch([student], epoch, data.source.epoch(epoch), cohort, context.finite)
            bar.update(values={"loss": f"{student.history[-1][2]:.3g}"})
            context.checkpoint(functools.partial(position, unit, epoch + 1, history, sparse, student))
        history.append([seed, ratio or 0.0, *sizes(student.model, dataset), before, student.test(feed)])
        if ratio is None:
            above_chance(context, history[-1][-1])
            with student.averaged_weights():
                sparse = copy.deepcopy(student.model.state_dict())
                for largest in ratios[-1:]:  # fails before any time goes into the smaller ones
                    remaining(context, student.model, largest)
        context.checkpoint(functools.partial(position, unit + 1, 0, history, sparse, None), now=True)
    scores = slimming_scores(history)
    context.write_table("history.csv", HISTORY, history)
    curves = {
        f"{name} fine-tuning": list(zip(scores["ratios"], scores[f"{name}_mean"], scores[f"{name}_std"], strict=True))
        for name in ("before", "after")
    }
    where = "on held-out images" if row.split == "val" else "on test images"
    lines(context.path("curves.png"), curves, "share of channels removed", f"accuracy {where}, %")
    context.finish(
        ["history.csv"],
        dataset_digest=data.digest,
        test_digest=test.digest,
        test_images=len(test),
        scores=scores,
        image_bytes=data.image_bytes,
        label_bytes=data.label_bytes,
    )


def prepare(
    context: Context, seed: int, ratio: float | None, start: nn.Module | None, sparse: dict[str, Any] | None, feed: Feed
) -> tuple[Student, float | None]:
    """The student of one unit, and its accuracy before its training (None where it starts with random weights).

    The unpruned network starts as a copy of ``start``, smaller ones with what pruning leaves of the weights ``sparse``.
    """
    row, dataset, device = context.row, context.dataset, context.device
    model = build_for(dataset, row.student, seed) if start is None else copy.deepcopy(start)
    if ratio is None:
        student = Student(seed, row, dataset, device, context.precision, model, row.sparsity)
        return student, None if start is None else student.test(feed)
    assert isinstance(model, VGG)
    assert sparse is not None
    model.load_state_dict(sparse)
    small = slimmed(model, remaining(context, model, ratio))
    # Fine-tuning has a schedule of its own length.
    settings = row.model_copy(update={"epochs": max(1, row.finetune)})
    student = Student(seed, settings, dataset, device, context.precision, small)
    return student, student.test(feed)


def above_chance(context: Context, accuracy: float) -> None:
    """Refuse an unpruned network whose accuracy, in percent, is below ``min_accuracy``."""
    row = context.row
    least = 100 * (twice_chance(context.dataset.classes) if row.min_accuracy is None else row.min_accuracy)
    if accuracy < least:
        raise EdcError(
            f"slimming.{context.key}: the unpruned network reaches {accuracy:.1f} %, expected at least {least:.1f} % "
            f"(min_accuracy); raise epochs = {row.epochs}, or lower optimiser.lr = {row.optimiser.lr:g} or "
            f"sparsity = {row.sparsity:g}"
        )


def remaining(context: Context, model: nn.Module, ratio: float) -> list[Tensor]:
    """The channels of every layer that stay; EdcError if a layer would lose them all."""
    assert isinstance(model, VGG)
    try:
        return kept_channels(model, ratio, context.row.keep)
    except EdcError as error:
        raise EdcError(f"slimming.{context.key}.ratios: {error}") from None


def position(
    unit: int, epoch: int, history: list[list[Any]], sparse: dict[str, Any] | None, student: Student | None
) -> dict[str, Any]:
    state = None if student is None else student.state()
    return {"unit": unit, "epoch": epoch, "history": history, "sparse": sparse, "student": state}
