"""A dataset file and a study for images of one's own: measured, valid, and planned at once."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import REPOSITORY

from edc.config.plan import make_plan
from edc.data.new import new_dataset
from edc.errors import EdcError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout's recipes and protocols, with room for datasets and studies, and pictures of two classes."""
    for kind in ("datasets", "studies"):
        (tmp_path / "workflow" / kind).mkdir(parents=True)
    for kind in ("recipes", "protocols"):
        (tmp_path / "workflow" / kind).symlink_to(REPOSITORY / "workflow" / kind)
    for part, count in (("train", 6), ("test", 2)):
        for level, name in ((0, "cat"), (255, "dog")):
            (tmp_path / "pets" / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.full((20, 24, 3), (level, 0, 51), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "pets" / part / name / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDC_DATA_PETS", raising=False)
    return tmp_path


def test_images_of_ones_own_are_measured_and_planned(folder: Path) -> None:
    paths = new_dataset("pets", Path("pets"), 16)
    assert paths == [Path("workflow/datasets/pets.yaml"), Path("workflow/studies/pets.yaml")]
    for path in paths:
        schema = path.read_text().splitlines()[0].split("=")[1]
        assert schema == f"../schema/{path.parent.name}.json"
    plan = make_plan("pets")
    dataset = plan.datasets["pets"]
    assert (dataset.kind, dataset.classes, dataset.image_size) == ("folder", 2, 16)
    assert (dataset.mean, dataset.std) == ([0.5, 0.0, 0.2], [0.5, 0.0039, 0.0039])
    assert {row.recipe for row in plan.evaluate.values()} == {"edc", "random"}


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("My Pets", "pets", "name 'My Pets': expected lower-case letters"),
        ("birds", "nowhere", "nowhere does not exist"),
        ("birds", "workflow", "expected train/CLASS/*"),
        ("taken", "pets", "workflow/datasets/taken.yaml: exists already"),
    ],
)
def test_refusals(folder: Path, name: str, data: str, words: str) -> None:
    Path("workflow/datasets/taken.yaml").touch()
    with pytest.raises(EdcError) as caught:
        new_dataset(name, Path(data), 16)
    assert words in str(caught.value)
    assert not list(Path("workflow/studies").iterdir())
