"""Commands about plans: what they print and write, and options that contradict one another."""

import re
from pathlib import Path

import pytest
from support import REPOSITORY, one_line
from typer.testing import CliRunner

from edc.cli import app
from edc.config.files import names
from edc.config.references import load_plan
from edc.errors import EdcError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose workflow files are the repository's."""
    (tmp_path / "workflow").symlink_to(REPOSITORY / "workflow")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_studies_are_listed_or_their_cost_estimated_and_nothing_is_written(folder: Path) -> None:
    listed = {line.split()[0]: line for line in run("plan").splitlines()}
    assert list(listed) == names("studies")
    assert "1,797 handwritten digits" in listed["digits"]
    text = run("plan", "digits", "--cost", "--rate", "2.5")
    assert "a device at 2.5 TFLOP/s" in text
    assert "this machine" in run("plan", "digits", "--cost")
    assert [path.name for path in folder.iterdir()] == ["workflow"]


def test_a_broken_study_does_not_hide_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EdcError, match="workflow/studies: no studies here"):
        run("plan")
    (tmp_path / "workflow" / "studies").mkdir(parents=True)
    good = (REPOSITORY / "workflow/studies/digits.yaml").read_text()
    (tmp_path / "workflow/studies/digits.yaml").write_text(good)
    (tmp_path / "workflow/studies/bad.yaml").write_text("recipe: [edc]\n")
    bad, other = run("plan").splitlines()
    assert "unknown key 'recipe'; did you mean 'recipes'?" in bad
    assert other.startswith("digits")


def test_studies_are_planned_and_explained(folder: Path) -> None:
    assert "wrote params.yaml: 6 pretrain, 1 statistics" in run("plan", "digits", "digits_more")
    assert list(load_plan().studies) == ["digits", "digits_more"]
    assert "optimise.iterations  25" in run("explain", "digits-edc-ipc10", "optimise")
    text = Path("params.yaml").read_text()
    (kept,) = re.findall(r"is now (\.edc/params\.\w{8}\.yaml)\n", run("plan", "digits"))
    run("plan", "digits_steps")
    assert Path(kept).read_text() == text, "no plan is lost, however many follow"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan", "--cost"], "--cost: expected a study"),
        (["plan", "--data", "."], "--data: expected a study"),
        (["plan", "digits", "--rate", "3"], "--rate 3: expected a number above 0, together with --cost"),
        (["plan", "digits", "--cost", "--rate", "-1"], "--rate -1: expected a number above 0"),
        (["plan", "digits", "--data", "."], "expected one dataset from outside in digits, found 0"),
        (["plan", "cifar10_small", "--data", "nowhere"], "--data nowhere: no such folder"),
        (["plan", "digitz"], "unknown study 'digitz'; did you mean 'digits'?"),
        (["explain", "digits-edc-ipc10"], "params.yaml: no plan here"),
    ],
)
def test_refusals(folder: Path, arguments: list[str], words: str) -> None:
    with one_line(words):
        run(*arguments)
    assert [path.name for path in folder.iterdir()] == ["workflow"]


def test_schemas_are_written_and_their_drift_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (["schema"], ["new", "birds", "--data", "."], ["import", "s", "--data", ".", "--dataset", "d"]):
        with one_line("workflow: no such folder here; run edc in the root of a checkout"):
            run(*command)
    assert not list(tmp_path.iterdir())
    Path("workflow").mkdir()
    run("schema")
    assert run("schema", "--check").strip() == "up to date"
    path = Path("workflow/schema/params.json")
    path.write_text(path.read_text().replace("threads", "treads"))
    with pytest.raises(EdcError, match=r"workflow/schema/params\.json: out of date; run `edc schema`"):
        run("schema", "--check")
