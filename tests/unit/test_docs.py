"""The pages: generated parts are up to date, commands and files exist, the worked example plans."""

import re
import runpy
import shlex
import shutil
import subprocess
from typing import Any

import pytest
import typer
import yaml
from support import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PLACE = re.compile(r"# (\S+\.yaml)(?:, (\w+)\.([\w-]+))?\n")


def texts() -> list[str]:
    return [page.read_text(encoding="utf-8") for page in PAGES]


def test_generated_parts_are_up_to_date(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    changed = subprocess.run(["git", "status", "--porcelain", "results"], capture_output=True, text=True).stdout
    if changed:
        pytest.skip("the pages quote the committed results, and results/ has others")
    monkeypatch.syspath_prepend(REPOSITORY / "docs")
    render = runpy.run_path(str(REPOSITORY / "docs" / "generate.py"))["render"]
    for page, text in zip(PAGES, texts(), strict=True):
        assert render(text) == text, f"{page.name}: run `python docs/generate.py`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_named_files_exist(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert link.startswith("https://") or (page.parent / link).exists(), link
    for name in re.findall(r"`((?:src|workflow|tests|docs|results)/[\w./-]+)`", BLOCK.sub("", text)):
        missing = [part for part in ("birds", "NAME", "theirs", "DEVICE", "report.html") if part in name]
        assert missing or (REPOSITORY / name).exists(), name


def test_commands_exist_with_their_options():
    from edc.cli import app

    root: Any = typer.main.get_command(app)
    lines = [line for text in texts() for _, block in BLOCK.findall(text) for line in block.splitlines()]
    lines += [code for text in texts() for code in re.findall(r"`(edc [^`]+)`", BLOCK.sub("", text))]
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("edc ")]
    assert len(commands) > 10
    for _, name, *words in commands:
        command = root.commands.get(name)
        assert name == "STAGE" or command, f"edc {name}"
        known = {option for parameter in command.params for option in parameter.opts} if command else set()
        for word in words:
            assert not word.startswith("--") or word in known | {"--help"}, f"edc {name} {word}"


def test_environment_variables_are_described():
    sources = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "src").rglob("*.py"))
    page = (REPOSITORY / "docs" / "running.md").read_text(encoding="utf-8")
    used = set(re.findall(r"\bEDC_[A-Z_]*[A-Z]\b", sources)) - {"EDC_DATA", "EDC_DATA_TINY_IMAGENET"}
    assert used
    assert not {name for name in used if f"`{name}`" not in page}


def test_recipes_and_protocols_on_the_pages_plan(tmp_path, monkeypatch):
    """The YAML files of the README and of docs/extending.md are written where their first lines say, and planned."""
    shutil.copytree(REPOSITORY / "workflow", tmp_path / "workflow")
    monkeypatch.chdir(tmp_path)
    from edc.config.files import names
    from edc.config.plan import make_plan

    expected: list[tuple[str, str, dict[str, Any]]] = []
    for text in (PAGES[0].read_text("utf-8"), (REPOSITORY / "docs" / "extending.md").read_text("utf-8")):
        for language, block in BLOCK.findall(text):
            if language != "yaml":
                continue
            place = PLACE.match(block)
            assert place, f"a block whose first line does not name its file:\n{block}"
            if place[1] == "params.yaml":
                expected.append((place[2], place[3], yaml.safe_load(block)))
            else:
                assert not (tmp_path / place[1]).exists(), f"{place[1]} exists already"
                (tmp_path / place[1]).write_text(block, encoding="utf-8")
    assert {"edc_composites", "noise_start"} <= set(names("recipes"))
    study = yaml.safe_load((tmp_path / "workflow/studies/trial.yaml").read_text("utf-8"))
    study["recipes"].append("noise_start")
    (tmp_path / "workflow/studies/trial.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    plan = make_plan("trial")
    assert plan.synthesize["digits-noise_start-ipc2"].initialise.method == "noise"
    assert expected
    for stage, key, values in expected:
        row = plan.row(stage, key).model_dump(mode="json")
        for name, value in values.items():
            own = {part: row[name][part] for part in value} if isinstance(value, dict) else row[name]
            assert own == value, f"{stage}.{key}.{name}"


def test_the_loss_on_the_page_runs():
    import torch

    from edc.config.protocol import Loss
    from edc.training import losses

    page = (REPOSITORY / "docs" / "extending.md").read_text("utf-8")
    (block,) = [text for _, text in BLOCK.findall(page) if "def absolute" in text]
    scope = vars(losses) | {"Loss": Loss}
    exec(block, scope)
    logits, targets = torch.zeros(2, 3), torch.ones(2, 3)
    value = scope["absolute"](logits, targets, torch.tensor([0, 1]), Loss(ce_weight=0.0))
    assert float(value) == pytest.approx(1.0)
