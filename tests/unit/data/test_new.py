"""`edc new`: which layouts it reads, how it splits them, and that it names what it leaves out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support import one_line
from support.pictures import config, fill, found, pixels

from edc.data.listing import read_list
from edc.data.new import new_dataset
from edc.data.pictures import fit
from edc.data.sets import load_split

pytestmark = pytest.mark.usefixtures("new_checkout")


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
            for part in names:
                fill(root / part / "__MACOSX" / name, 900, 1)
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


def test_nothing_beside_what_is_read_is_passed_over_in_silence(pets: Path) -> None:
    fill(pets, 900, 2)
    assert found(new_dataset("pets", pets, 16), "left out, in no class folder: 2 pictures")
    for part in ("train", "test", "valid"):
        for number, name in enumerate(("ant", "bee")):
            fill(Path("split") / part / name, 1000 + 100 * number + len(part) * 10, 4)
    fill(Path("split/train"), 2000, 1)
    made = new_dataset("split", Path("split"), 16)
    assert found(made, "left out: folder 'valid'")
    assert found(made, "left out, in no class folder: 1 pictures in").endswith("split/train")
    write_parquet(Path("rows"), hub=False)
    for name in ("validation-0", "unlabelled-0"):
        shutil.copy("rows/test-00000-of-00001.parquet", f"rows/{name}.parquet")
    assert found(
        new_dataset("rows", Path("rows"), 16), "left out: 2 of the parquet files, such as unlabelled-0.parquet"
    )
    lines = [f"ant/{i}.png,ant,{['train', 'test', 'valid'][i % 3]}" for i in range(10)]
    lines += [f"bee/{i}.png,bee,{['train', 'test', 'valid'][i % 3]}" for i in range(100, 110)]
    (pets / "list.csv").write_text("\n".join(["path,label,split", *lines]))
    made = new_dataset("listed", pets / "list.csv", 16)
    assert found(made, "left out: 6 validation images")
    # Of 32 pictures 20 are listed, these among them.
    assert found(made, "left out, not in the list: 12 pictures in")
    assert (made.train.tolist(), made.test.tolist()) == ([4, 3], [3, 4])


def test_a_class_may_be_called_train(pets: Path) -> None:
    fill(pets / "train", 500)
    assert new_dataset("pets", pets, 16).classes == ("ant", "bee", "cat", "train")
