"""`edc.load`: a torch dataset of the students' own views and labels."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.pets import CLASSES, DATASET, FORMATS, LABELS, OF_IMAGES, REPLAY, RUN, finish, manifest, pixels, refused
from torch.utils.data import DataLoader

import edc
from edc.config.rows import Dataset, RelabelRow
from edc.data.augment import Normaliser
from edc.data.images import ImageSet
from edc.data.replay import Replay
from edc.errors import EdcError
from edc.exchange.export import export
from edc.exchange.load import CondensedDataset
from edc.exchange.sets import LabelledSet

VIEWS: dict[str, dict[str, Any]] = {
    "cutmix": {},
    "mixup": {"mix": "mixup"},
    "plain": {"mix": "none", "crop_scale": [1.0, 1.0]},
    "everything": {"pad": 2, "shuffle": 2, "randaugment": {"ops": 2, "magnitude": 9}},
    "lone last image": {"batch": 4},
    "one batch": {"batch": 50},
}


def dataset_of(folder: Path, changes: dict[str, Any], **more: Any) -> tuple[CondensedDataset, Replay, np.ndarray]:
    row = RelabelRow(**(REPLAY | {"batch": 5} | changes))
    source = LabelledSet(ImageSet(pixels(), OF_IMAGES, CLASSES), Dataset(**DATASET), {}, relabel=row)
    logits = np.random.default_rng(0).normal(size=(4, 9, 3)).astype(np.float16)
    np.save(folder / "logits.npy", logits)
    condensed = CondensedDataset(source, folder / "logits.npy", **more)
    return condensed, Replay(pixels(), row, Normaliser(DATASET["mean"], DATASET["std"])), logits


@pytest.mark.parametrize("changes", VIEWS.values(), ids=VIEWS)
def test_items_are_the_students_views(changes, tmp_path, monkeypatch):
    """Bit for bit, image by image, epoch by epoch, in any order, however few views are cached."""
    monkeypatch.setattr("edc.exchange.load.CACHE", 1)
    condensed, replay, logits = dataset_of(tmp_path, changes)
    for epoch in (0, 3, 1):
        condensed.set_epoch(epoch)
        batches = list(replay.epoch(epoch, replay.row.batch))
        index, expected = (torch.cat(part) for part in zip(*batches, strict=True))
        for place in torch.randperm(9, generator=torch.Generator().manual_seed(epoch)).tolist():
            image, soft, label = condensed[place]
            assert torch.equal(image, expected[place])
            assert np.array_equal(soft.numpy(), logits[epoch, index[place]].astype(np.float32))
            assert label == index[place] // 3
    assert len(condensed._views) == 1


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("changes", [VIEWS["cutmix"], VIEWS["lone last image"]])
def test_a_loader_gives_the_students_batches(changes, workers, tmp_path):
    condensed, replay, logits = dataset_of(tmp_path, changes)
    loader = DataLoader(
        condensed, batch_sampler=condensed.batches(), num_workers=workers, persistent_workers=bool(workers)
    )
    for epoch in (0, 2):
        condensed.set_epoch(epoch)
        expected = list(replay.epoch(epoch, replay.row.batch))
        for (index, view), (images, soft, labels) in zip(expected, loader, strict=True):
            assert images.dtype == soft.dtype == torch.float32
            assert torch.equal(images, view)
            assert np.array_equal(soft.numpy(), logits[epoch][index].astype(np.float32))
            assert torch.equal(labels, index // 3)


def test_it_is_a_sequence_that_can_be_pickled(tmp_path):
    condensed, *_ = dataset_of(tmp_path, {}, epoch=2)
    assert len(condensed) == len(list(condensed)) == 9
    assert torch.equal(condensed[-1][0], condensed[8][0])
    with pytest.raises(IndexError):
        condensed[9]
    for other in (pickle.loads(pickle.dumps(condensed)), copy.deepcopy(condensed)):
        assert torch.equal(other[3][0], condensed[3][0])


def test_labels_and_epochs_that_do_not_fit(tmp_path):
    with pytest.raises(EdcError, match=r"labels of shape \[4, 9, 3\]; expected \[7, 9, 3\]"):
        dataset_of(tmp_path, {"epochs": 7})
    condensed, *_ = dataset_of(tmp_path, {})
    for epoch in (-1, 4):
        with pytest.raises(EdcError, match=rf"epoch {epoch}; expected 0 to 3"):
            condensed.set_epoch(epoch)


def test_a_run_and_its_exports_load_the_same(project):
    for layout in FORMATS:
        export(RUN, Path(layout), layout, LABELS)
    for regime, epochs in (("soft", 4), ("static", None)):
        first, *others = [edc.load(source, epoch=2, regime=regime) for source in (RUN, *FORMATS)]
        assert (first.classes, first.epochs) == (CLASSES, epochs)
        for other in others:
            for (image, soft, label), (image_2, soft_2, label_2) in zip(first, other, strict=True):
                assert torch.equal(image, image_2)
                assert torch.equal(soft, soft_2)
                assert label == label_2


def test_labels_of_a_run(project):
    for key in ("other", "more"):
        arrays = {name: np.load(f"runs/relabel/{LABELS}/{name}") for name in ("static.npy", "logits.npy")}
        finish("relabel", key, manifest(f"runs/relabel/{LABELS}")["params"]["relabel"], arrays, (RUN,))
    assert edc.load(RUN).targets.parent.name == LABELS, "those of the recipe's own protocol"
    assert edc.load(RUN, labels="more").targets.parent.name == "more"
    Path("runs/relabel", LABELS).rename("gone")
    refused(lambda: edc.load(RUN), "several labels", "more, other")
    refused(lambda: edc.load(RUN, labels="moore"), "unknown finished relabel run 'moore'", "'more'")
    refused(lambda: edc.load("pets-edc-ipc4"), "is no folder here and no run", RUN)
    refused(lambda: edc.load("runs"), "runs: no manifest.json")
    for path in (Path("gone_too"), "exported/gone_too", "./gone_too"):
        refused(lambda path=path: edc.load(path), "gone_too: no such folder")
    refused(lambda: edc.load(RUN, regime="hart"), "unknown regime 'hart'", "'hard'")
    export(RUN, Path("bare"), "torch")
    refused(lambda: edc.load("bare"), "bare: without logits", "edc export RUN --labels")
    refused(lambda: edc.load("bare", labels="more"), "labels = 'more'")


def test_what_a_set_says_of_itself(project):
    condensed = edc.load(RUN, epoch=1)
    assert (condensed.mean, condensed.std) == ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    shown = repr(condensed)
    assert shown == (
        "CondensedDataset('pets': 9 images of 3 classes, 3 x 8 x 8, soft labels of epochs 0 to 3, epoch 1, batch 4)"
    )


def test_hard_labels(project):
    """Students' views under hard labels; of a set that was never labelled, the images as they are."""
    export(RUN, Path("bare"), "torch")
    normaliser = Normaliser(DATASET["mean"], DATASET["std"])
    replay = Replay(pixels(), RelabelRow(**REPLAY), normaliser)
    expected = {RUN: torch.cat([view for _, view in replay.epoch(2, 4, mix=False)])}
    plain = edc.load("bare", regime="hard", epoch=2)
    expected["bare"] = normaliser.encode(pixels())[plain._draws()[0].order]
    for source, views in expected.items():
        condensed = edc.load(source, regime="hard", epoch=2)
        images, soft, labels = next(iter(DataLoader(condensed, batch_size=9)))
        assert torch.equal(images, views)
        assert torch.equal(soft, torch.eye(3)[labels])
        assert sorted(labels.tolist()) == OF_IMAGES.tolist()
