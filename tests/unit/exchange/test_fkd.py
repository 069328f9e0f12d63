"""FKD label folders: what is written and read shows networks the views that a reader of FKD shows."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from support.faults import Malicious
from support.pets import CLASSES, DATASET, OF_IMAGES, REPLAY, RUN, finish, refused
from torch import Tensor
from torch.utils.data import RandomSampler
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as F

import edc
from edc.exchange.export import export
from edc.exchange.external import Options
from edc.exchange.importing import import_set

EPOCHS, BATCH = 4, 4
MEAN, STD = (torch.tensor(DATASET[name]).view(3, 1, 1) for name in ("mean", "std"))


def files(epoch: int) -> list[Path]:
    return sorted(Path(f"out/labels/epoch_{epoch}").iterdir())


def sampler_order() -> list[Tensor]:
    sampler = RandomSampler(range(9), generator=torch.Generator().manual_seed(42))
    return [torch.tensor(list(sampler)) for _ in range(EPOCHS)]


def write(form: str, mix: str = "cutmix") -> None:
    """Labels of out/train as SRe2L (6 entries), G-VBSM (7) and EDC (8) write them, with labels that agree with it."""
    rng, torch_rng = np.random.default_rng(0), torch.Generator().manual_seed(5)
    images = ImageFolder("out/train")
    targets = torch.tensor([CLASSES.index(images.classes[c]) for c in images.targets])
    for epoch, order in enumerate(sampler_order()):
        Path(f"out/labels/epoch_{epoch}").mkdir(parents=True)
        for b, index in enumerate(order.split(BATCH)):
            if form != "SRe2L":  # any order will do
                index = index.flip(0)
            count = len(index)
            boxes = [RandomResizedCrop.get_params(torch.empty(3, 8, 8), (0.1, 1), (0.75, 4 / 3)) for _ in index]
            coordinates = torch.tensor(boxes, dtype=torch.float32) / 8
            flips = torch.rand(count, generator=torch_rng) < 0.5
            x, y = rng.integers(0, 4, 2)
            box = [x, y, x + rng.integers(0, 4), y + 4] if mix == "cutmix" else None
            logits = 8 * torch.eye(3)[targets[index]] + torch.rand(count, 3, generator=torch_rng)
            permutation = torch.randperm(count, generator=torch_rng)
            entries: list[Any] = [coordinates, flips, permutation, rng.beta(1, 1), box, logits.half()]
            if mix == "none":
                entries[2:5] = [None, None, None]
            entries += {"SRe2L": [], "G-VBSM": [index], "EDC": [index, torch.zeros(count, 2, 2)]}[form]
            torch.save(entries, f"out/labels/epoch_{epoch}/batch_{b}.tar")


def reference() -> dict[tuple[int, str], tuple[Tensor, Tensor]]:
    """View and logits by epoch and picture, as the validators of SRe2L and EDC make them."""
    images, result = ImageFolder("out/train"), {}
    for epoch, order in enumerate(sampler_order()):
        for path, sampled in zip(files(epoch), order.split(BATCH), strict=True):
            coordinates, flips, permutation, lam, box, logits, *index = torch.load(path, weights_only=False)
            chosen = (index[0] if index else sampled).tolist()
            views = []
            for i, coords, flip in zip(chosen, coordinates, flips, strict=True):
                top, left, height, width = (round(v.item() * 8) for v in coords)
                picture = F.to_tensor(images[i][0])
                bilinear = InterpolationMode.BILINEAR
                picture = F.resized_crop(picture, top, left, height, width, [8, 8], bilinear, antialias=True)
                views.append(((F.hflip(picture) if flip else picture) - MEAN) / STD)
            batch = torch.stack(views)
            if box is not None:
                x1, y1, x2, y2 = box
                batch[:, :, x1:x2, y1:y2] = batch[permutation][:, :, x1:x2, y1:y2]
            elif lam is not None:
                batch = lam * batch + (1 - lam) * batch[permutation]
            for i, view, label in zip(chosen, batch, logits, strict=True):
                result[epoch, images.samples[i][0]] = view, label
    return result


def shown(folder: str, paths: list[str], labels: str | None = None) -> dict[tuple[int, str], tuple[Tensor, Tensor]]:
    """The same of a set of this project, whose images, class after class, are at the paths."""
    condensed, result = edc.load(folder, labels), {}
    for epoch in range(EPOCHS):
        condensed.set_epoch(epoch)
        order = condensed._draws()[0].order.tolist()
        for place, image in enumerate(order):
            view, label, target = condensed[place]
            assert target == OF_IMAGES[image]
            result[epoch, paths[image]] = view, label
    return result


def check_same(actual: dict[Any, Any], expected: dict[Any, Any]) -> None:
    assert actual.keys() == expected.keys()
    for key, (view, label) in expected.items():
        torch.testing.assert_close(actual[key][0], view, atol=1e-5, rtol=1e-5)
        assert torch.equal(actual[key][1], label.float())


@pytest.mark.parametrize("names", ["class", "index"])
def test_what_is_exported_shows_the_same_views_as_our_own(names, project):
    """Nine images in batches of four: the last batch has one image."""
    rng = np.random.default_rng(0)
    logits = (8 * np.eye(3)[OF_IMAGES] + rng.normal(size=(EPOCHS, 9, 3))).astype(np.float16)
    finish("relabel", "agreeing", REPLAY, {"static.npy": logits[0], "logits.npy": logits}, (RUN,))
    out = export(RUN, Path("out"), "fkd", "agreeing", names)
    assert len(files(0)) == 3
    paths = [path for path, _ in ImageFolder("out/train").samples]
    check_same(shown(RUN, paths, "agreeing"), reference())
    assert "batch size of 4" in Path("out/README.md").read_text()
    import_set("back", out / "train", "pets", Options(names="index", labels=out / "labels"))
    check_same(shown("runs/imported/back", paths), reference())
    export(RUN, Path("again"), "fkd", "agreeing", names)
    assert all(path.read_bytes() == Path("again", *path.parts[1:]).read_bytes() for path in files(3))


@pytest.mark.parametrize(
    ("form", "mix"), [*(("SRe2L", mix) for mix in ("cutmix", "mixup", "none")), ("G-VBSM", "cutmix"), ("EDC", "cutmix")]
)
def test_what_others_wrote_shows_the_same_views_as_to_them(form, mix, project, capsys):
    """Class folders whose alphabetical order, in which images are counted, is not the label order."""
    export(RUN, Path("out"), "folder")
    write(form, mix)
    paths = [f"out/train/{CLASSES[c]}/{i:05}.png" for i, c in enumerate(OF_IMAGES)]
    folder, _, protocol = import_set("theirs", Path("out/train"), "pets", Options(labels=Path("out/labels")))
    assert "the static label of an image is the mean over them" in capsys.readouterr().err
    expected = reference()
    check_same(shown(str(folder), paths), expected)
    static = np.load(folder / "static.npy")
    mean = torch.stack([expected[epoch, paths[5]][1].float() for epoch in range(EPOCHS)]).mean(0)
    np.testing.assert_allclose(static[5], mean, rtol=1e-3)
    layer = yaml.safe_load(protocol.read_text())["families"]["pets"]["ipc"][3]
    assert (layer["relabel"]["replay"], layer["relabel"]["mix"]) == ("stored", mix)
    assert layer["student"] == {"epochs": EPOCHS, "batch": BATCH}


def replaced(position: int, value: Any) -> None:
    """Another entry in a file."""
    path = files(1)[1]
    entries = torch.load(path, weights_only=False)
    entries[position] = value
    torch.save(entries, path)


FAULTS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "code": (lambda: torch.save([Malicious("trace")] * 6, files(1)[1]), ("batch_1.tar: not readable",)),
    "no list": (lambda: torch.save(torch.ones(3), files(1)[1]), ("batch_1.tar", "6 (SRe2L), 7 (G-VBSM) or 8 (EDC)")),
    "one tar for an epoch": (lambda: Path("out/labels/epoch_4.tar").touch(), ("epoch_4.tar", "expected epoch_0")),
    "an epoch too few": (lambda: shutil.rmtree("out/labels/epoch_2"), ("out/labels: numbers [0, 1, 3]",)),
    "a batch too few": (lambda: files(1)[2].unlink(), ("epoch_1: labels of 8 views; expected one of each of the 9",)),
    "crop": (lambda: replaced(0, torch.ones(4, 4)), ("batch_1.tar", "crop boxes [4, 4] beyond the image")),
    "partners": (lambda: replaced(2, torch.tensor([0, 1, 2, 9])), ("batch_1.tar: not as FKD writes it (index 9",)),
    "classes": (lambda: replaced(5, torch.ones(4, 2)), ("batch_1.tar: logits [4, 2]; expected [4, 3]",)),
    "images": (lambda: replaced(6, torch.arange(4)), ("epoch_1: labels of 9 views; expected one of each of the 9",)),
    "rectangle": (lambda: replaced(4, [0, 0, 9, 4]), ("batch_1.tar", "rectangle [0, 0, 9, 4]", "from 0 to 8")),
    "infinite": (lambda: replaced(5, torch.full((4, 3), torch.inf)), ("batch_1.tar", "not finite in half")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_labels_of_another_form(fault, project):
    export(RUN, Path("out"), "folder")
    write("EDC")
    change, parts = FAULTS[fault]
    change()
    refused(lambda: import_set("theirs", Path("out/train"), "pets", Options(labels=Path("out/labels"))), *parts)


def test_labels_of_other_images(project):
    export(RUN, Path("out"), "folder")
    write("SRe2L")
    options = Options(labels=Path("out/labels"))
    for start, path in enumerate(("ant", "bee", "cat")):
        Path("out/train", path).rename(f"out/train/{(start + 1) % 3}")
    moved = Options(labels=options.labels, names="index")
    refused(lambda: import_set("theirs", Path("out/train"), "pets", moved), "out/labels: labels agree", "sampler's")
    fewer = Options(labels=options.labels, names="index", ipc=1)
    refused(lambda: import_set("theirs", Path("out/train"), "pets", fewer), "--labels out/labels", "without --ipc")
    export(RUN, Path("parquet"), "parquet")
    refused(lambda: import_set("theirs", Path("parquet/data"), "pets", options), "--labels out/labels", "class folders")


@pytest.mark.parametrize("change", [{"mix": "mixup"}, {"pad": 1}, {"shuffle": 2}, {"randaugment": {}}])
def test_views_that_fkd_has_no_place_for(change, project):
    arrays = {"static.npy": np.zeros((9, 3)), "logits.npy": np.zeros((4, 9, 3))}
    finish("relabel", "other", REPLAY | change, arrays, (RUN,))
    refused(lambda: export(RUN, Path("out"), "fkd", "other"), "--format fkd", f"{next(iter(change))} = ")
    refused(lambda: export(RUN, Path("out"), "fkd"), "expected --labels")
