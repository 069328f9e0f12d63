"""Students judged on held-out training images: their plans, what they are tested on, and that no table has them."""

from __future__ import annotations

import json
import shutil
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from support import laboratory as lab
import pytest

from edc.exchange import card
from edc.pipeline import dag
from edc.config.expand import Builder
from edc.config.cost import Study
from edc.data import sets
from edc.errors import EdcError
from edc.reporting.evaluations import evaluations, finished
from edc.config.rows import Dataset
from edc.config.plan import make_plan
from edc.reporting.report.gather import runs
from edc.config.files import StudyFile, read
from edc.stages.tables import costs, run_study
from edc.config.validation import validate

REPOSITORY = Path(__file__).resolve().parents[1]
SMALL = {"description": "d", "recipes": ["edc"], "ipc": [10], "protocols": ["edc"], "students": ["resnet18"]}


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with one evaluation on held-out images, and the splits it opened; only to be read or copied."""
    folder, opened = tmp_path_factory.mktemp("val"), list[str]()
    shutil.copytree(REPOSITORY / "workflow", folder / "workflow")

    def load(config: Any, split: sets.Split) -> sets.Images:
        opened.append(split)
        return original(config, split)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("EDC_TRACKING", "off")
        lab.prepare()
        original = sets.load_split
        patch.setattr(sets, "load_split", load)
        lab.run("evaluate", split="val", seeds=[0])
    return folder, opened


@pytest.fixture
def place(judged: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(judged[0], tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("EDC_TRACKING", "off")
    return tmp_path / "project"


def manifest() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("results/evaluate/row/manifest.json").read_text())
    return found


def split(name: sets.Split) -> sets.Images:
    return sets.load_split(Dataset.model_validate(lab.DATA), name)


def built(**values: Any) -> Any:
    return Builder("small", StudyFile(**(SMALL | {"datasets": ["cifar10"], "split": "val"} | values))).build()


# Plans


def test_keys_say_what_students_are_judged_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    held, tested = built(), built(split="test")
    assert list(held.evaluate) == ["cifar10-edc-ipc10-resnet18-edc-val"]
    assert list(tested.evaluate) == ["cifar10-edc-ipc10-resnet18-edc"]
    (mine,), (other,) = held.evaluate.values(), tested.evaluate.values()
    assert mine.model_dump() == other.model_dump() | {"split": "val"}
    for stage in ("pretrain", "statistics", "synthesize", "relabel"):
        assert getattr(held, stage) == getattr(tested, stage)


def test_a_plan_ends_with_its_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    plan = make_plan("cifar10_choices")
    assert all(key.endswith("-val") and row.split == "val" for key, row in plan.evaluate.items())
    assert (plan.tables, list(dag.tasks(plan))[-1].stage) == ({}, "evaluate")


def test_looks_at_held_out_images_are_priced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.delenv("EDC_DATA_CIFAR10", raising=False)
    held, tested = Study(built(seeds=[0])), Study(built(seeds=[0], split="test"))
    fewer = 10 * (10_000 - 5_000) * held.forward("cifar10", ["resnet18"])  # ten looks
    assert tested.stage("evaluate").macs - held.stage("evaluate").macs == fewer


def test_a_dataset_that_holds_nothing_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    where = r"^workflow/studies/small.yaml: evaluate.imagenet1k-edc-ipc10-torchvision_resnet18-edc-val.split = "
    with pytest.raises(EdcError, match=where + r"'val': dataset 'imagenet1k' holds no training image out .*0$"):
        built(datasets=["imagenet1k"], students=["torchvision:resnet18"])


def test_applications_are_refused_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    values = read("studies", "digits").model_dump(mode="json") | {"split": "val"}
    with pytest.raises(EdcError, match=r"continual: expected none beside split = 'val'"):
        validate(StudyFile, values, "study")


# Runs


def test_students_are_tested_on_the_held_out_images(judged: tuple[Path, list[str]], place: Path) -> None:
    held, test = split("val"), split("test")
    assert "test" not in judged[1]
    assert held.digest != test.digest
    found = manifest()
    assert (found["test_digest"], found["test_images"]) == (held.digest, len(held))
    assert found["params"]["evaluate"]["split"] == "val"
    right = found["scores"]["final"][0] * len(held) / 100  # a whole number of them
    assert right == pytest.approx(round(right))


def test_no_reader_of_results_sees_them(place: Path) -> None:
    made = json.loads(Path("results/synthesize/images/manifest.json").read_text())
    assert (list(finished("evaluate")), runs("evaluate")) == ([], [])
    assert [path.parent.name for path in finished("evaluate", "val")] == ["row"]
    assert {row["stage"] for row in costs()} == {"pretrain", "synthesize", "relabel"}
    assert card.accuracy("images", made) == "Not measured yet.\n"
    with pytest.raises(EdcError, match=r"no finished evaluation on a test set, only on held-out training images; "):
        evaluations()
    lab.run("evaluate", seeds=[0])  # the same row on the test set
    assert manifest()["test_digest"] == split("test").digest
    assert [one.run for one in evaluations()] == [run.key for run in runs("evaluate")] == ["row"]
    assert "evaluate" in {row["stage"] for row in costs()}


def test_there_are_no_tables_of_such_a_study(place: Path) -> None:
    with pytest.raises(EdcError, match=r"^study 'cifar10_choices' judges its students on held-out training images, "):
        run_study("cifar10_choices")


def test_a_damaged_manifest_is_still_told_of(place: Path) -> None:
    Path("results/evaluate/row/manifest.json").write_text("{")
    with pytest.raises(EdcError, match=r"results/evaluate/row/manifest.json: "):
        evaluations()


def test_the_page_lists_them(place: Path) -> None:
    spec = spec_from_file_location("generate", REPOSITORY / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert list(generate.choices("cifar10")) == ["No evaluation on held-out images has finished here."]
    head, _, row = generate.choices("digits")
    cells = dict(zip(*([cell.strip() for cell in text.split("|")[1:-1]] for text in (head, row)), strict=True))
    observer = json.loads(Path("results/pretrain/observer/manifest.json").read_text())["val_accuracy"]
    assert (cells["dataset"], cells["epochs of observers"], cells["recipe"], cells["variant"]) == (
        "tiny", "3", "random", "-",
    )  # fmt: skip
    scores = manifest()["scores"]
    assert cells["their accuracy"] == f"{observer:.1f}"
    assert cells["last (best)"] == f"{scores['final_mean']:.1f} ({scores['best_mean']:.1f})"
