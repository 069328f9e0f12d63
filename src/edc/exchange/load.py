"""`edc.load`: a condensed set as a torch dataset that shows what the students saw.

condensed = edc.load("digits-edc-ipc10")
condensed.set_epoch(3)
loader = DataLoader(condensed, batch_size=condensed.batch)
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from edc.data.augment import Normaliser
from edc.data.images import ImageSet
from edc.data.replay import EpochDraws, Replay, batches_of
from edc.errors import EdcError, unknown_name
from edc.exchange.export import finished, labels_of
from edc.exchange.handover import StoredLogits, is_handed_over, read_handed
from edc.exchange.imported import replay_row
from edc.config.layers import own_protocol
from edc.config.rows import Dataset, RelabelRow
from edc.storage import RESULTS, read_json, read_tensors
from edc.config.files import names, read
from edc.config.validation import validate

Regime = Literal["soft", "static"]
HELD = 2**28
"""Bytes of augmented images a dataset keeps: small sets are augmented once an epoch, in whatever order they're read."""


class CondensedDataset(TorchDataset[tuple[Tensor, Tensor, int]]):
    """The images of a condensed set, augmented as in one epoch, with the soft labels stored for that epoch.

    Item i is the i-th image the students saw in the epoch: a float32 (C, S, S) image, normalised; its soft label,
    float32 (K,) logits; its class. Read in order, in batches of :attr:`batch`, it gives the students' own batches.
    CutMix and mixup take their partners from those batches, whatever order or batches it is read in.

    Args:
        images: uint8 (N, C, S, S), classes and class names.
        dataset: what the images stand for.
        choices: what is replayed.
        targets: logits (E, N, K) under the regime soft, (N, K) under fixed.
        regime: soft has a label for every epoch, fixed has one for every image and mixes none.
        epoch: to begin with.

    Attributes:
        classes: the K class names in label order.
        epochs: how many have stored labels; None where every epoch has the same.
        batch: images in a batch of the students'.

    Raises:
        EdcError: labels and images do not fit together, or there is no such epoch.
    """

    def __init__(
        self,
        images: ImageSet,
        dataset: Dataset,
        choices: RelabelRow,
        targets: StoredLogits,
        regime: Regime = "soft",
        epoch: int = 0,
    ) -> None:
        self.classes, self.labels, self.regime = images.classes, images.labels, regime
        self.choices, self.targets = choices, targets
        self.batch = min(choices.batch, len(images))
        self.epochs = choices.epochs if regime == "soft" else None
        self._replay = Replay(images.images, choices, Normaliser(dataset.mean, dataset.std))
        expected = [len(images), len(images.classes)]
        if regime == "soft":
            expected = [choices.epochs, *expected]
        if targets.shape != expected:
            raise EdcError(f"{targets.path}: labels of shape {targets.shape}; expected {expected}")
        # In shared memory, so that the persistent workers of a DataLoader hear of a new epoch.
        self._epoch = torch.tensor(0).share_memory_()
        self._drawn: tuple[int, EpochDraws, list[Tensor], Tensor] | None = None
        self._held: OrderedDict[int, Tensor] = OrderedDict()
        self.set_epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        """Show another epoch, 0-based.

        Raises:
            EdcError: no labels are stored for it.
        """
        if epoch < 0 or (self.epochs is not None and epoch >= self.epochs):
            last = "" if self.epochs is None else f" to {self.epochs - 1}, the last with stored labels"
            raise EdcError(f"{self.targets.path.parent}: epoch {epoch}; expected 0{last}")
        self._epoch.fill_(epoch)

    @property
    def epoch(self) -> int:
        """The epoch that is shown."""
        return int(self._epoch)

    @property
    def order(self) -> Tensor:
        """Which image is shown at each place of the epoch, int64 (N,)."""
        return self._draws()[1].order

    def batches(self) -> list[list[int]]:
        """Places in the students' batches, for a DataLoader's ``batch_sampler``: a lone last image joins the rest."""
        return [batch.tolist() for batch in batches_of(torch.arange(len(self)), self.choices.batch)]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor, int]:
        if not -len(self) <= place < len(self):
            raise IndexError(f"place {place} of {len(self)} images")
        place = int(place) % len(self)
        _, draws, batches, targets = self._draws()
        number = min(place // self.choices.batch, len(batches) - 1)
        image = int(draws.order[place])
        view = self._view(draws, batches[number], number)[place - number * self.choices.batch]
        return view, targets[image], int(self.labels[image])

    def _view(self, draws: EpochDraws, index: Tensor, number: int) -> Tensor:
        """One batch of the epoch, augmented whole: partners come from it, and so do the last bits of a sum."""
        if number in self._held:
            self._held.move_to_end(number)
            return self._held[number]
        view = self._replay.batch([(draws, index)], mix=self.regime == "soft")
        self._held[number] = view
        while len(self._held) > 1 and sum(v.nbytes for v in self._held.values()) > HELD:
            self._held.popitem(last=False)
        return view

    def _draws(self) -> tuple[int, EpochDraws, list[Tensor], Tensor]:
        """The epoch, its draws, its batches and its soft labels (N, K)."""
        epoch = self.epoch
        if self._drawn is None or self._drawn[0] != epoch:
            draws = self._replay.draws(epoch)
            rows = self.targets.read(epoch if self.regime == "soft" else None)
            targets = torch.from_numpy(rows).to(torch.float32)
            self._drawn = (epoch, draws, batches_of(draws.order, self.choices.batch), targets)
            self._held.clear()
        return self._drawn

    def __getstate__(self) -> dict[str, Any]:
        # A worker makes its own views: sending those at hand would take longer.
        return self.__dict__ | {"_drawn": None, "_held": OrderedDict()}


def load(
    path_or_run: str | Path, labels: str | None = None, epoch: int = 0, regime: Regime = "soft"
) -> CondensedDataset:
    """A condensed set as a torch dataset of images as students see them, soft labels and classes.

    Args:
        path_or_run: a folder that `edc export` wrote with labels, or a finished synthesize run of the checkout in the
            current directory.
        labels: a relabel run of that run; None: the only one, or that of the recipe's own protocol.
        epoch: which one it shows, 0-based; :meth:`CondensedDataset.set_epoch` changes it.
        regime: soft: a label for every epoch, with CutMix or mixup; fixed: one label an image, without.

    Raises:
        EdcError: there is no such set, it has no such labels, or a file is damaged.
    """
    if regime not in ("soft", "static"):
        raise unknown_name("regime", regime, ("soft", "static"))
    folder = Path(path_or_run)
    if is_handed_over(folder):
        if labels is not None:
            raise EdcError(f"labels = {labels!r}: expected none, {folder} is an exported set that has its own or none")
        handed = read_handed(folder)
        targets = handed.logits if regime == "soft" else handed.static
        if targets is None:
            what = "labels per epoch" if regime == "soft" and handed.static else "labels"
            raise EdcError(f"{folder}: exported without {what}; expected them (`edc export RUN --labels RELABEL_RUN`)")
        choices = replay_row(handed.manifest["labels"]["replay"], f"{folder / 'manifest.json'}: labels.replay")
        return CondensedDataset(handed.images, handed.dataset, choices, targets, regime, epoch)
    run = str(path_or_run)
    if folder.is_dir():
        raise EdcError(
            f"{folder}: no manifest.json of `edc export` in it; expected an exported set, or the key of a run"
        )
    made = finished("synthesize", run)
    key = labels or labels_for(run, made)
    labels_of(key, run, made)  # checked
    row = read_json(RESULTS / "relabel" / key / "manifest.json")["params"]["relabel"]
    choices = validate(RelabelRow, row, f"{RESULTS / 'relabel' / key}: relabel")
    dataset: Dataset = validate(Dataset, made["params"]["dataset"], f"{RESULTS / 'synthesize' / run}: dataset")
    stored = read_tensors(RESULTS / "synthesize" / run / "images.safetensors")
    images = ImageSet(stored["images"], stored["labels"], tuple(made["classes"]))
    path = RESULTS.absolute() / "relabel" / key / ("logits.npy" if regime == "soft" else "static.npy")
    return CondensedDataset(images, dataset, choices, StoredLogits(path), regime, epoch)


def labels_for(run: str, made: dict[str, Any]) -> str:
    """The relabel run to take where none is named.

    Raises:
        EdcError: there is none, or several and none of them is of the recipe's own protocol.
    """
    found = []
    for path in sorted((RESULTS / "relabel").glob("*/manifest.json")):
        if read_json(path)["params"]["relabel"]["images"] == run:
            found.append(path.parent.name)
    if not found:
        raise EdcError(f"{RESULTS / 'relabel'}: no finished labels of {run!r}; run `edc relabel` first")
    if len(found) == 1:
        return found[0]
    row, family = made["params"]["synthesize"], made["params"]["dataset"]["family"]
    own = own_protocol(read("recipes", row["recipe"]), family, row["ipc"]) if row["recipe"] in names("recipes") else ""
    if f"{run}-{own}" not in found:
        raise EdcError(f"{run!r} has several labels; expected labels= one of: {', '.join(found)}")
    return f"{run}-{own}"
