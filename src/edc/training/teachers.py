"""Soft labels from teachers: joint logits of augmented views, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from edc.config.protocol import LabelChoices
from edc.config.registry import ENSEMBLE, implementation
from edc.data.replay import Replay, part_sizes
from edc.nets.frozen import batch_statistics
from edc.nets.placing import compute_logits


@torch.no_grad()
def teacher_logits(teachers: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Logits of every teacher for images (B, C, S, S): (M, B, K)."""
    return torch.stack([compute_logits(teacher, x) for teacher in teachers])


def view_logits(teachers: Sequence[nn.Module], x: Tensor, choices: LabelChoices) -> Tensor:
    """Logits of every teacher for augmented images (B, C, S, S): (M, B, K).

    With ``batch_norm: batch`` they are one batch, which the teachers see part by part; each part is normalised with its
    own mean and variance (CV-DD, FADRM).
    """
    if choices.batch_norm == "running":
        return teacher_logits(teachers, x)
    with batch_statistics(teachers):
        return torch.cat([teacher_logits(teachers, part) for part in x.split(part_sizes(len(x), choices.parts))], dim=1)


def joint_label(logits: Tensor, ensemble: str) -> Tensor:
    """One label from the teachers' logits (M, B, K), in half precision: (B, K)."""
    return implementation(ENSEMBLE, ensemble)(logits).to(torch.float16)


def label_epochs(
    logits: np.ndarray,
    replay: Replay,
    epochs: range,
    batch: int,
    ensemble: str,
    teachers: Sequence[nn.Module],
    at_once: int,
) -> None:
    """Label a block of epochs in forward passes of about ``at_once`` images, independent of the students' batch.

    With ``batch_norm: batch`` every batch passes alone. Blocks and passes are the same whether or not a run was
    interrupted, and so are the last bits. The labels are written to the logits (E, N, K).
    """
    pending: list[tuple[int, np.ndarray, Tensor]] = []
    if replay.row.batch_norm == "batch":
        at_once = 1

    def forward() -> None:
        of_teachers = view_logits(teachers, torch.cat([x for _, _, x in pending]), replay.row)
        offset = 0
        for epoch, index, x in pending:
            # One batch at a time: some ensembles weight the teachers by their logits for the whole batch.
            label = joint_label(of_teachers[:, offset : offset + len(x)], ensemble)
            logits[epoch, index] = label.cpu().numpy()
            offset += len(x)
        pending.clear()

    for epoch in epochs:
        for index, x in replay.epoch(epoch, batch):
            pending.append((epoch, index.cpu().numpy(), x))
            if sum(len(x) for _, _, x in pending) >= at_once:
                forward()
    if pending:
        forward()


def static_labels(teachers: Sequence[nn.Module], views: Iterable[Tensor], ensemble: str) -> Tensor:
    """One label per image: (N, K) in half precision, from the plain images in batches."""
    return torch.cat([joint_label(teacher_logits(teachers, x), ensemble) for x in views])
