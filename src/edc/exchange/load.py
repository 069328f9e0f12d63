"""`edc.load`: a condensed set as a torch dataset of the very views and labels students were trained on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, SupportsIndex, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from edc.config.files import names, read
from edc.config.layers import own_protocol
from edc.config.rows import RelabelRow
from edc.data.augment import Normaliser
from edc.data.replay import EpochDraws, Replay, batches_of
from edc.errors import EdcError, unknown_name
from edc.exchange.export import finished, read_run, unknown_run
from edc.exchange.sets import LabelledSet, read_set
from edc.storage import RUNS, manifest_in, read_array, run_folder

Regime = Literal["soft", "static", "hard"]
REGIMES = get_args(Regime)
CACHE = 2**28
"""Bytes of augmented images a dataset keeps: a small set is augmented once an epoch, in whatever order it is read."""


class CondensedDataset(TorchDataset[tuple[Tensor, Tensor, int]]):
    """The images of a condensed set, augmented as in one epoch, with the soft labels stored for that epoch.

    Item i is the i-th image of the epoch in the students' order: float32 (C, S, S), normalised; its soft label, float32
    (K,) logits, or under the regime hard one-hot probabilities; its class. Read in order, in batches of :attr:`batch`,
    it gives the students' own batches; partners of CutMix and mixup come from those in any case.

    Args:
        targets: an ``.npy`` file of logits, (E, N, K) under the regime soft, (N, K) under static; of hard its folder.
        regime: soft has a label for every epoch; static and hard have one for every image, and images are not mixed.

    Attributes:
        classes: the K class names in label order.
        mean, std: of the channels, which normalise pixels in [0, 1].
        epochs: how many have stored labels; None where every epoch has the same.
        batch: images of a batch of the students.

    Raises:
        EdcError: labels and images do not fit together, or there is no such epoch.
    """

    def __init__(self, source: LabelledSet, targets: Path, regime: Regime = "soft", epoch: int = 0) -> None:
        images, dataset = source.images, source.dataset
        replay = source.relabel or unaugmented(dataset.name, len(images))
        self.classes, self.labels, self.regime = images.classes, images.labels, regime
        self.mean, self.std, self._name = tuple(dataset.mean), tuple(dataset.std), dataset.name
        self.targets, self._size = targets, replay.batch
        self.batch = min(replay.batch, len(images))
        self.epochs = replay.epochs if regime == "soft" else None
        self._replay = Replay(images.images, replay, Normaliser(dataset.mean, dataset.std), source.views)
        expected = [*([replay.epochs] if regime == "soft" else []), len(images), len(images.classes)]
        if regime != "hard" and (shape := list(read_array(targets).shape)) != expected:
            raise EdcError(f"{targets}: labels of shape {shape}; expected {expected}")
        # In shared memory, so that persistent workers of a DataLoader see a new epoch.
        self._epoch = torch.tensor(0).share_memory_()
        self._current: tuple[int, EpochDraws, list[Tensor], Tensor] | None = None
        self._views: dict[int, Tensor] = {}
        self.set_epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        """Select an epoch, 0-based, that has labels; another is refused with an :class:`EdcError`."""
        if not isinstance(epoch, SupportsIndex) or epoch < 0 or (self.epochs is not None and epoch >= self.epochs):
            last = "" if self.epochs is None else f" to {self.epochs - 1}, the last with stored labels"
            raise EdcError(f"{self.targets.parent}: epoch {epoch}; expected 0{last}")
        self._epoch.fill_(epoch)

    def batches(self) -> list[list[int]]:
        """Places in the students' batches, for a DataLoader's ``batch_sampler``: a lone last image joins the rest."""
        return [batch.tolist() for batch in batches_of(torch.arange(len(self)), self._size)]

    def __repr__(self) -> str:
        shape, last = " x ".join(map(str, self._replay.images.shape[1:])), self.epochs
        epochs = "every epoch" if last is None else f"epochs 0 to {last - 1}"
        return (
            f"CondensedDataset({self._name!r}: {len(self)} images of {len(self.classes)} classes, {shape}, "
            f"{self.regime} labels of {epochs}, epoch {int(self._epoch)}, batch {self.batch})"
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor, int]:
        if not -len(self) <= place < len(self):
            raise IndexError(f"place {place} of {len(self)} images")
        place = int(place) % len(self)
        draws, batches, targets = self._draws()
        number = min(place // self._size, len(batches) - 1)
        image = int(draws.order[place])
        view = self._view(draws, batches[number], number)[place - number * self._size]
        return view, targets[image], int(self.labels[image])

    def _view(self, draws: EpochDraws, index: Tensor, number: int) -> Tensor:
        """One whole batch of the epoch, augmented: partners come from it, and the last bits depend on it."""
        if number not in self._views:
            if sum(view.nbytes for view in self._views.values()) >= CACHE:
                self._views.clear()
            self._views[number] = self._replay.batch([(draws, index)], mix=self.regime == "soft")
        return self._views[number]

    def _draws(self) -> tuple[EpochDraws, list[Tensor], Tensor]:
        """Draws, batches and soft labels (N, K) of the selected epoch."""
        epoch = int(self._epoch)
        if self._current is None or self._current[0] != epoch:
            draws = self._replay.draws(epoch)
            if self.regime == "hard":
                targets = torch.eye(len(self.classes))[self.labels]
            else:
                stored = read_array(self.targets)
                rows = np.array(stored[epoch] if self.regime == "soft" else stored)
                targets = torch.from_numpy(rows).to(torch.float32)
            self._current = (epoch, draws, batches_of(draws.order, self._size), targets)
            self._views.clear()
        return self._current[1:]

    def __getstate__(self) -> dict[str, Any]:
        # A worker makes its own views: sending them would take longer.
        return self.__dict__ | {"_current": None, "_views": {}}


def load(
    path_or_run: str | Path, labels: str | None = None, epoch: int = 0, regime: Regime = "soft"
) -> CondensedDataset:
    """A condensed set as a torch dataset of augmented images, soft labels and classes.

    Args:
        path_or_run: a folder that `edc export` wrote, or a finished synthesize run of the checkout in the current
            directory.
        labels: a relabel run of that run; None: the only one, or that of the recipe's own protocol.
        epoch: the first one, 0-based; :meth:`CondensedDataset.set_epoch` changes it.
        regime: soft: a label for every epoch, with CutMix or mixup; static: one label per image, without mixing; hard:
            the classes alone, which a set without soft labels has too. Its images are then not augmented.

    Raises:
        EdcError: there is no such set, it has no such labels, or a file is damaged.
    """
    if regime not in REGIMES:
        raise unknown_name("regime", regime, REGIMES)
    folder = Path(path_or_run)
    if (folder / "manifest.json").exists():
        if labels is not None:
            raise EdcError(f"labels = {labels!r}: expected none, {folder} is an exported set")
        source, _ = read_set(folder)
    elif folder.is_dir():
        raise EdcError(f"{folder}: no manifest.json in it; expected what `edc export` wrote, or the key of a run")
    elif isinstance(path_or_run, Path) or "/" in path_or_run or os.sep in path_or_run:
        raise EdcError(f"{folder}: no such folder; expected what `edc export` wrote, or the key of a run")
    else:
        run = str(path_or_run)
        if not (run_folder("synthesize", run) / "manifest.json").is_file():
            raise EdcError(f"{run!r} is no folder here and no run: {unknown_run('synthesize', run)}")
        labels = labels or labels_for(run, needed=regime != "hard")
        source = read_run(run, labels)
        folder = run_folder("synthesize", run) if labels is None else run_folder("relabel", labels)
    if regime == "hard":
        return CondensedDataset(source, folder.absolute(), regime, epoch)
    name = "logits" if regime == "soft" else "static"
    if source.relabel is None or name not in source.labels:
        raise EdcError(f"{folder}: without {name}; expected `edc export RUN --labels RELABEL_RUN`, or another regime")
    # Absolute: the current directory may change before they are read.
    return CondensedDataset(source, folder.absolute() / f"{name}.npy", regime, epoch)


def unaugmented(dataset: str, images: int) -> RelabelRow:
    """The augmentation of a set that was not labelled here: none."""
    return RelabelRow(
        dataset=dataset, images="none", observers=["none"], flip=False, epochs=1, batch=images,
        mix="none", crop_scale=(1.0, 1.0),
    )  # fmt: skip


def labels_for(run: str, needed: bool = True) -> str | None:
    """The relabel run of a synthesize run: the only one, or that of the recipe's own protocol; None if not needed."""
    params = finished("synthesize", run)["params"]
    manifests = [manifest_in(path.parent) for path in sorted((RUNS / "relabel").glob("*/manifest.json"))]
    keys = [manifest["run"] for manifest in manifests if manifest["params"]["relabel"]["images"] == run]
    if not keys and not needed:
        return None
    if not keys:
        raise EdcError(f"{RUNS / 'relabel'}: no finished labels of {run!r}; run `edc relabel` first")
    if len(keys) > 1 and (row := params["synthesize"])["recipe"] in names("recipes"):
        protocol = own_protocol(read("recipes", row["recipe"]), params["dataset"]["family"], row["ipc"])
        keys = [key for key in keys if key == f"{run}-{protocol}"] or keys
    if len(keys) == 1:
        return keys[0]
    raise EdcError(f"{run!r} has several labels; expected labels= one of: {', '.join(keys)}")
