"""Soft labels as they are stored: all logits in half precision, or the largest of them, or fewer bits each.

Fewer stored epochs than training epochs, and how they are used again: :mod:`edc.training.sources`. After LPLD and LPQLD
(he-y, NeurIPS 2024 and arXiv 2604.18135); rows of 8 or 4 bits have a scale and an offset of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edc.config.protocol import LabelChoices

FILES = ("logits", "classes", "ranges")
"""Arrays of a store: values, fp16 (E, N, k), or codes, uint8; where k < K the class of each, uint16 or uint32; with
codes the least and largest value of a row, fp16 (E, N, 2)."""
NOTHING = -1e4
"""Logit of a class that is not stored, under losses with a softmax: its probability is 0 at temperatures up to 90."""


def kept(classes: int, choices: LabelChoices) -> int:
    """k, how many logits of a view are stored."""
    return min(classes, choices.top_k or classes)


def compress(logits: np.ndarray, choices: LabelChoices) -> dict[str, np.ndarray]:
    """The arrays of a store, from all logits fp16 (E, N, K).

    With ``top_k`` the k largest logits of a row, in descending order. With ``bits`` b below 16 each value v of a row
    becomes round((v - least) / (largest - least) * (2^b - 1)); two codes of 4 bits share a byte.
    """
    arrays: dict[str, np.ndarray] = {}
    values = np.asarray(logits)
    if (k := kept(values.shape[-1], choices)) < values.shape[-1]:
        order = np.argsort(-values, axis=-1, kind="stable")[..., :k]
        values = np.take_along_axis(values, order, axis=-1)
        arrays["classes"] = order.astype(np.uint16 if logits.shape[-1] <= 2**16 else np.uint32)
    if choices.bits < 16:
        ranges = np.stack([values.min(axis=-1), values.max(axis=-1)], axis=-1)
        arrays["ranges"] = ranges
        low, high = ranges[..., :1].astype(np.float32), ranges[..., 1:].astype(np.float32)
        steps = 2**choices.bits - 1
        scaled = (values.astype(np.float32) - low) / np.where(high > low, high - low, 1) * steps
        codes = np.rint(scaled).astype(np.uint8)
        if choices.bits == 4:
            codes = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, k % 2)])
            codes = codes[..., ::2] << 4 | codes[..., 1::2]
        values = codes
    return {"logits": values} | arrays


class StoredLabels:
    """Rows of a store as logits: ``labels[epoch]`` is float16 or float32 (N, K), ``labels[epoch, images]`` some rows.

    Args:
        arrays: of the store, by name.
        classes: K.
        choices: how it was made.
        loss: name of the student's loss; without a softmax, classes that are not stored get the row's least value.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], classes: int, choices: LabelChoices, loss: str) -> None:
        self.arrays, self.classes, self.choices = arrays, classes, choices
        self.missing = NOTHING if loss == "kl" else None

    @property
    def shape(self) -> tuple[int, int, int]:
        """E, N and K."""
        epochs, images = self.arrays["logits"].shape[:2]
        return epochs, images, self.classes

    def __getitem__(self, where: int | tuple[int, np.ndarray]) -> np.ndarray:
        values = np.asarray(self.arrays["logits"][where])
        k = kept(self.classes, self.choices)
        if self.choices.bits < 16:
            if self.choices.bits == 4:
                values = np.stack([values >> 4, values & 15], axis=-1).reshape(len(values), -1)[:, :k]
            ranges = self.arrays["ranges"][where].astype(np.float32)
            low, high = ranges[:, :1], ranges[:, 1:]
            values = low + values.astype(np.float32) / (2**self.choices.bits - 1) * (high - low)
        if k == self.classes:
            return values
        fill = values.min(axis=1, keepdims=True).astype(np.float32) if self.missing is None else self.missing
        full = np.broadcast_to(np.float32(fill), (len(values), self.classes)).copy()
        np.put_along_axis(full, self.arrays["classes"][where].astype(np.int64), values.astype(np.float32), axis=1)
        return full


def files(choices: LabelChoices, classes: int) -> list[str]:
    """Names of the arrays that a store has."""
    needed = {"logits": True, "classes": kept(classes, choices) < classes, "ranges": choices.bits < 16}
    return [name for name in FILES if needed[name]]


def open_store(read: Callable[[str], np.ndarray], classes: int, choices: LabelChoices, loss: str) -> Any:
    """Labels that are indexed by epoch: the array itself where all logits are stored, else :class:`StoredLabels`.

    ``read`` opens an array by its name.
    """
    arrays = {name: read(name) for name in files(choices, classes)}
    return arrays["logits"] if list(arrays) == ["logits"] else StoredLabels(arrays, classes, choices, loss)


def label_bytes(regime: str, shape: list[int], choices: LabelChoices | None = None) -> int:
    """Bytes of stored labels (E, N, K): a store per epoch, fp16 logits per image, or the fewest whole bytes a class."""
    epochs, images, classes = shape
    of_class = math.ceil(math.log2(classes) / 8)
    if regime == "hard":
        return images * of_class
    if regime == "static":
        return 2 * images * classes
    choices = choices or LabelChoices()
    k = kept(classes, choices)
    size = math.ceil(k * choices.bits / 8) + (4 if choices.bits < 16 else 0)
    size += (2 if classes <= 2**16 else 4) * k if k < classes else 0
    return epochs * images * size
