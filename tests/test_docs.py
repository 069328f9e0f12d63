"""The documentation: its examples run, its generated parts are up to date, its links lead somewhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PLACE = re.compile(r"# (\S+?)(?:, (at the end|in parts|in (\w+)))?\n")

# What the page's `dvc repro` runs, in one process: the runners have tests of their own, and torch starts once.
REPRO = """
import json
from pathlib import Path
from edc.pipeline import dag
from edc.stages.context import execute, load_plan

plan = load_plan()
for task in dag.tasks(plan):
    made = Path(dag.folder(task.stage, task.key), "run.json")
    if made.exists() and json.loads(made.read_text())["code"] == dag.code_digest(task):
        continue
    execute(task.stage, task.key)
    print("ran", task.name)
"""
RATE = """
from edc.config.choices import Schedule
from edc.training.schedules import multiplier
print(multiplier(Schedule(name="square_root"), 3, 10))
"""


class Reader:
    """Follows the page from top to bottom, as a user with an editor and a shell would."""

    def __init__(self, checkout: Any, page: Path) -> None:
        self.checkout, self.ran, self.claims = checkout, list[set[str]](), list[dict[str, Any]]()
        for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
            if language == "sh":
                for command in text.splitlines():
                    self.type(command)
            else:
                self.put(language, text)

    def type(self, command: str) -> None:
        """Give a command."""
        if command != "dvc repro":
            self.checkout.ok(*command.split())
            return
        said = self.checkout.ok(sys.executable, "-c", REPRO)
        self.ran.append(set(re.findall(r"^ran (\S+)$", said, re.MULTILINE)))

    def put(self, language: str, text: str) -> None:
        """Write a block where its first line says."""
        place = PLACE.match(text)
        assert place, f"a {language} block whose first line does not say where it goes:\n{text}"
        path, rest = self.checkout.path(place[1]), text[place.end() :]
        if place[2] == "in parts":
            self.check(path, yaml.safe_load(rest))
        elif place[2] == "at the end":
            path.write_text(path.read_text(encoding="utf-8") + rest, encoding="utf-8")
        elif place[3]:
            head = re.compile(rf"^{place[3]}\b.*{{\n", re.MULTILINE)
            assert len(head.findall(path.read_text(encoding="utf-8"))) == 1, f"{place[1]}: no dictionary {place[3]}"
            path.write_text(head.sub(lambda found: found[0] + rest, path.read_text(encoding="utf-8")))
        else:
            assert not path.exists(), f"{place[1]}: exists already"
            self.checkout.write(place[1], text)

    def check(self, path: Path, expected: dict[str, Any]) -> None:
        """What the page says of a file must be in it."""
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        for stage, rows in expected.items():
            for key, values in rows.items():
                assert_part(values, found[stage][key], f"{path.name}: {stage}.{key}")
                self.claims.append(values)


def assert_part(part: Any, whole: Any, where: str) -> None:
    """Every value of one mapping stands in another."""
    if not isinstance(part, dict):
        assert part == whole, where
        return
    for key, value in part.items():
        assert key in whole, f"{where}.{key}"
        assert_part(value, whole[key], f"{where}.{key}")


def images(reader: Reader, key: str) -> torch.Tensor:
    """A condensed set."""
    return load_file(reader.checkout.path("results", "synthesize", key, "images.safetensors"))["images"]


def manifest(reader: Reader, stage: str, key: str) -> dict[str, Any]:
    return json.loads(reader.checkout.path("results", stage, key, "manifest.json").read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.early(5)
def test_the_page_on_extending_does_what_it_says(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "tests" / "system"))
    from checkout import Checkout

    followed = Reader(Checkout.make(tmp_path / "project"), REPOSITORY / "docs" / "extending.md")
    check_the_method(followed)
    check_the_choice(followed)
    check_schedule_and_network(followed)
    check_the_recipe_of_the_readme(followed)


def check_the_method(followed: Reader) -> None:
    """A recipe and a protocol in YAML ran to their rows in the table, and made other images."""
    first = followed.ran[0]
    assert {stage for stage, _, _ in (name.partition("-") for name in first)} == {
        "pretrain", "statistics", "synthesize", "relabel", "evaluate", "tables",
    }  # fmt: skip
    assert len(followed.claims) == 2
    made = manifest(followed, "synthesize", "few_digits-sure_start-ipc2")["params"]["synthesize"]
    assert made["initialise"]["method"] == "composites"
    assert made["augment"]["curriculum"]["name"] == "cosine"
    plain, other = (images(followed, f"few_digits-{name}-ipc2") for name in ("edc", "sure_start"))
    assert plain.shape == other.shape == (20, 1, 8, 8)
    assert not torch.equal(plain, other)
    table = followed.checkout.path("results", "tables", "table1.csv").read_text(encoding="utf-8")
    for recipe, protocol in (("edc", "edc"), ("sure_start", "edc"), ("sure_start", "patient")):
        assert f"few_digits,{recipe},{protocol},2,convnet_d2,1," in table
        score = manifest(followed, "evaluate", f"few_digits-{recipe}-ipc2-convnet_d2-{protocol}")["scores"]
        assert score["final_mean"] > 20, "no better than chance"


def check_the_choice(followed: Reader) -> None:
    """One function and one name started the images, and made no finished synthesis stale."""
    from edc.data.sets import load_split
    from edc.config.rows import Dataset

    row = manifest(followed, "synthesize", "few_digits-means-ipc2")["params"]
    assert row["synthesize"]["initialise"]["method"] == "class_means"
    train = load_split(Dataset(**row["dataset"]), "train")
    means = images(followed, "few_digits-means-ipc2").to(torch.float32)
    for c in range(10):
        members = train.by_class(c)
        whole = train.read(members).to(torch.float32).mean(dim=0)
        # 30 images a class in two shares of 15: the mean of both means is the class's, but for rounding.
        assert len(members) == 30
        assert (means[2 * c : 2 * c + 2].mean(dim=0) - whole).abs().max() <= 0.5
    assert not torch.equal(images(followed, "few_digits-edc_means-ipc2"), images(followed, "few_digits-edc-ipc2"))
    assert manifest(followed, "evaluate", "few_digits-edc_means-ipc2-convnet_d2-edc")["scores"]["final_mean"] > 20
    names = [f"few_digits-{recipe}-ipc2" for recipe in ("means", "edc_means")]
    new = {f"synthesize-{name}" for name in names} | {f"relabel-{name}-edc" for name in names}
    new |= {f"evaluate-{name}-convnet_d2-edc" for name in names}
    assert followed.ran[1] == new | {"tables-second_trial"}


def check_schedule_and_network(followed: Reader) -> None:
    """The new network was trained at the new schedule's rates."""
    key = "few_digits-means-ipc2-mlp-rooted"
    assert manifest(followed, "evaluate", key)["params"]["evaluate"]["schedule"]["name"] == "square_root"
    lines = followed.checkout.path("results", "evaluate", key, "history.csv").read_text(encoding="utf-8").splitlines()
    rates = [float(line.split(",")[2]) for line in lines[1:]]
    assert rates[3] == pytest.approx(rates[0] / 2, rel=1e-4)
    assert followed.checkout.ok(sys.executable, "-c", RATE).strip() == "0.5"


def check_the_recipe_of_the_readme(followed: Reader) -> None:
    """It plans, with the values it gives."""
    for language, text in BLOCK.findall((REPOSITORY / "README.md").read_text(encoding="utf-8")):
        if language == "yaml":
            followed.put(language, text)
    study = {"inherits": "trial", "description": "", "recipes": ["noise_start"]}
    followed.checkout.write("workflow/studies/noise.yaml", study)
    followed.type("edc plan noise")
    row = followed.checkout.plan()["synthesize"]["few_digits-noise_start-ipc2"]
    assert_part({"initialise": {"method": "noise"}, "match": {"alpha": 1.0}}, row, "noise_start")


@pytest.mark.slow
def test_generated_parts_are_up_to_date(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    spec = spec_from_file_location("generate", REPOSITORY / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = module_from_spec(spec)
    spec.loader.exec_module(generate)
    # The pages quote the committed results; whoever has made some of their own has other numbers in the last digit.
    asked = ["git", "status", "--porcelain", "results/tables/table1.csv"]
    leave = ["table1"] if subprocess.run(asked, capture_output=True).stdout else []
    for page in generate.PAGES:
        text = Path(page).read_text(encoding="utf-8")
        assert generate.MARKED.search(text), page
        assert generate.render(text, leave) == text, f"{page}: out of date; run `python docs/generate.py`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_named_files_exist(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert link.startswith("https://") or (page.parent / link).exists(), link
    for name in re.findall(r"`((?:src|workflow|tests|docs|profiles)/[\w./-]+)`", BLOCK.sub("", text)):
        assert (REPOSITORY / name).exists() or Path(name).stem == "mine", name


def test_every_recipe_and_protocol_is_in_the_tables_of_the_design_space():
    text = (REPOSITORY / "docs" / "design-space.md").read_text(encoding="utf-8")
    for kind in ("recipes", "protocols"):
        for path in (REPOSITORY / "workflow" / kind).glob("*.yaml"):
            assert f"| `{path.stem}` |" in text, f"{path.name}: run `python docs/generate.py`"
