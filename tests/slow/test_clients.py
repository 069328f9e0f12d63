"""What `edc export` writes is loaded by the tools it is for, with their own code, and networks learn from it.

Each test is skipped where its tool is not installed; see "Tested against" in docs/exchange.md. No tool is changed: what
needs a GPU in it is left out. Classes are coloured patterns with noise, so that a few steps suffice.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.pets import LABELS, REPLAY, RUN, finish
from torch import Tensor, nn
from torchvision import transforms

from edc.exchange.export import export

pytestmark = pytest.mark.slow

IPC = 2


def classes_of(count: int) -> list[str]:
    """Names in an order that is not the alphabetical one."""
    return [f"c{count - c:03}" for c in range(count)]


def draw(count: int, each: int, seed: int, size: int = 8) -> Tensor:
    """Images of ``count`` classes, class after class: uint8 (N, 3, S, S)."""
    patterns = torch.rand(count, 1, 3, size, size, generator=torch.Generator().manual_seed(0))
    noise = torch.rand(count, each, 3, size, size, generator=torch.Generator().manual_seed(seed))
    return (255 * (0.7 * patterns + 0.3 * noise)).flatten(0, 1).to(torch.uint8)


def condensed(count: int, family: str, size: int = 8, ipc: int = IPC) -> None:
    """A finished condensed set with soft labels, in the current directory."""
    dataset = {"name": family, "family": family, "kind": "digits", "image_size": size, "classes": count}
    dataset |= {"class_names": classes_of(count), "mean": [0.5] * 3, "std": [0.25] * 3}
    images, labels = draw(count, ipc, 1, size), torch.arange(count).repeat_interleave(ipc)
    row = {"dataset": family, "recipe": "edc", "ipc": ipc, "seed": 0, "optimise": {"iterations": 0}}
    facts: dict[str, Any] = {"params": {"synthesize": row, "dataset": dataset}, "classes": classes_of(count)}
    finish("synthesize", RUN, row, {"images.safetensors": {"images": images, "labels": labels}}, **facts)
    facts["params"] = {"relabel": REPLAY, "dataset": dataset}
    static = 12 * np.eye(count)[labels]
    arrays = {"static.npy": static.astype(np.float16), "logits.npy": np.stack([static] * 4).astype(np.float16)}
    finish("relabel", LABELS, REPLAY, arrays, (RUN,), **facts)


@pytest.fixture
def ten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a set of ten classes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    condensed(10, "cifar10")
    return tmp_path


def check(pairs: Any) -> None:
    """Pairs of a picture and a label are those of the set, in its order."""
    images, labels = zip(*pairs, strict=True)
    assert list(labels) == torch.arange(10).repeat_interleave(IPC).tolist()
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


@pytest.mark.parametrize("layout", ["folder", "parquet"])
def test_rethinkdc_trains_on_both_of_its_inputs(layout, ten):
    """With its own parts: its command needs a GPU and an account of Weights & Biases.

    Its ImageFolderIPC can't be made with torchvision 0.19 or later, so the function that lists its files is called.
    """
    rethinkdc = pytest.importorskip("rethinkdc.imagenet_ipc")
    utils = pytest.importorskip("rethinkdc.utils")
    out = export(RUN, ten / "he-y" / "set", layout, LABELS, "index" if layout == "folder" else "class")
    transform = transforms.ToTensor()
    if layout == "folder":
        files = rethinkdc.make_dataset(str(out / "train"), extensions=".png", image_number=IPC)
        train = [(transform(Image.open(path)), label) for path, label in files]
    else:
        datasets = pytest.importorskip("datasets")
        train = rethinkdc.HFDatasetAdapter(datasets.load_dataset(str(out), cache_dir="cache"), transform=transform)
    assert len(train) == 10 * IPC
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10))
    optimiser = torch.optim.AdamW(utils.get_parameters(model), lr=0.003)
    for _ in range(20):
        for images, labels in torch.utils.data.DataLoader(train, batch_size=10, shuffle=True):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimiser.step()
    with torch.no_grad():
        output = model.eval()(draw(10, 20, 2) / 255)
    [accuracy] = utils.accuracy(output, torch.arange(10).repeat_interleave(20))
    assert accuracy > 60


@pytest.fixture
def ddranking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Real images in the layout of Tiny-ImageNet, a set exported for them, and what is to be edited in its config."""
    pytest.importorskip("ddranking")
    monkeypatch.chdir(tmp_path)
    condensed(200, "tiny_imagenet", 16, ipc=1)
    for part, seed in (("train", 3), ("val", 4)):
        for i, image in enumerate(draw(200, 1, seed, 16).permute(0, 2, 3, 1).numpy()):
            path = Path("dataset", part, f"{i:05}", "0.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    export(RUN, Path("out"), "ddranking", LABELS)
    # Soft labels are tested every twentieth epoch.
    return {"device": "cpu", "num_workers": 0, "num_epochs": 20, "syn_batch_size": 20, "model_name": "ConvNet-4-BN"}


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_ddranking_trains_on_tensors(kind, ddranking):
    """Its part that trains and tests; both scores end with an error of 0.2.0 after it, whatever the images are."""
    metrics = pytest.importorskip("ddranking.metrics")
    config = pytest.importorskip("ddranking.config").Config.from_file("out/config.yaml")
    config.update(ddranking)
    images, options = torch.load("out/images.pt"), {"lr": 0.005, "hyper_param_search": False}
    if kind == "hard":
        evaluator, labels = metrics.LabelRobustScoreHard(config), torch.arange(200)
        accuracy, _ = evaluator._compute_hard_label_metrics_helper(images, None, labels, mode="syn", **options)
    else:
        evaluator, labels = metrics.LabelRobustScoreSoft(config), torch.load("out/soft_labels.pt")
        accuracy, _ = evaluator._compute_soft_label_metrics_helper(images, None, labels, **options)
    assert accuracy > 10, "chance is 0.5 %"
