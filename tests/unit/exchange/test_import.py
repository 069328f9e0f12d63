"""`edc import`: sets of every kind, what is stored of them, what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from support.faults import Malicious
from support.pets import DATASET, FORMATS, LABELS, OF_IMAGES, REPLAY, RUN, manifest, pixels, refused
from torch import Tensor

from edc.config.rows import RelabelRow
from edc.exchange.export import export
from edc.exchange.external import Options
from edc.exchange.imported import IMPORTED, read_imported, why_unusable
from edc.exchange.importing import import_set


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("labels", [None, LABELS])
def test_an_export_is_imported_unchanged(layout, labels, project):
    export(RUN, Path("out"), layout, labels)
    folder, recipe, *protocol = import_set("back", Path("out"), "pets")
    start = yaml.safe_load(recipe.read_text())["synthesize"]["initialise"]
    assert start["method"] == "imported"
    name, source = read_imported(start["source"])
    assert name == "back"
    assert torch.equal(source.images.images, pixels())
    assert source.origin == manifest("out")["origin"]
    assert [path.exists() for path in protocol] == [True] * (labels is not None)
    for file in source.labels:
        assert Path(folder, f"{file}.npy").read_bytes() == Path("runs/relabel", LABELS, f"{file}.npy").read_bytes()
    row = RelabelRow(**REPLAY | {"source": "imported", "observers": ["else"]})
    assert why_unusable(source, row) == (None if labels else "no labels per epoch were imported")
    changed = row.model_copy(update={"epochs": 5})
    assert labels is None or "epochs = 4, the row has 5" in str(why_unusable(source, changed))


def tensors(**changes: Any) -> dict[str, Tensor]:
    return {"images": pixels(), "labels": OF_IMAGES} | changes


def write(path: str, content: Any) -> Path:
    """A file as other tools write it."""
    target = Path(path)
    if target.suffix == ".safetensors":
        save_file({name: t.contiguous() for name, t in content.items()}, target)
    elif target.suffix == ".pt":
        torch.save(content, target)
    elif target.suffix == ".npz":
        np.savez(target, **{name: t.numpy() for name, t in content.items()})
    else:
        np.save(target, content.numpy())
    return target


MEAN, STD = (torch.tensor(DATASET[name]).view(3, 1, 1) for name in ("mean", "std"))
FILES: dict[str, tuple[str, Callable[[], Any], dict[str, Any]]] = {
    "safetensors": ("s.safetensors", tensors, {}),
    "npz": ("s.npz", tensors, {}),
    "dictionary": ("s.pt", tensors, {}),
    "pair": ("s.pt", lambda: tuple(tensors().values()), {}),
    "channels last": ("s.pt", lambda: tensors(images=pixels().permute(0, 2, 3, 1)), {}),
    "unit": ("s.pt", lambda: tensors(images=pixels() / 255), {"values": "unit"}),
    "normalised": ("s.pt", lambda: tensors(images=(pixels() / 255 - MEAN) / STD), {"values": "normalised"}),
    "float64": ("s.npz", lambda: tensors(images=pixels().double() / 255), {"values": "unit"}),
    "images alone": ("s.npy", pixels, {"classes_file": Path("c.npy")}),
    "images alone, pt": ("s.pt", pixels, {"classes_file": Path("c.npy")}),
}


@pytest.mark.parametrize("case", FILES)
def test_files_of_tensors(case, project):
    name, content, options = FILES[case]
    write("c.npy", OF_IMAGES)
    folder, recipe = import_set("back", write(name, content()), "pets", Options(**options))
    stored = load_file(folder / "condensed.safetensors")
    assert torch.equal(stored["images"], pixels())
    assert torch.equal(stored["labels"], OF_IMAGES)
    origin = manifest(folder)["origin"]
    assert (origin["file"], origin["values"]) == (name, options.get("values", "uint8"))
    assert origin["notes"] == [f"{name}: classes are numbers, taken in the order of 'pets': 0 = cat, 1 = ant, 2 = bee"]
    assert yaml.safe_load(recipe.read_text())["source"] == f"file {name}"


def test_images_in_another_order_are_sorted_by_class_with_their_labels(project):
    order = torch.tensor([8, 0, 4, 1, 5, 2, 7, 3, 6])
    static = 5 * torch.eye(3)[order // 3] + order[:, None] / 10
    write("l.pt", static)
    write("s.pt", {"images": pixels()[order], "labels": order // 3})
    folder, *_ = import_set("back", Path("s.pt"), "pets", Options(labels=Path("l.pt")))
    stored, place = load_file(folder / "condensed.safetensors"), (order // 3).argsort(stable=True)
    assert torch.equal(stored["images"], pixels()[order][place])
    assert torch.equal(stored["labels"], OF_IMAGES)
    assert torch.equal(torch.from_numpy(np.load(folder / "static.npy")), static[place].half())


def test_probabilities_become_logits(project):
    logits = 4 * torch.eye(3)[OF_IMAGES] + 0.1 * torch.rand(9, 3)
    folder, _, protocol = import_set("back", write("s.pt", tensors(soft_labels=logits.softmax(1))), "pets")
    stored = np.load(folder / "static.npy")
    np.testing.assert_allclose(stored, logits - logits.mean(1, keepdim=True), atol=2e-3)
    assert yaml.safe_load(protocol.read_text())["regime"] == "static"
    folder, *_ = import_set("hot", write("hot.pt", tensors(soft_labels=torch.eye(3)[OF_IMAGES])), "pets")
    assert np.isfinite(np.load(folder / "static.npy")).all()


def test_an_image_folder(project):
    export(RUN, Path("out"), "folder")
    Path("out/train").rename("in")
    folder, _ = import_set("back", Path("in"), "pets")
    assert torch.equal(load_file(folder / "condensed.safetensors")["images"], pixels())
    Path("in/ant").rename("in/dog")
    refused(lambda: import_set("more", Path("in"), "pets"), "unknown class folder 'dog'")
    Path("in/dog").rename("in/ant")
    Path("in/ant/00003.png").unlink()
    refused(lambda: import_set("more", Path("in"), "pets"), "class 'ant' has 2 images, class 'cat' has 3")
    Path("in/ant/00003.png").write_bytes(b"no picture")
    refused(lambda: import_set("more", Path("in"), "pets"), "in/ant/00003.png: not a known image format")
    refused(lambda: import_set("more", Path("in"), "pets", Options(values="unit")), "in: pictures; --values")


REFUSED: dict[str, tuple[Callable[[], Any], dict[str, Any], tuple[str, ...]]] = {
    "size": (lambda: tensors(images=pixels(size=9)), {}, ("[9, 3, 9, 9]", "(N, 3, 8, 8)", "nothing is resized")),
    "channels": (lambda: tensors(images=pixels(channels=1)), {}, ("[9, 1, 8, 8]", "(N, 3, 8, 8)")),
    "too many classes": (lambda: tensors(labels=torch.arange(9) // 2), {}, ("image 6 has class 3", "0 to 2")),
    "too few classes": (lambda: tensors(labels=torch.arange(9) // 5), {}, ("class 'bee' has 0", "'cat' has 5")),
    "class count": (lambda: tensors(labels=torch.arange(6) // 2), {}, ("classes are [6]", "each of 9 images")),
    "float classes": (lambda: tensors(labels=torch.zeros(9)), {}, ("classes are [9] of float32", "one integer")),
    "no classes": (pixels, {}, ("no classes in it", "--classes FILE")),
    "no images": (lambda: {"pictures": pixels()}, {}, ("no images in it", "'images'", "found 'pictures'")),
    "floats": (lambda: tensors(images=pixels() / 255), {}, ("--values unit or normalised",)),
    "unit range": (lambda: tensors(images=pixels() / 100), {"values": "unit"}, ("to 2.55", "[0, 1]", "clipped")),
    "normalised range": (lambda: tensors(images=pixels() / 9), {"values": "normalised"}, ("expected [0, 1]",)),
    "nan": (lambda: tensors(images=pixels() * float("nan")), {"values": "unit"}, ("values nan to nan",)),
    "values of bytes": (tensors, {"values": "unit"}, ("holds uint8",)),
    "meaning": (tensors, {"values": "units"}, ("unknown scale 'units'", "'unit'")),
    "integers": (lambda: tensors(images=pixels().long()), {}, ("dtype int64", "uint8 or floats")),
    "not tensors": (lambda: {"images": [1, 2]}, {}, ("'images' is a list", "tensors by name")),
    "soft shape": (lambda: tensors(static=torch.rand(9, 4)), {}, ("soft labels are [9, 4]", "expected [9, 3]")),
    "soft order": (lambda: tensors(static=torch.eye(3)[(OF_IMAGES + 1) % 3]), {}, ("0.0 % of the images", "order?")),
    "soft infinite": (lambda: tensors(static=torch.full((9, 3), 1e9)), {}, ("not finite in half precision",)),
    "per epoch": (lambda: tensors(logits=torch.rand(4, 9, 3)), {}, ("labels per epoch", "edc export")),
    "two labels": (lambda: tensors(static=torch.eye(3)[OF_IMAGES]), {"labels": Path("l.pt")}, ("of its own",)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_content_that_is_refused(case, project):
    content, options, parts = REFUSED[case]
    path = write("s.pt", content())
    write("l.pt", torch.eye(3)[OF_IMAGES])
    refused(lambda: import_set("back", path, "pets", Options(**options)), *parts)


def test_names_and_files_that_are_refused(project):
    path = write("s.pt", tensors())
    refused(lambda: import_set("Back!", path, "pets"), "name 'Back!'", "lower-case")
    refused(lambda: import_set("edc", path, "pets"), "workflow/recipes/edc.yaml: exists already")
    refused(lambda: import_set("back", path, "petz"), "unknown dataset 'petz'", "'pets'")
    refused(lambda: import_set("back", Path("gone.pt"), "pets"), "--data gone.pt: no such file")
    refused(lambda: import_set("back", path, "pets", Options(labels=Path("gone.pt"))), "gone.pt: no such file")
    Path("s.pkl").write_bytes(b"")
    refused(lambda: import_set("back", Path("s.pkl"), "pets"), "unknown kind '.pkl'")
    for ending in (".pt", ".npz", ".npy", ".safetensors"):
        cut = Path(f"cut{ending}")
        cut.write_bytes(path.read_bytes()[:300])
        refused(lambda cut=cut: import_set("back", cut, "pets"), f"cut{ending}: not readable as {ending}")
    torch.save({"images": Malicious(Path("executed"))}, "evil.pt")
    refused(lambda: import_set("back", Path("evil.pt"), "pets"), "evil.pt: not readable as .pt")
    assert not Path("executed").exists()


def test_another_set_under_the_name_is_refused(project):
    folder, recipe = import_set("back", write("s.pt", tensors()), "pets")
    source = yaml.safe_load(recipe.read_text())["synthesize"]["initialise"]["source"]
    refused(lambda: import_set("back", Path("s.pt"), "pets"), "back.yaml: exists already")
    recipe.unlink()
    refused(lambda: import_set("back", Path("s.pt"), "pets"), "runs/imported/back: exists already")
    folder.rename("old")
    refused(lambda: read_imported(source), "runs/imported/back: no such imported set")
    import_set("back", write("t.pt", tensors(images=255 - pixels())), "pets")
    refused(lambda: read_imported(source), "another set than the recipe's", source)
    path = IMPORTED / "back" / "condensed.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    refused(lambda: read_imported("back"), "condensed.safetensors: damaged", "import it, again")
