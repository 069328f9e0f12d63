"""Images that are decoded whenever they are read: the same pixels, little memory, and what happens to broken ones."""

import os
import shutil
import threading
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from support.rows import source_config

from edc.data import pictures
from edc.data.crops import draw_crops
from edc.data.images import ImageSet
from edc.data.sets import load_split
from edc.data.streamed import StreamedSet
from edc.errors import EdcError

NAMES = ("ant", "bee", "cat")
config = partial(source_config, "folder", val_fraction=0.0, streamed=True)


def paint(path: Path, seed: int, width: int, height: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Pictures of 12 to 20 pixels, none square."""
    for part, n in (("train", 6), ("val", 3)):
        for c, name in enumerate(NAMES):
            for i in range(n):
                paint(tmp_path / "set" / part / name / f"{i}.png", 100 * c + i, 12 + i, 18 - i)
    return tmp_path / "set"


def both(given: SimpleNamespace, split: Any = "train") -> tuple[StreamedSet, ImageSet]:
    streamed = load_split(given, split)
    resident = load_split(SimpleNamespace(**vars(given) | {"streamed": False}), split)
    assert isinstance(streamed, StreamedSet)
    assert isinstance(resident, ImageSet)
    return streamed, resident


@pytest.mark.parametrize("changes", [{}, {"resize": 11}, {"channels": 1}, {"val_fraction": 0.3, "train_per_class": 4}])
def test_streamed_images_are_those_held_in_memory(root: Path, changes: dict[str, Any]) -> None:
    streamed, resident = both(config(root, **changes))
    assert streamed.classes == resident.classes == NAMES
    assert (streamed.class_hash, streamed.shape, len(streamed)) == (resident.class_hash, resident.shape, len(resident))
    assert torch.equal(streamed.labels, resident.labels)
    assert torch.equal(streamed.read(range(len(resident))), resident.images)
    index = torch.tensor([5, 0, 5, 3])
    assert torch.equal(streamed.read(index), resident.images[index])
    for c in range(3):
        own = (resident.labels == c).nonzero()[:, 0].tolist()
        assert streamed.by_class(c).tolist() == resident.by_class(c).tolist() == own
    part, same = streamed.select([7, 1]), resident.select([7, 1])
    assert torch.equal(part.read([1, 0]), same.images[[1, 0]])
    assert torch.equal(part.labels, same.labels)


@pytest.mark.parametrize("kind", ["digits", "parquet"])
def test_other_kinds_stream_as_well(kind: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"image_size": 9, "train_per_class": 5, "val_fraction": 0.0, "streamed": True}
    if kind == "digits":
        changes |= {"classes": 10, "channels": 1}
    else:
        write_parquet(tmp_path)
    streamed, resident = both(source_config(kind, tmp_path, **changes))
    order = torch.randperm(len(resident), generator=torch.Generator().manual_seed(0))
    assert torch.equal(streamed.read(order), resident.images[order])
    crops = draw_crops(np.random.default_rng(0), len(order), (0.2, 0.8))
    one_by_one = torch.cat([streamed.read(order[i : i + 1], crops[i : i + 1]) for i in range(len(order))])
    assert torch.equal(streamed.read(order, crops), one_by_one)
    assert len({streamed.digest, streamed.select(order).digest, resident.digest}) == 3


def write_parquet(folder: Path) -> None:
    for part in range(3):
        paths = [folder / f"{12 * part + i}.png" for i in range(12)]
        for i, path in enumerate(paths):
            paint(path, 12 * part + i, 14, 11)
        images = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
        table = pa.table({"img": images, "label": [i % 3 for i in range(12)]})
        pq.write_table(table, folder / f"{('train-0', 'train-1', 'test-0')[part]}.parquet", row_group_size=5)


def test_crops_come_from_the_original_picture(root: Path) -> None:
    """Each is Pillow's crop and resize of the file; the image in memory has lost those pixels."""
    streamed, resident = both(config(root))
    rng = np.random.default_rng(1)
    index = torch.tensor([4, 17, 0, 9, 4])
    crops = draw_crops(rng, 5, (0.1, 0.9))
    for size in (None, 5, 16):
        result = streamed.read(index, crops, size).numpy()
        side = size or 8
        assert result.shape == (5, 3, side, side)
        for i, row in enumerate(index.tolist()):
            c, number = divmod(row, 6)
            with Image.open(root / "train" / NAMES[c] / f"{number}.png") as picture:
                width, height = picture.size
                top, left, h, w = crops[i : i + 1].boxes(height, width)[0].tolist()
                part = picture.crop((left, top, left + w, top + h)).resize((side, side), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(result[i].transpose(1, 2, 0), np.asarray(part))
    assert not torch.equal(streamed.read(index, crops), resident.read(index, crops))


def test_crops_of_pictures_of_the_right_size_are_the_same_in_memory_but_for_rounding(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for c, name in enumerate(NAMES):
            for i in range(5):
                paint(tmp_path / part / name / f"{i}.png", 10 * c + i, 16, 16)
    streamed, resident = both(config(tmp_path, image_size=16))
    index, crops = torch.randperm(15), draw_crops(np.random.default_rng(2), 15, (0.1, 1.0))
    for size in (16, 7, 24):
        one, other = streamed.read(index, crops, size).int(), resident.read(index, crops, size).int()
        assert (one - other).abs().max() <= 1
        assert one.float().std() > 20  # pictures, not blanks
    one, other = streamed.read(index, size=8).int(), resident.read(index, size=8).int()
    assert (one - other).abs().max() <= 1


def test_the_digest_needs_no_decoding_and_no_place(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(folder: Path = root, **changes: Any) -> str:
        return load_split(config(folder, **changes), "train").digest

    first = digest()
    monkeypatch.setattr(pictures.Image, "open", None)
    assert digest() == first
    shutil.copytree(root, tmp_path / "elsewhere")
    for path in (tmp_path / "elsewhere").rglob("*.png"):
        os.utime(path, (0, 0))
    assert digest(tmp_path / "elsewhere") == first
    changes = ({"image_size": 9}, {"resize": 10}, {"train_per_class": 5}, {"class_names": ["bee", "ant", "cat"]})
    others = [digest(**change) for change in changes]
    path = root / "train" / "bee" / "2.png"
    path.write_bytes(path.read_bytes() + b"1")
    others.append(digest())
    path.rename(path.with_name("2b.png"))
    others.append(digest())
    assert len({first, *others}) == 7


def test_nothing_is_decoded_before_it_is_read(root: Path) -> None:
    for path in (root / "train").rglob("*.png"):
        path.write_bytes(b"broken")
    streamed = load_split(config(root), "train")
    assert len(streamed.digest) == 64
    with pytest.raises(EdcError, match=r"ant/0\.png \(not a known image format\); expected at most 0"):
        streamed.read([0])


def test_an_unreadable_image_is_named_and_counted(root: Path) -> None:
    broken = [root / "train" / "bee" / "1.png", root / "train" / "cat" / "0.png"]
    for path in broken:
        path.write_bytes(b"broken")
    streamed = load_split(config(root, unreadable_limit=1), "train")
    reason = "(not a known image format)"
    with pytest.warns(UserWarning, match=r"1 of 18 images unreadable so far: .*bee/1\.png"):
        streamed.read([7])
    streamed.read([7])  # counted once
    with pytest.raises(EdcError) as error:
        streamed.select([12]).read([0])  # a selection counts with the split it comes from
    line = f"{root / 'train'}: 2 of 18 images unreadable so far: {broken[0]} {reason}; {broken[1]} {reason}"
    assert str(error.value) == f"{line}; expected at most 1 (data.unreadable_limit in workflow/datasets)"


@pytest.mark.filterwarnings("ignore:.*unreadable so far")
def test_the_next_readable_image_of_the_class_replaces_it(root: Path) -> None:
    _, resident = both(config(root))
    for i in (4, 5):  # the last two of `ant`: the search goes round
        (root / "train" / "ant" / f"{i}.png").write_bytes(b"broken")
    for order in ([4], [5, 4], [3, 5, 4, 0], [17, 4]):
        streamed = load_split(config(root, unreadable_limit=2), "train")
        result = streamed.read(order)
        expected = resident.images[[0 if row in (4, 5) else row for row in order]]
        assert torch.equal(result, expected)
        assert torch.equal(streamed.read(order), result)
    (root / "train" / "cat" / "2.png").write_bytes(b"broken")  # and not the first of the class
    streamed = load_split(config(root, unreadable_limit=3), "train")
    assert torch.equal(streamed.read([14]), resident.images[[15]])
    crops = draw_crops(np.random.default_rng(0), 2, (0.2, 0.6))
    assert torch.equal(streamed.read([5, 9], crops), streamed.read([0, 9], crops))
    held_out = load_split(config(root, unreadable_limit=3, val_fraction=0.5), "val")
    rows = {tuple(image.flatten().tolist()) for image in held_out.read(range(len(held_out)))}
    train = load_split(config(root, unreadable_limit=3, val_fraction=0.5), "train")
    assert not rows & {tuple(image.flatten().tolist()) for image in train.read(range(len(train)))}


@pytest.mark.parametrize("threads", [1, 2])
def test_a_picture_is_decoded_once_for_all_its_crops(root: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    train = load_split(config(root), "train")
    index = torch.tensor([7, 3, 10, 0, 11, 17]).repeat_interleave(5)
    crops = draw_crops(np.random.default_rng(0), len(index), (0.1, 0.9))
    apart = torch.cat([train.read(index[i : i + 1], crops[i : i + 1], 6) for i in range(len(index))])
    monkeypatch.setattr(pictures, "SMALL", 0)
    monkeypatch.setattr(pictures, "available_cores", lambda: threads)
    opened, open_picture = Counter[Path](), Image.open
    monkeypatch.setattr(pictures.Image, "open", lambda path: opened.update([path]) or open_picture(path))
    assert torch.equal(train.read(index, crops, 6), apart)
    assert sorted(opened.values()) == [1] * 6


@pytest.mark.filterwarnings("ignore:.*unreadable so far")
def test_a_class_without_a_readable_image_is_refused(root: Path) -> None:
    for path in (root / "train" / "bee").iterdir():
        path.write_bytes(b"broken")
    streamed = load_split(config(root, unreadable_limit=100), "train")
    streamed.read([0, 17])
    with pytest.raises(EdcError, match="class 'bee' has no readable image; expected at least 1"):
        streamed.read([8])


def test_pictures_being_decoded_are_no_more_than_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(60)]
    for i, path in enumerate(paths):
        paint(path, i, 8, 8)
    monkeypatch.setattr(pictures, "SMALL", 0)
    monkeypatch.setattr(pictures, "available_cores", lambda: 4)
    lock, alive, peak = threading.Lock(), 0, 0
    together = threading.Barrier(4, timeout=30)

    def view(position: int, picture: Image.Image) -> np.ndarray:
        nonlocal alive, peak
        with lock:
            alive += 1
            peak = max(peak, alive)
        if position % 7 == 0 and position < 28:  # 4 chunks of 7 pictures begin together: several threads do decode
            together.wait()
        pixels = pictures.fit(picture, 3, 8)
        with lock:
            alive -= 1
        return pixels

    out = np.zeros((60, 3, 8, 8), np.uint8)
    assert pictures.decode_pictures(paths, out, view) == {}
    assert peak == 4
    assert (out.reshape(60, -1).std(1) > 0).all()
