"""What `edc export` writes is loaded by the tools it is for, with their own code, and networks learn from it.

Each test is skipped where its tool is not installed; see "Tested against" in docs/exchange.md. DD-Ranking and rethinkdc
train on it with their own loops, as accurately as this project does under the same protocol. Classes are coloured
patterns with noise, so that a few steps suffice.
"""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.pets import LABELS, REPLAY, RUN, finish
from torch import Tensor, nn

from edc.config.rows import Dataset, RelabelRow, StudentRow
from edc.data.augment import Normaliser
from edc.data.feed import Feed
from edc.data.images import ImageSet
from edc.data.replay import Replay
from edc.exchange.ddranking import IMAGENET
from edc.exchange.export import export
from edc.nets.convnet import convnet_d2
from edc.storage import read_array, read_tensors
from edc.training.evaluation import percentages
from edc.training.sources import Condensed
from edc.training.students import Student, correct, train_epoch
from edc.training.trainer_group import TrainerGroup

pytestmark = pytest.mark.slow

IPC = 2
SEEDS = [0, 1, 2]
CPU = torch.device("cpu")


def classes_of(count: int) -> list[str]:
    """Names in an order that is not the alphabetical one."""
    return [f"c{count - c:03}" for c in range(count)]


def draw(count: int, each: int, seed: int, size: int = 8, cells: int = 8, noise: float = 0.3) -> Tensor:
    """Images of ``count`` classes, class after class: uint8 (N, 3, S, S); a class is a pattern of coloured cells."""
    patterns = torch.rand(count, 1, 3, cells, cells, generator=torch.Generator().manual_seed(0))
    patterns = patterns.repeat_interleave(8 // cells, -1).repeat_interleave(8 // cells, -2)
    drawn = torch.rand(count, each, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    images = ((1 - noise) * patterns + noise * drawn).flatten(0, 1)
    return (255 * images).to(torch.uint8).repeat_interleave(size // 8, -1).repeat_interleave(size // 8, -2)


def labels_of(count: int, each: int) -> Tensor:
    return torch.arange(count).repeat_interleave(each)


def condensed(count: int, family: str, images: Tensor, ipc: int = IPC) -> Dataset:
    """A finished condensed set with soft labels, in the current directory; normalised as ImageNet."""
    dataset = {"name": family, "family": family, "kind": "digits", "image_size": images.shape[-1], "classes": count}
    dataset |= {"class_names": classes_of(count), "mean": list(IMAGENET[0]), "std": list(IMAGENET[1])}
    row = {"dataset": family, "recipe": "edc", "ipc": ipc, "seed": 0, "optimise": {"iterations": 0}}
    facts: dict[str, Any] = {"params": {"synthesize": row, "dataset": dataset}, "classes": classes_of(count)}
    labels = labels_of(count, ipc)
    finish("synthesize", RUN, row, {"images.safetensors": {"images": images, "labels": labels}}, **facts)
    facts["params"] = {"relabel": REPLAY, "dataset": dataset}
    # The closer the pattern of a class, the larger its logit.
    pixels = images.flatten(1).float() / 255
    patterns = torch.stack([pixels[labels == c].mean(0) for c in range(count)])
    static = (-0.5 * torch.cdist(pixels, patterns) ** 2).numpy().astype(np.float16)
    finish("relabel", LABELS, REPLAY, {"static.npy": static, "logits.npy": np.stack([static] * 4)}, (RUN,), **facts)
    return Dataset(**dataset)


def write_pictures(folder: str, images: Tensor, each: int) -> None:
    """Class folders of numbers."""
    for i, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        path = Path(folder, f"{i // each:05}", f"{i % each}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


@pytest.fixture
def ten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a set of ten classes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    condensed(10, "cifar10", draw(10, IPC, 1))
    return tmp_path


def check(pairs: Any) -> None:
    """Pairs of a picture and a label are those of the set, in its order."""
    images, labels = zip(*pairs, strict=True)
    assert list(labels) == labels_of(10, IPC).tolist()
    assert np.array_equal(np.stack([np.asarray(image) for image in images]), draw(10, IPC, 1).permute(0, 2, 3, 1))


@pytest.mark.parametrize("names", ["index", "sre2l"])
def test_datasets_reads_folders_of_numbers(names, ten):
    datasets = pytest.importorskip("datasets")
    export(RUN, Path("out"), "folder", LABELS, names)
    rows = datasets.load_dataset("imagefolder", data_dir="out/train", split="train", cache_dir="cache")
    check((row["image"], row["label"]) for row in rows)


def test_datasets_reads_a_parquet_export_as_its_card_says(ten):
    datasets = pytest.importorskip("datasets")
    export(RUN, Path("out"), "parquet", LABELS)
    rows = datasets.load_dataset("./out", split="train", cache_dir="cache")
    assert rows.features["label"].names == classes_of(10)
    check((row["image"], row["label"]) for row in rows)
    check((row["image"], row["class_id"]) for row in rows)


def test_rethinkdc_lists_the_files_of_a_folder(ten):
    """Its ImageFolderIPC can't be made with torchvision 0.19 or later; the function that lists its files can."""
    rethinkdc = pytest.importorskip("rethinkdc.imagenet_ipc")
    out = export(RUN, ten / "set", "folder", LABELS, "index")
    check((Image.open(path), c) for path, c in rethinkdc.make_dataset(str(out / "train"), extensions=".png"))


def student(regime: str, epochs: int, batch: int, lr: float, zeta: float, temperature: float) -> StudentRow:
    """A protocol of what all have: AdamW, a cosine, cross-entropy or KL."""
    return StudentRow(
        dataset="d", recipe="r", ipc=IPC, student="s", protocol="p", regime=regime, images="i", labels="l",
        seeds=SEEDS, epochs=epochs, batch=batch, loss={"name": "kl", "temperature": temperature}, ema=None,
        optimiser={"name": "adamw", "lr": lr, "weight_decay": 0.01}, schedule={"name": "smoothing", "zeta": zeta},
    )  # fmt: skip


def trained_here(
    network: Any, row: StudentRow, choices: RelabelRow, targets: np.ndarray, dataset: Dataset, test: ImageSet
) -> list[float]:
    """Accuracies of this project's students on the exported images, one for each seed."""
    stored = read_tensors(Path(f"runs/synthesize/{RUN}/images.safetensors"))
    normaliser = Normaliser(dataset.mean, dataset.std)
    source = Condensed(stored["images"], stored["labels"], targets, row.regime, choices, row.batch, normaliser)
    students = []
    for seed in row.seeds:
        torch.manual_seed(100 + seed)
        students.append(Student(seed, row, dataset, CPU, model=network()))
    group = TrainerGroup(students)
    for epoch in range(row.epochs):
        train_epoch(students, epoch, source.epoch(epoch), group, lambda loss, where: loss)
    return percentages(correct(students, Feed(test, dataset, normaliser, CPU)))


def check_alike(theirs: list[float], ours: list[float], chance: float) -> None:
    """The means differ by no more than the seeds do."""
    spread = max(2 * ((np.var(theirs, ddof=1) + np.var(ours, ddof=1)) / 2) ** 0.5, 2)
    print("theirs", theirs, "ours", ours, "spread", spread)
    assert abs(np.mean(theirs) - np.mean(ours)) <= spread, (theirs, ours)
    assert 5 * chance < min(*theirs, *ours), "trained"
    assert max(*theirs, *ours) < 99, "too easy"


@pytest.mark.parametrize("regime", ["hard", "static"])
def test_ddranking_is_as_accurate_on_tensors(regime, tmp_path, monkeypatch):
    """Its part that trains and tests; both scores end with an error of 0.2.0 after it, whatever the images are.

    Real images are in the layout of Tiny-ImageNet. The accuracy of the last epoch counts, not the best.
    """
    metrics = pytest.importorskip("ddranking.metrics")
    config = pytest.importorskip("ddranking.config").Config
    monkeypatch.chdir(tmp_path)
    dataset = condensed(200, "tiny_imagenet", draw(200, 1, 1, noise=0.5), 1)
    write_pictures("dataset/train", draw(200, 1, 3), 1)
    test = draw(200, 2, 4, noise=0.5)
    write_pictures("dataset/val", test, 2)
    export(RUN, Path("out"), "ddranking", LABELS)
    epochs, batch, lr = 20, 20, 0.003
    values = config.from_file("out/config.yaml")
    values.update({"device": "cpu", "num_workers": 0, "num_epochs": epochs, "syn_batch_size": batch})
    values.update({"model_name": "ConvNet-2"})
    score = metrics.LabelRobustScoreHard(values) if regime == "hard" else metrics.LabelRobustScoreSoft(values)
    score.test_interval = epochs
    images, soft, theirs = torch.load("out/images.pt"), torch.load("out/soft_labels.pt"), []
    for seed in SEEDS:
        torch.manual_seed(seed)
        if regime == "hard":
            accuracy, _ = score._compute_hard_label_metrics_helper(images, None, labels_of(200, 1), lr, "syn")
        else:
            accuracy, _ = score._compute_soft_label_metrics_helper(images, None, soft, lr)
        theirs.append(accuracy)
    plain = RelabelRow(**REPLAY | {"crop_scale": (1, 1), "mix": "none", "flip": False})
    row = student(regime, epochs, batch, lr, 2.0, 1.0)
    targets = read_array(Path(f"runs/relabel/{LABELS}/static.npy"))
    seen = ImageSet(test, labels_of(200, 2), tuple(classes_of(200)))
    check_alike(theirs, trained_here(lambda: convnet_d2(200, 8, 3), row, plain, targets, dataset, seen), 0.5)


def small() -> nn.Module:
    """A network for 224 pixels a side that a CPU trains in seconds."""
    return nn.Sequential(
        nn.AvgPool2d(28), nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(128, 10),
    )  # fmt: skip


def trained_teacher(dataset: Dataset, images: Tensor, labels: Tensor) -> nn.Module:
    """A network trained on crops of images of the ten classes."""
    torch.manual_seed(7)
    model = small()
    choices = RelabelRow(**REPLAY | {"crop_scale": (0.08, 1), "mix": "none", "epochs": 30, "batch": 20})
    replay = Replay(images, choices, Normaliser(dataset.mean, dataset.std))
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.003)
    for epoch in range(10):
        for index, views in replay.epoch(epoch, 20, mix=False):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(views), labels[index]).backward()
            optimiser.step()
    return model.eval()


def rethinkdc_accuracy(seed: int, *arguments: str) -> float:
    """Accuracy after the last epoch of its command, on the CPU.

    The command insists on a GPU, on an account of Weights & Biases, and on pkg_resources, which setuptools no longer
    has; here moves to a GPU do nothing, and what it logs is kept.
    """
    rethinkdc, logged = pytest.importorskip("rethinkdc.train_KD"), {}
    with pytest.MonkeyPatch.context() as patch:
        # True for its own question alone: PyTorch would use a GPU.
        patch.setattr(torch.cuda, "is_available", lambda: sys._getframe(1).f_globals["__name__"] == rethinkdc.__name__)
        patch.setattr(torch.Tensor, "cuda", lambda self: self)
        patch.setattr(nn.Module, "cuda", lambda self: self)
        patch.setattr(nn, "DataParallel", lambda model: model)
        wandb = SimpleNamespace(login=dict, init=dict, Settings=dict, log=logged.update)
        patch.setitem(sys.modules, "wandb", wandb)
        inside = SimpleNamespace(resource_filename=lambda _, path: str(Path(rethinkdc.__file__).parent / path))
        patch.setitem(sys.modules, "pkg_resources", inside)
        patch.setattr(sys, "argv", ["rethinkdc", *arguments])
        torch.manual_seed(seed)
        np.random.seed(seed)
        rethinkdc.main()
    return logged["val/top1"]


@pytest.mark.parametrize("regime", ["hard", "soft"])
def test_rethinkdc_is_as_accurate_on_parquet_files(regime, ten, monkeypatch):
    """Its command, with a smaller network than torchvision's as student, and a trained one as teacher."""
    pytest.importorskip("rethinkdc")
    pytest.importorskip("datasets")
    models = pytest.importorskip("torchvision.models")
    size, ipc, epochs, batch = 224, 3, 30, 10
    for stage in ("synthesize", "relabel"):
        Path("runs", stage).rename(f"{stage}_of_small_images")
    hard = {"size": size, "cells": 2, "noise": 0.6}
    dataset = condensed(10, "ten", draw(10, ipc, 1, **hard), ipc)
    test = draw(10, 10, 2, **hard)
    write_pictures("val", test, 10)
    out = export(RUN, ten / "he-y" / "set", "parquet", LABELS)
    teacher = trained_teacher(dataset, draw(10, 10, 3, **hard), labels_of(10, 10))
    monkeypatch.setitem(vars(models), "small", lambda pretrained: teacher if pretrained else small())
    monkeypatch.setenv("IMAGENET_VAL_DIR", "val")
    options = ["--ipc", str(ipc), "--batch-size", str(batch), "--epochs", str(epochs), "--workers", "0"]
    options += ["--model", "small", "--teacher-model", "small", "--output-dir", "logs", "--hf-cache-dir", "cache"]
    theirs = [rethinkdc_accuracy(seed, str(out), f"--{regime}", *options) for seed in SEEDS]
    choices = {"crop_scale": (0.08, 1), "flip": True, "epochs": epochs, "batch": batch, "mix": "cutmix"}
    row, relabel = student(regime, epochs, batch, 0.001, 1.0, 20.0), RelabelRow(**REPLAY | choices)
    stored = read_tensors(Path(f"runs/synthesize/{RUN}/images.safetensors"))["images"]
    replay = Replay(stored, relabel, Normaliser(dataset.mean, dataset.std))
    logits = torch.zeros(epochs, len(stored), 10)
    for epoch in range(epochs if regime == "soft" else 0):
        for index, views in replay.epoch(epoch, batch):
            with torch.no_grad():
                logits[epoch, index] = teacher.eval()(views)
    seen = ImageSet(test, labels_of(10, 10), tuple(classes_of(10)))
    check_alike(theirs, trained_here(small, row, relabel, logits.numpy(), dataset, seen), 10)
