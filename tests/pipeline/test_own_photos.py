"""A folder of photographs from the raw files to the answer, with the commands of the README."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from checkout import Checkout
from PIL import Image

CLASSES = {"ant": (190, 80, 60), "bee": (90, 170, 70), "cat": (70, 90, 180)}
"""Mean colour of each class; the noise is as large as the differences, so that accuracies are below 100 %."""
PER_CLASS, SIDE = 14, 24
SCORE = r"([\d.]+) % \(± ([\d.]+)"


def photograph(path: Path, colour: tuple[int, ...], seed: int, orientation: int = 1) -> None:
    rng, exif = np.random.default_rng(seed), Image.Exif()
    exif[274] = orientation
    pixels = np.array(colour) + rng.normal(0, 60, 3) + rng.normal(0, 40, (SIDE, SIDE + 8, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, exif=exif)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Class folders as a phone leaves them: six are turned, one is there twice, one is broken, one is a GIF."""
    root = tmp_path / "photographs"
    for number, (name, colour) in enumerate(CLASSES.items()):
        for i in range(PER_CLASS):
            photograph(root / name / f"IMG_{i}.jpg", colour, 100 * number + i, orientation=6 if i < 2 else 1)
    (root / "bee" / "copy.jpg").write_bytes((root / "bee" / "IMG_5.jpg").read_bytes())
    (root / "bee" / "broken.jpg").write_bytes(b"no picture")
    photograph(root / "ant" / "moving.gif", CLASSES["ant"], 1000)
    (root / "ant" / "notes.txt").write_text("left out")
    return root


@pytest.mark.slow
def test_three_commands_from_class_folders_to_an_answer_that_agrees_with_the_record(photographs, tmp_path) -> None:
    checkout = Checkout.make(tmp_path / "project")
    new = checkout.ok("edc", "new", "pets", "--data", str(photographs), "--minutes", "0", "--image-size", "16")
    for words in (
        "45 images of 3 classes",
        "6 images are turned",
        "1 .txt",
        "1 of 45 images unreadable",
        "1 image is equal",
    ):
        assert words in new
    listed = pd.read_csv(checkout.path("workflow/datasets/pets.csv"))
    readable = {str(path.relative_to(photographs)) for path in photographs.glob("*/*.[jg]*")} - {"bee/broken.jpg"}
    assert set(listed["path"]) == readable
    assert listed[listed["path"].isin(["bee/IMG_5.jpg", "bee/copy.jpg"])]["split"].nunique() == 1
    study = checkout.path("workflow/studies/pets.yaml")  # two sets answer as well as four, in half the time
    values = yaml.safe_load(study.read_text("utf-8"))
    values["recipes"] = ["random", "edc"]
    values["overrides"]["recipes"].pop("rded")
    study.write_text(yaml.safe_dump(values), "utf-8")
    checkout.ok("edc", "plan", "pets")
    checkout.ok("edc", "run")

    runs = pd.read_csv(checkout.path("results/runs.csv"))
    runs = runs[runs["stage"] == "evaluate"]
    assert set(runs["test_images"]) == {(listed["split"] == "test").sum()}
    text = checkout.path("results/tables/answer.md").read_text("utf-8")
    total = agrees(text, runs)
    held_out = len(CLASSES)  # a tenth of each class, at least one
    assert total == (listed["split"] == "train").sum() - held_out
    checkout.ok("edc", "report")
    page = checkout.path("results/report.html").read_text("utf-8")
    assert re.search(r'<img src="data:image/svg[^"]+" alt="Accuracy over images per class">', page)
    assert "did not run yet" not in page


def agrees(text: str, runs: pd.DataFrame) -> int:
    """Compare every number of the answer with the record's accuracies; how many training images it names."""
    cells = runs.groupby(["ipc", "recipe", "protocol"])["accuracy"].agg(["mean", "std"])

    def same(score: Sequence[str], *cell: object) -> None:
        assert np.allclose(np.array(score, float), cells.loc[cell], atol=0.051), (score, cell)

    totals = set()
    for block in re.findall(r"\*\*(\d+) images? per class\*\*(.*?)(?=\n\*\*)", text, re.DOTALL):
        ipc = int(block[0])
        pattern = rf"Protocol (\w+), .*? of the ([\d,]+) training .*?reach {SCORE}.*?; EDC's \d+ images reach {SCORE}"
        protocol, total, *scores = re.search(pattern, block[1]).groups()
        same(scores[:2], ipc, "random", protocol)
        same(scores[2:], ipc, "edc", protocol)
        totals.add(int(total.replace(",", "")))
        best = re.search(rf"Best set here: (\w+) \(\w+ labels, protocol (\w+)\), {SCORE}", block[1]).groups()
        same(best[2:], ipc, *best[:2])
        assert float(best[2]) == pytest.approx(cells.loc[ipc, "mean"].max(), abs=0.051)
    (full,) = cells.loc[0].itertuples()
    same(re.search(rf"They reach {SCORE}", text).groups(), 0, *full.Index)
    assert float(re.search(r"To reach ([\d.]+) %", text)[1]) == pytest.approx(0.9 * full.mean, abs=0.051)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if re.match(r"\| \d", line)]
    assert len(rows) == sum(ipc > 0 and recipe != "random" for ipc, recipe, _ in cells.index)
    for ipc, recipe, protocol, _, score, random, difference, interval, verdict in rows:
        values = [re.findall(r"[\d.]+", text)[:2] for text in (score, random)]
        same(values[0], int(ipc), recipe, protocol)
        same(values[1], int(ipc), "random", protocol)
        assert float(difference) == pytest.approx(float(values[0][0]) - float(values[1][0]), abs=0.11)
        low, high = map(float, re.findall(r"[+-][\d.]+", interval))
        ahead = {1: f"{recipe} is ahead", -1: "random is ahead", 0: "no difference shown"}
        if min(abs(low), abs(high)) >= 0.1:  # nearer to 0 rounding hides the sign
            assert verdict == ahead[(low > 0) - (high < 0)]
    return totals.pop()
