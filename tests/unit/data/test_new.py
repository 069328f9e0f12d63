"""`edc new`: nothing is left out silently, and what a later stage would refuse is refused at once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from support import REPOSITORY, one_line

from edc.bench.dataset_sizes import check_ipc
from edc.bench.first_study import new_study, write_first_study
from edc.config.files import read
from edc.config.plan import make_plan
from edc.config.rows import Dataset
from edc.data import survey
from edc.data.listing import read_list
from edc.data.new import NewDataset, new_dataset
from edc.data.pictures import HEIF, fit
from edc.data.sets import load_split
from edc.errors import EdcError

PER_CLASS = 10


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout's recipes and protocols, with room for datasets and studies."""
    for kind in ("datasets", "studies"):
        (tmp_path / "workflow" / kind).mkdir(parents=True)
    for kind in ("recipes", "protocols"):
        (tmp_path / "workflow" / kind).symlink_to(REPOSITORY / "workflow" / kind)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pixels(seed: int, width: int = 12, height: int = 20) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def fill(folder: Path, first: int, count: int = PER_CLASS, suffix: str = ".png") -> None:
    """Pictures of different pixels, numbered from ``first``."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + count):
        Image.fromarray(pixels(i)).save(folder / f"{i}{suffix}")


@pytest.fixture
def pets() -> Path:
    """Class folders without a split."""
    for number, name in enumerate(("ant", "bee", "cat")):
        fill(Path("pets") / name, 100 * number)
    return Path("pets")


def found(made: NewDataset, words: str) -> str:
    """The one line that starts with these words."""
    (line,) = [line for line in made.lines if line.startswith(words)]
    return line


def config(name: str = "pets") -> Dataset:
    return Dataset(name=name, **read("datasets", name).data)


def test_class_folders_are_split_once_and_stay_where_they_are(pets: Path) -> None:
    made = new_dataset("pets", pets, 16)
    assert (made.train.tolist(), made.test.tolist()) == ([8, 8, 8], [2, 2, 2])
    rows = read_list(Path("workflow/datasets/pets.csv"))
    assert sorted(path for path, *_ in rows) == sorted(str(p.relative_to(pets)) for p in pets.rglob("*.png"))
    splits = [set(load_split(config(), part).read(range(2)).flatten(1).sum(1).tolist()) for part in ("train", "test")]
    assert not splits[0] & splits[1]
    assert len(load_split(config(), "test")) == 6


def test_the_split_is_the_same_twice_and_of_the_size_asked_for(pets: Path) -> None:
    new_dataset("pets", pets, 16, test_fraction=0.5)
    again = new_dataset("pets2", pets, 16, test_fraction=0.5)
    assert again.test.tolist() == [5, 5, 5]
    assert read_list(Path("workflow/datasets/pets.csv")) == read_list(Path("workflow/datasets/pets2.csv"))


@pytest.mark.parametrize("layout", ["split", "capitals", "nested", "parquet", "hub", "list", "file", "csv", "jsonl"])
def test_layouts_are_recognised(layout: str) -> None:
    root = Path("pets")
    if layout in ("split", "capitals"):
        names = ("train", "valid") if layout == "split" else ("Train", "TEST")
        for number, name in enumerate(("ant", "bee")):
            fill(root / names[0] / name, 100 * number, 8)
            fill(root / names[1] / name, 100 * number + 50, 2)
    elif layout in ("parquet", "hub"):
        write_parquet(root / ("data" if layout == "hub" else ""), hub=layout == "hub")
    elif layout in ("csv", "jsonl"):  # Hugging Face's image folders
        for part, first, count in (("train", 0, 8), ("test", 50, 2)):
            names = []
            for c, label in enumerate(("ant", "bee")):
                fill(root / part, 100 * c + first, count)
                names += [(f"{100 * c + i}.png", label) for i in range(first, first + count)]
            rows = ["file_name,label", *map(",".join, names)]
            if layout == "jsonl":
                rows = [json.dumps({"file_name": file, "label": label}) for file, label in names]
            (root / part / f"metadata.{layout}").write_text("\n".join(rows))
    else:
        for number, name in enumerate(("ant", "bee")):
            fill(root / name if layout == "nested" else root / "all", 100 * number)
        if layout != "nested":
            lines = [f"all/{n}.png,{'ant' if n < 50 else 'bee'}" for n in (*range(10), *range(100, 110))]
            (root / "labels.csv").write_text("\n".join(["File,Class", *lines]))
    if layout == "nested":
        Path("archive/__MACOSX").mkdir(parents=True)
        root.rename("archive/pets")
        root = Path("archive")
    made = new_dataset("pets", root / "labels.csv" if layout == "file" else root, 16)
    assert made.classes == ("ant", "bee")
    assert (made.train.tolist(), made.test.tolist()) == ([8, 8], [2, 2])
    assert [len(load_split(config(), part)) for part in ("train", "val", "test")] == [14, 2, 4]


def test_parquet_files_without_a_test_part_are_split_by_row() -> None:
    write_parquet(Path("pets"), hub=False)
    Path("pets/test-00000-of-00001.parquet").unlink()
    made = new_dataset("pets", Path("pets"), 16, 0.25)
    assert (made.train.tolist(), made.test.tolist()) == ([6, 6], [2, 2])
    assert found(made, "there are no test-*.parquet")
    rows = read_list(Path("workflow/datasets/pets.csv"))
    everything = {f"train-00000-of-00001.parquet: row {row}": "ant" if row < 8 else "bee" for row in range(16)}
    assert {path: label for path, label, _ in rows} == everything
    test = load_split(config(), "test")
    chosen = sorted(int(path.split()[-1]) for path, _, part in rows if part == "test")
    assert test.labels.tolist() == [row // 8 for row in chosen]
    Image.fromarray(pixels(100 * (chosen[2] // 8) + chosen[2] % 8)).save("one.png")
    with Image.open("one.png") as picture:
        assert np.array_equal(test.read([2])[0].numpy(), fit(picture, 3, 16))
    table = Path("workflow/datasets/pets.csv")
    table.write_text(table.read_text().replace("row 3,", "row 99,"))
    with one_line("workflow/datasets/pets.csv: 'train-00000-of-00001.parquet: row 99': no such row"):
        load_split(config(), next(part for path, _, part in rows if path.endswith("row 3")) or "train")


def test_linked_folders_below_a_class_are_followed_once(pets: Path) -> None:
    fill(Path("more"), 500, 4)
    (pets / "ant" / "linked").symlink_to(Path("more").absolute())
    (pets / "ant" / "itself").symlink_to(Path("pets/ant").absolute())
    made = new_dataset("pets", pets, 16)
    assert (made.train + made.test).tolist() == [14, 10, 10]
    assert sum(path.startswith("ant/linked/") for path, *_ in read_list(Path("workflow/datasets/pets.csv"))) == 4


def test_photos_of_iphones(pets: Path) -> None:
    """Turned upright as their rotation states; the decoder does it, which resets the EXIF orientation."""
    pytest.importorskip("pillow_heif").register_heif_opener()
    colours = np.repeat(np.repeat(np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255]] * 2], np.uint8), 16, 0), 16, 1)
    turned = Image.Exif()
    turned[274] = 6
    Image.fromarray(colours).save(pets / "bee" / "photo.heic", exif=turned.tobytes(), quality=95)
    made = new_dataset("pets", pets, 16)
    assert (made.train + made.test).tolist() == [10, 11, 10]
    rows = read_list(Path("workflow/datasets/pets.csv"))
    (split,) = (part for path, _, part in rows if path == "bee/photo.heic")
    images = load_split(config().model_copy(update={"val_fraction": 0.0}), split or "train")
    listed = [path for path, _, part in rows if part == split]
    photo = images.read([listed.index("bee/photo.heic")])[0].float()
    expected = torch.from_numpy(np.rot90(colours, -1).copy()).permute(2, 0, 1).float()
    assert (photo[:, ::15, ::15] - expected[:, ::31, ::31]).abs().max() < 30


@pytest.mark.skipif(HEIF, reason="pillow-heif is installed")
@pytest.mark.parametrize("place", ["", "train/", "beside"])
def test_photos_of_iphones_that_cannot_be_read(place: str, pets: Path) -> None:
    for name in ("ant", "bee"):
        for part in (place, "test/" if place == "train/" else place):
            path = Path("pets" if place == "beside" else "phone", "" if place == "beside" else part, name, "photo.HEIC")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"photo")
    if place == "beside":
        assert found(new_dataset("pets", pets, 16), "left out, no pictures: 2 .heic; pip install pillow-heif")
    else:
        with one_line("; pip install pillow-heif to read .heic"):
            new_dataset("phone", Path("phone"), 16)


def write_parquet(root: Path, hub: bool) -> None:
    """As Hugging Face writes it; on the hub with `image`, hidden test labels and the real ones in `validation`."""
    root.mkdir(parents=True)
    column = "image" if hub else "img"
    names = '{"info": {"features": {"label": {"names": ["ant", "bee"]}}}}'
    parts = {"train": (0, 8), "test": (50, 2)} | ({"validation": (60, 2)} if hub else {})
    for part, (first, count) in parts.items():
        labels = [-1 if hub and part == "test" else number for number in (0, 1) for _ in range(count)]
        images = []
        for number in (0, 1):
            for i in range(count):
                file = root / "picture.png"
                Image.fromarray(pixels(100 * number + first + i)).save(file)
                images.append({"bytes": file.read_bytes(), "path": None})
                file.unlink()
        table = pa.table({column: images, "label": pa.array(labels, pa.int64()), "size": [1.0] * len(labels)})
        pq.write_table(table.replace_schema_metadata({"huggingface": names}), root / f"{part}-00000-of-00001.parquet")


def test_what_is_left_out_turned_or_laid_on_white_is_stated(pets: Path) -> None:
    turned = Image.Exif()
    turned[274] = 6
    Image.fromarray(pixels(1000)).save(pets / "ant" / "photo.JPG", exif=turned)
    Image.fromarray(np.full((20, 12, 4), (255, 0, 0, 0), np.uint8)).save(pets / "ant" / "alpha.png")
    for suffix in (".gif", ".jfif", ".webp"):
        Image.fromarray(pixels(2000 + len(suffix))).save(
            pets / "bee" / f"x{suffix}", format=None if suffix != ".jfif" else "JPEG"
        )
    for path in (
        "bee/notes.txt",
        "bee/live.mov",
        "bee/.ipynb_checkpoints/x.png",
        "__MACOSX/ant/._1.png",
        "cat/broken.png",
    ):
        (pets / path).parent.mkdir(parents=True, exist_ok=True)
        (pets / path).write_bytes(b"no picture")
    (pets / "empty").mkdir()
    made = new_dataset("pets", pets, 16)
    assert made.train.sum() + made.test.sum() == 35
    assert found(made, "36 images of 3 classes: 11 (cat) to 13 (bee) a class")
    assert "1 image is turned upright" in found(made, "orientation")
    assert "1 image is laid on white" in found(made, "transparency")
    assert found(made, "left out") == "left out, no pictures: 1 .mov, 1 .txt"
    assert found(made, "folder 'empty'")
    assert "cat/broken.png (not a known image format)" in found(made, "pets: 1 of 36 images unreadable")


def test_upright_and_on_white(pets: Path) -> None:
    left_white = np.zeros((16, 16, 3), np.uint8)
    left_white[:, :8] = 255
    turned = Image.Exif()
    turned[274] = 6  # to be turned by 90 degrees clockwise
    stored = Image.fromarray(left_white).transpose(Image.Transpose.ROTATE_90)
    stored.save(pets / "ant" / "0.png", exif=turned)
    Image.fromarray(np.dstack([left_white, left_white[..., :1]])).save(pets / "ant" / "1.png")
    new_dataset("pets", pets, 16)
    images = [load_split(config(), part) for part in ("train", "val", "test")]
    every = [image.permute(1, 2, 0).numpy() for part in images for image in part.read(range(len(part)))]
    assert sum(np.array_equal(image, left_white) for image in every) == 1
    assert sum(bool((image == 255).all()) for image in every) == 1  # black below alpha 0 does not show


def test_equal_images_are_reported_and_stay_on_one_side(pets: Path) -> None:
    for i in range(6):
        Image.fromarray(pixels(i)).save(pets / "ant" / f"copy{i}.bmp")
    Image.fromarray(pixels(100)).save(pets / "cat" / "bee.png")
    made = new_dataset("pets", pets, 16, test_fraction=0.5)
    assert found(made, "duplicates").startswith("duplicates: 7 images are equal to another")
    assert "cat/bee.png" in found(made, "of these, 1 occurs in several classes")
    split = {path: part for path, _, part in read_list(Path("workflow/datasets/pets.csv"))}
    assert all(split[f"ant/{i}.png"] == split[f"ant/copy{i}.bmp"] for i in range(6))
    assert split["bee/100.png"] == split["cat/bee.png"]


@pytest.mark.parametrize("shared", [1, 2])
def test_test_images_that_are_training_images_are_stated_and_refused_above_one_in_twenty(shared: int) -> None:
    for number, name in enumerate(("ant", "bee")):
        fill(Path("pets/train") / name, 100 * number, 4)
        fill(Path("pets/test") / name, 100 * number + 50, 10)
    for i in range(shared):
        Image.fromarray(pixels(i)).save(Path("pets/test/ant") / f"{50 + i}.png")
    if shared == 1:
        line = found(new_dataset("pets", Path("pets"), 16), "in training and test images alike")
        root = Path.cwd() / "pets"
        assert f": 1 of 20 test images, such as {root}/train/ant/0.png = {root}/test/ant/50.png" in line
    else:
        with pytest.raises(EdcError, match=r"pets/test: 2 of 20 test images are training images too.*--test-fraction"):
            new_dataset("pets", Path("pets"), 16)


@pytest.mark.skipif(HEIF, reason="pillow-heif is installed")
def test_pictures_of_iphones_are_named_with_the_package_that_reads_them(pets: Path) -> None:
    (pets / "ant" / "photo.HEIC").touch()
    line = found(new_dataset("pets", pets, 16), "left out, no pictures")
    assert line.endswith(": 1 .heic; pip install pillow-heif to read .heic")


def test_of_a_large_dataset_a_sample_is_decoded_and_its_size_is_stated(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "SAMPLE", 15)
    (pets / "ant" / "0.png").write_bytes(b"no picture")  # the first of 30 is in every evenly spaced sample
    made = new_dataset("pets", pets, 16)
    assert found(made, "decoded 15 of them, evenly spaced; duplicates among the others are not detected")
    # One in 15 is unreadable, so twice as many of the other 15 may be.
    assert found(made, "unreadable_limit: 2")
    assert read("datasets", "pets").data["unreadable_limit"] == 2


def _only_one_class(root: Path) -> None:
    fill(root / "ant", 0)


def _flat(root: Path) -> None:
    fill(root, 0)


def _small_class(root: Path) -> None:
    fill(root / "ant", 0)
    fill(root / "bee", 100, 2)


def _no_test_of_a_class(root: Path) -> None:
    for part in ("train", "test"):
        for name in ("ant", "bee"):
            (root / part / name).mkdir(parents=True)
    fill(root / "train" / "ant", 0)
    fill(root / "train" / "bee", 100)
    fill(root / "test" / "ant", 50)


def _test_is_train(root: Path) -> None:
    for number, name in enumerate(("ant", "bee")):
        for part in ("train", "test"):
            fill(root / part / name, 100 * number)


def _test_links_to_train(root: Path) -> None:
    for number, name in enumerate(("ant", "bee")):
        fill(root / "train" / name, 100 * number)
    (root / "test").symlink_to("train")


def _no_utf8(root: Path) -> None:
    fill(root / "ant", 0)
    os.mkdir(os.fsencode(root) + b"/b\xe9")


def _two_lists(root: Path) -> None:
    root.mkdir()
    (root / "labels.csv").write_text("name,kind\na.png,ant\n")


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (_only_one_class, "one class, 'ant'; expected at least 2"),
        (_flat, "no class folder with pictures; expected CLASS/*, train/CLASS/* and test/CLASS/*, parquet files"),
        (_small_class, "class 'bee' has 1 readable images to train on and 1 to test; expected at least 2 and 1"),
        (_no_test_of_a_class, "test: class 'bee' has no image"),
        (_test_is_train, "20 of 20 test images are training images too"),
        (_test_links_to_train, "the same folder as pets/train"),
        (_no_utf8, "the name is not UTF-8; rename it"),
        (_two_lists, "labels.csv: columns name, kind; expected path and label"),
    ],
)
def test_what_a_later_stage_would_refuse_is_refused_at_once(build: Callable[[Path], None], words: str) -> None:
    build(Path("pets"))
    with pytest.raises(EdcError) as caught:
        new_dataset("pets", Path("pets"), 16)
    assert words in str(caught.value).replace(f"{Path.cwd()}/", "")
    assert "\n" not in str(caught.value)
    assert not [*Path("workflow/datasets").iterdir(), *Path().glob(".edc")]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("My Pets", "pets", "name 'My Pets': expected lower-case letters"),
        ("1e5", "pets", "name '1e5': expected lower-case letters"),
        ("birds", "nowhere", "--data nowhere: no such folder"),
        ("taken", "pets", "workflow/datasets/taken.yaml: exists already"),
    ],
)
def test_names_and_folders_are_checked(pets: Path, name: str, data: str, words: str) -> None:
    Path("workflow/datasets/taken.yaml").touch()
    with pytest.raises(EdcError) as caught:
        new_dataset(name, Path(data), 16)
    assert words in str(caught.value)


def test_the_first_study_fits_the_time_and_the_smallest_class(pets: Path) -> None:
    made = new_dataset("pets", pets, 16)
    sizes = []
    for minutes in (0, 1e6):
        path, line = write_first_study("pets", made, minutes)
        plan = make_plan("pets")
        assert {row.recipe for row in plan.evaluate.values()} == {"random", "edc", "rded", "easy", "full"}
        assert {tuple(row.seeds) for row in plan.evaluate.values()} == {(0, 1, 2)}
        assert max(row.ipc for row in plan.synthesize.values()) == 7  # of eight, one is held out
        assert ("exceeded" in line) == (minutes == 0)
        sizes.append(max(row.epochs for row in plan.evaluate.values() if row.images is not None))
        # With one step in an epoch, networks still train for enough of them.
        assert min(row.epochs for row in [*plan.pretrain.values(), *plan.evaluate.values()]) >= 300
        assert max(row.epochs for row in plan.evaluate.values() if row.images is None) >= 1500
        path.unlink()
    assert sizes[0] < sizes[1]
    assert not list(Path("workflow/datasets").glob("*.tmp"))


def test_more_images_per_class_than_there_are_are_refused_when_planned(pets: Path) -> None:
    study, _ = write_first_study("pets", new_dataset("pets", pets, 16), 1e6)
    check_ipc(make_plan("pets"))
    study.write_text(study.read_text().replace("ipc: [1, 7]", "ipc: [1, 8]"))
    with pytest.raises(EdcError, match="ipc = 8, but the smallest class of pets has 7 images to train on"):
        check_ipc(make_plan("pets"))


def test_nothing_beside_what_is_read_is_passed_over_in_silence(pets: Path) -> None:
    fill(pets, 900, 2)
    assert found(new_dataset("pets", pets, 16), "left out, in no class folder: 2 pictures")
    for part in ("train", "test", "valid"):
        for number, name in enumerate(("ant", "bee")):
            fill(Path("split") / part / name, 1000 + 100 * number + len(part) * 10, 4)
    assert found(new_dataset("split", Path("split"), 16), "left out: folder 'valid'")
    lines = [f"ant/{i}.png,ant,{['train', 'test', 'valid'][i % 3]}" for i in range(10)]
    lines += [f"bee/{i}.png,bee,{['train', 'test', 'valid'][i % 3]}" for i in range(100, 110)]
    (pets / "list.csv").write_text("\n".join(["path,label,split", *lines]))
    made = new_dataset("listed", pets / "list.csv", 16)
    assert found(made, "left out: 6 validation images")
    assert (made.train.tolist(), made.test.tolist()) == ([4, 3], [3, 4])


def test_a_class_may_be_called_train(pets: Path) -> None:
    fill(pets / "train", 500)
    assert new_dataset("pets", pets, 16).classes == ("ant", "bee", "cat", "train")


def test_a_study_is_not_overwritten_and_odd_paths_are_one_line(pets: Path) -> None:
    Path("workflow/studies/mine.yaml").write_text("description: by hand\n")
    with pytest.raises(EdcError, match=r"workflow/studies/mine\.yaml: exists already"):
        new_dataset("mine", pets, 16)
    with pytest.raises(EdcError, match="no such folder"):
        new_dataset("pets", Path("~nosuchuser/x"), 16)
    (pets / "ant" / "0.png").rename(os.fsdecode(os.fsencode(pets / "ant") + b"/b\xe9.png"))
    with pytest.raises(EdcError, match="the name is not UTF-8; rename it"):
        new_dataset("pets", pets, 16)


def test_crops_that_are_tiled_need_their_images(pets: Path) -> None:
    study, _ = write_first_study("pets", new_dataset("pets", pets, 16), 1e6)
    study.write_text(study.read_text().replace("factor: 1", "factor: 2"))
    with pytest.raises(EdcError, match="rded-ipc7: 28 crops are tiled, but the smallest class of pets has 7 images"):
        check_ipc(make_plan("pets"))


def test_without_a_study_there_is_no_dataset(pets: Path) -> None:
    Path("workflow/recipes").unlink()
    Path("workflow/recipes").mkdir()  # no recipe that the study names
    with pytest.raises(EdcError, match="unknown recipe 'random'"):
        new_study("pets", pets, 16, 0.2, 20, print)
    assert not [*Path("workflow/datasets").iterdir(), *Path("workflow/studies").iterdir()]
