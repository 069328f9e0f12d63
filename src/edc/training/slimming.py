"""Sizes and scores of pruned networks (network slimming, Liu et al. 2017)."""

from __future__ import annotations

import statistics
from typing import Any

from torch import nn

from edc.config.rows import Dataset
from edc.nets import parameter_count
from edc.nets.flops import multiply_accumulates
from edc.nets.slim import scales
from edc.nets.vgg import VGG
from edc.training.evaluation import spread

HISTORY = ("seed", "ratio", "channels", "parameters", "macs", "accuracy_before", "accuracy_after")


def sizes(model: nn.Module, dataset: Dataset) -> tuple[int, int, int]:
    """Channels, parameters and multiply-accumulates of one image."""
    assert isinstance(model, VGG)
    shape = (dataset.channels, dataset.image_size, dataset.image_size)
    return sum(len(s) for s in scales(model)), parameter_count(model), multiply_accumulates(model, shape)


def slimming_scores(history: list[list[Any]]) -> dict[str, Any]:
    """For every ratio, ascending, mean and standard deviation (n - 1) over the seeds, and each seed's value.

    Rows are those of ``HISTORY``. Ratio 0 is the unpruned network: its accuracy before fine-tuning is None, and the one
    after counts as both.
    """
    ratios = sorted({row[1] for row in history})
    of_ratios = [[row for row in history if row[1] == ratio] for ratio in ratios]
    scores: dict[str, Any] = {"ratios": ratios}
    for column, name in enumerate(("channels", "parameters", "macs", "before", "after"), 2):
        of_seeds = [[float(row[6] if row[column] is None else row[column]) for row in rows] for rows in of_ratios]
        scores[name] = [list(values) for values in zip(*of_seeds, strict=True)]
        scores[f"{name}_mean"] = [statistics.fmean(values) for values in of_seeds]
        scores[f"{name}_std"] = [spread(values) for values in of_seeds]
    return scores
