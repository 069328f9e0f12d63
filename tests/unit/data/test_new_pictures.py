"""`edc new` and pictures: their formats, rotation and transparency, and those that are equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import one_line
from support.pictures import config, fill, found, pixels

from edc.config.files import read
from edc.data import survey
from edc.data.listing import read_list
from edc.data.new import new_dataset
from edc.data.pictures import HEIF
from edc.data.sets import load_split
from edc.errors import EdcError

pytestmark = pytest.mark.usefixtures("new_checkout")


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
        line = found(new_dataset("pets", pets, 16), "left out, no pictures")
        assert line.endswith(": 2 .heic; pip install pillow-heif to read .heic")
    else:
        with one_line("; pip install pillow-heif to read .heic"):
            new_dataset("phone", Path("phone"), 16)


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
