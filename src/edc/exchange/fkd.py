"""Labels per epoch in the form of FKD (Shen and Xing, ECCV 2022): a file for every batch of views.

``epoch_E/batch_B.tar``, a list saved by ``torch.save``: crop boxes float32 (B, 4), top, left, height and width as
shares of the side; flips (B,); the place in the batch of each image's partner (B,); the share of the image that is
kept; the rectangle CutMix pastes, first row and column, last row and column + 1, or None; logits (B, K) in half
precision. SRe2L's lists end here: batch b of epoch e holds the images of part b of the e-th permutation of a
``RandomSampler`` seeded with 42. G-VBSM and EDC add the images (B,), counted as torchvision's ``ImageFolder`` does, EDC
also zeros (B, 2, 2).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import RandomSampler

from edc.config.rows import Dataset, RelabelRow, twice_chance
from edc.data.augment import Normaliser
from edc.data.replay import Replay
from edc.errors import EdcError
from edc.exchange.tensors import load_pt
from edc.nets.weights import first_line

FOLDER = "labels"
SEED = 42
ENTRIES = (6, 7, 8)
EXPECTED = "epoch_0, epoch_1, ..., each with batch_0.tar, batch_1.tar, ..., and nothing else"


class Labels(NamedTuple):
    """Labels per epoch, fp16 (E, N, K), the row that students replay them by, and the views they belong to."""

    logits: np.ndarray
    row: RelabelRow
    views: dict[str, Tensor]


def refuse_unfit(row: RelabelRow) -> None:
    """Refuse what the files can't hold."""
    for key, plain in {"pad": 0, "shuffle": 1, "randaugment": None}.items():
        if (value := getattr(row, key)) != plain:
            raise EdcError(f"--format fkd: the labels were made with {key} = {value!r}; FKD has no place for it")
    if row.mix == "mixup":
        raise EdcError(
            "--format fkd: the labels were made with mix = 'mixup', a share per image; FKD has one per batch"
        )


def write(
    folder: Path, images: Tensor, logits: np.ndarray | None, row: RelabelRow | None, views: dict[str, Tensor]
) -> None:
    """Write EDC's eight entries for every batch, of images class after class in folders that sort as their labels."""
    if row is None or logits is None:
        raise EdcError("--format fkd: no labels per epoch; expected --labels, the key of a relabel run that has them")
    refuse_unfit(row)
    replay, size = Replay(images, row, Normaliser([0.0], [1.0]), views), images.shape[-1]
    for epoch in range(row.epochs):
        draws, of_epoch = replay.draws(epoch), torch.from_numpy(np.array(logits[epoch]))
        below = folder / FOLDER / f"epoch_{epoch}"
        below.mkdir(parents=True)
        place = torch.empty(len(images), dtype=torch.int64)
        # A single last image is a batch of its own: EDC's reader finds files by dividing by the batch size.
        for number, index in enumerate(draws.order.split(row.batch)):
            place[index] = torch.arange(len(index))
            box = draws.mix_boxes[index[0]].tolist()
            kept = 1 - (box[2] - box[0]) * (box[3] - box[1]) / size**2
            coordinates = draws.boxes[index].to(torch.float32) / size
            unused = torch.zeros(len(index), 2, 2, dtype=torch.int64)
            entries = [draws.flips[index], place[draws.partners[index]], kept, box, of_epoch[index], index, unused]
            torch.save([coordinates, *entries], below / f"batch_{number}.tar")


def read(folder: Path, classes: Tensor, order: Tensor, dataset: Dataset) -> Labels:
    """The labels per epoch of N images.

    Args:
        folder: of the folders epoch_E.
        classes: of the images, (N,).
        order: (N,) which image is the i-th of ``ImageFolder``.
        dataset: of K classes and a side of S pixels.

    Raises:
        EdcError: files are missing, damaged or of another form, belong to other images, or contradict the classes.
    """
    paths = [numbered(epoch, r"batch_(\d+)\.tar") for epoch in numbered(folder, r"epoch_(\d+)")]
    n, size = len(classes), dataset.image_size
    # The stream of every epoch follows that of the epoch before.
    sampler = RandomSampler(range(n), generator=torch.Generator().manual_seed(SEED))
    logits = np.empty((len(paths), n, dataset.classes), np.float16)
    views: dict[str, list[Tensor]] = {}
    first = load(paths[0][0])
    mix: Literal["none", "cutmix", "mixup"]
    mix = "cutmix" if first[4] is not None else "mixup" if first[2] is not None else "none"
    for epoch, files in enumerate(paths):
        sampled, start, batches = torch.tensor(list(sampler)), 0, []
        for path in files:
            entries = load(path)
            count = len(entries[1])
            images = entries[6] if len(entries) > 6 else sampled[start : start + count]
            try:
                batches.append(parsed(entries, torch.as_tensor(images), mix, order, size))
            except (TypeError, ValueError, IndexError, RuntimeError, AttributeError) as error:
                raise EdcError(f"{path}: not as FKD writes it ({first_line(error)[:200]})") from None
            if batches[-1]["logits"].shape[1:] != (dataset.classes,):
                actual = list(batches[-1]["logits"].shape)
                raise EdcError(f"{path}: logits {actual}; expected {[count, dataset.classes]}, a column per class")
            start += count
        joined = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
        if not torch.equal(joined["order"].sort().values, torch.arange(n)):
            raise EdcError(f"{files[0].parent}: labels of {start} views; expected one of each of the {n} images")
        place = joined["order"].argsort()
        logits[epoch] = joined.pop("logits")[place].numpy()
        for name, values in joined.items():
            views.setdefault(name, []).append(values if name == "order" else values[place])
    check_agreement(logits, classes, folder, seeded=len(first) == 6)
    row = RelabelRow(
        dataset=dataset.name, images="none", observers=["none"], flip=dataset.flip, source="imported",
        epochs=len(paths), batch=len(first[1]), mix=mix, replay="stored",
    )  # fmt: skip
    return Labels(logits, row, {name: torch.stack(values) for name, values in views.items()})


def numbered(folder: Path, pattern: str) -> list[Path]:
    """What is in a folder, by the number in its name; the numbers are 0 to the last."""
    found = {}
    for path in folder.iterdir():
        if (match := re.fullmatch(pattern, path.name)) is None:
            raise EdcError(f"{path}: not a part of FKD labels; expected {EXPECTED}")
        found[int(match[1])] = path
    if sorted(found) != list(range(len(found))) or not found:
        raise EdcError(f"{folder}: numbers {sorted(found)[:5]}; expected {EXPECTED}")
    return [found[number] for number in range(len(found))]


def load(path: Path) -> list[Any]:
    """The entries of a file, read without executing code of it."""
    try:
        entries = load_pt(path)
    except Exception as error:  # what unpicklers raise on broken files is an open list
        raise EdcError(f"{path}: not readable as FKD labels ({first_line(error)[:200]})") from None
    if not isinstance(entries, (list, tuple)) or len(entries) not in ENTRIES or not isinstance(entries[1], Tensor):
        raise EdcError(f"{path}: expected a list of 6 (SRe2L), 7 (G-VBSM) or 8 (EDC) entries of a batch")
    return list(entries)


def parsed(entries: list[Any], images: Tensor, mix: str, order: Tensor, size: int) -> dict[str, Tensor]:
    """One batch as rows of views, by their names in :class:`~edc.data.replay.EpochDraws`.

    Raises:
        ValueError: a value is out of range; other errors: of another type or shape.
    """
    coordinates, flips, partners, share, box, logits = entries[:6]
    count = len(flips)
    index = order[images.long()]
    boxes = (coordinates * size).round().long()
    ends = boxes[:, :2] + boxes[:, 2:]
    if tuple(boxes.shape) != (count, 4) or boxes.min() < 0 or boxes[:, 2:].min() < 1 or ends.max() > size:
        raise ValueError(f"crop boxes {list(boxes.shape)} beyond the image; expected shares of its side, (B, 4)")
    place = torch.arange(count) if mix == "none" else torch.as_tensor(partners).long()
    if len(index) != count or len(logits) != count or len(place) != count or place.min() < 0:
        raise ValueError(f"entries of {len(index)}, {len(logits)} and {len(place)} views; expected {count}")
    rectangle = torch.tensor([int(value) for value in box] if mix == "cutmix" else [0] * 4)
    if len(rectangle) != 4 or rectangle.min() < 0 or rectangle.max() > size:
        raise ValueError(f"rectangle {rectangle.tolist()}; expected four numbers from 0 to {size}")
    values = {"order": index, "boxes": boxes, "partners": index[place], "mix_boxes": rectangle.expand(count, 4)}
    rows = {name: value.to(torch.int32) for name, value in values.items()}
    rows |= {"order": index, "flips": flips.reshape(count).bool(), "logits": logits.to(torch.float16)}
    if not bool(rows["logits"].isfinite().all()):
        raise ValueError("logits that are not finite in half precision")
    if mix == "mixup":
        rows["shares"] = torch.full((count,), float(share))
    return rows


def check_agreement(logits: np.ndarray, classes: Tensor, folder: Path, seeded: bool) -> None:
    """Refuse labels whose largest logit is an image's class no more often than by chance, in the later epochs.

    The first epoch of a sampler is the same under every version of PyTorch, later ones need not be.
    """
    later = logits[len(logits) // 2 :]
    agreement = float((later.argmax(2) == classes.numpy()).mean())
    if agreement < (least := twice_chance(logits.shape[2])):
        cause = "the sampler's order under this version of PyTorch is another, or images or classes are"
        raise EdcError(
            f"{folder}: labels agree with the class of {100 * agreement:.1f} % of the views; expected at least "
            f"{100 * least:.1f} %: {cause if seeded else 'images or classes are in another order'}"
        )
