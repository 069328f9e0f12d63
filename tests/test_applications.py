"""Tables and plots of both applications, and all tables as pages, from hand-made manifests."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from edc import figure4, markdown, render, tables
from edc.reporting.applications import applications
from edc.errors import EdcError
from edc.reporting.footnotes import FOOTNOTES
from edc.config.rows import Plan, TablesRow
from edc.reporting.reported import FIGURES, REPORTED, TABLES

REPOSITORY = Path(__file__).resolve().parents[1]
Row = dict[str, Any]
Store = Callable[..., Path]
RECIPES = {"edc": "edc", "random": "edc", "gvbsm": "gvbsm", "sre2l": "sre2l", "full": "real_data"}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty laboratory with the repository's figures of the paper."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "workflow/recipes").mkdir(parents=True)
    for name, protocol in RECIPES.items():
        (tmp_path / f"workflow/recipes/{name}.yaml").write_text(f"description: d\nsource: s\nprotocol: {protocol}\n")
    REPORTED.parent.mkdir()
    shutil.copyfile(REPOSITORY / REPORTED, REPORTED)
    return tmp_path


SCORES: dict[str, Row] = {
    "evaluate": {"final": [50.0], "final_mean": 50.0, "final_std": 1.0, "best_mean": 51.0, "best_std": 1.0},
    "continual": {
        "classes": [4, 7, 10], "accuracy_mean": [99.0, 90.126, 80.0], "accuracy_std": [0.5, None, 1.0],
        "average_mean": 89.7, "average_std": 0.3, "forgetting_mean": -1.25, "forgetting_std": None,
    },
    "slimming": {
        "ratios": [0.0, 0.5], "channels_mean": [100.0, 50.0], "channels_std": [0.0, 0.0],
        "parameters_mean": [1000.0, 350.5], "parameters_std": [0.0, 70.0], "macs_mean": [5e6, 1.5e6],
        "macs_std": [0.0, 7.0], "pruned_mean": [92.0, 25.0], "pruned_std": [2.0, 7.0], "finetuned_mean": [92.0, 75.0],
        "finetuned_std": [2.0, 7.0],
    },
}  # fmt: skip
ROWS: dict[str, Row] = {
    "evaluate": {},
    "continual": {"steps": 3, "orders": [0, 1]},
    "slimming": {"sparsity": 0.01, "epochs": 80, "finetune": 40, "ratios": [0.5]},
}


def store(stage: str, recipe: str = "edc", shift: float = 0.0, run: str = "", **row: Any) -> Path:
    """Write the manifest of one run; all accuracies are ``shift`` higher than the usual ones."""
    values: Row = {"dataset": "digits", "recipe": recipe, "protocol": "edc", "regime": "soft", "ipc": 10}
    values |= {"student": "vgg11_bn", "seeds": [0, 1], "images": "i", "labels": "l", **ROWS[stage]} | row
    scores = dict(SCORES[stage])
    for name in ("accuracy_mean", "average_mean", "pruned_mean", "finetuned_mean", "final_mean"):
        if name in scores:
            old = scores[name]
            scores[name] = [value + shift for value in old] if isinstance(old, list) else old + shift
    params = {stage: values, "dataset": {"name": values["dataset"], "family": values["dataset"]}}
    manifest = {"stage": stage, "params": params, "scores": scores, "steps": 9, "image_bytes": 6400, "label_bytes": 128}
    manifest |= {"run": run, "inputs": {}, "dataset_digest": "", "classes": [], "files": {}}
    name = run or f"{values['dataset']}-{recipe}-{values['ipc']}-{values['student']}-{values['protocol']}"
    path = Path("results", stage, name, "manifest.json")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(manifest))
    return path


def ran(name: str) -> list[Row]:
    """The rows of a table without empty cells."""
    return [{key: value for key, value in row.items() if value is not None} for row in applications()[name].rows]


def test_every_column_of_continual() -> None:
    store("continual")
    store("continual", "random", -5.0)
    edc, random = [row for row in ran("continual") if row["step"] == 2]
    assert edc == {
        "dataset": "digits", "recipe": "edc", "protocol": "edc", "ipc": 10, "student": "vgg11_bn", "regime": "soft",
        "orders": 2, "seeds": 2, "steps": 3, "step": 2, "classes": 7, "accuracy_mean": 90.126, "average_mean": 89.7,
        "average_std": 0.3, "forgetting_mean": -1.25, "image_bytes": 6400, "label_bytes": 128, "random_mean": 85.126,
        "gain": 5.0,
    }  # fmt: skip
    assert (random["recipe"], random["gain"]) == ("random", 0.0)
    assert [(row["recipe"], row["step"], row["classes"]) for row in ran("continual")] == [
        (recipe, step, classes) for recipe in ("edc", "random") for step, classes in ((1, 4), (2, 7), (3, 10))
    ]
    text = tables.as_csv(applications()["continual"].columns, applications()["continual"].rows)
    assert text.splitlines()[:2] == [
        "dataset,recipe,protocol,ipc,student,regime,orders,seeds,steps,step,classes,accuracy_mean,accuracy_std,"
        "average_mean,average_std,forgetting_mean,forgetting_std,image_bytes,label_bytes,random_mean,gain",
        "digits,edc,edc,10,vgg11_bn,soft,2,2,3,1,4,99.0,0.5,89.7,0.3,-1.25,,6400,128,94.0,5.0",
    ]


def test_every_column_of_slimming() -> None:
    store("slimming", "random", 1.0)
    store("slimming")
    text = tables.as_csv(applications()["slimming"].columns, applications()["slimming"].rows)
    assert text.splitlines() == [
        "dataset,recipe,protocol,ipc,student,regime,seeds,sparsity,epochs,finetune,ratio,channels,parameters,macs,"
        "pruned_mean,pruned_std,finetuned_mean,finetuned_std,image_bytes,label_bytes,random_mean,gain",
        "digits,edc,edc,10,vgg11_bn,soft,2,0.01,80,40,0.0,100,1000,5000000,92.0,2.0,92.0,2.0,6400,128,93.0,-1.0",
        "digits,edc,edc,10,vgg11_bn,soft,2,0.01,80,40,0.5,50,350,1500000,25.0,7.0,75.0,7.0,6400,128,76.0,-1.0",
        "digits,random,edc,10,vgg11_bn,soft,2,0.01,80,40,0.0,100,1000,5000000,93.0,2.0,93.0,2.0,6400,128,93.0,0.0",
        "digits,random,edc,10,vgg11_bn,soft,2,0.01,80,40,0.5,50,350,1500000,26.0,7.0,76.0,7.0,6400,128,76.0,0.0",
    ]


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("continual", {"protocol": "gvbsm"}),
        ("continual", {"student": "resnet18"}),
        ("continual", {"ipc": 50}),
        ("continual", {"dataset": "cifar10"}),
        ("slimming", {"sparsity": 0.02}),
        ("slimming", {"finetune": 10}),
    ],
)
def test_the_baseline_is_trained_in_the_same_way(stage: str, changes: Row) -> None:
    store(stage)
    store(stage, "random", run="other", **changes)
    assert not any("random_mean" in row for row in ran(stage) if row["recipe"] == "edc")


def test_steps_that_are_equal_have_no_best() -> None:
    """Even where one recipe is better on the average."""
    store("continual", orders=[0], seeds=[0])
    store("continual", "random", orders=[0], seeds=[0])
    path = store("continual", "gvbsm", orders=[0], seeds=[0])
    manifest = json.loads(path.read_text())
    manifest["scores"]["average_mean"] = 90.0
    path.write_text(json.dumps(manifest))
    text = render.markdown(figure4.continual_page(applications()["continual"]))
    assert "| gvbsm | 10 | edc | 99.0 ± 0.5 | 90.1 | 80.0 ± 1.0 | **90.0 ± 0.3** |" in text
    assert text.count("**") == 2
    assert "over 1 order and 1 seed." in text


def test_nothing_ran() -> None:
    for name, table in applications().items():
        assert table.rows == []
        assert "Nothing ran here." in render.markdown(tables.page(name, applications(), [], None))


@pytest.mark.parametrize("stage", ["continual", "slimming"])
def test_the_same_cell_twice_is_refused(stage: str) -> None:
    store(stage, run="a")
    store(stage, run="b", seeds=[7])
    with pytest.raises(EdcError, match=f"^results/{stage}/b: the same cell as results/{stage}/a; delete the one"):
        applications()


@pytest.mark.parametrize(
    ("stage", "key", "value", "words"),
    [
        ("continual", "accuracy_mean", [99.0, 101.0, 80.0], r"scores\.accuracy_mean\.1 = 101\.0"),
        ("continual", "average_mean", -0.1, r"scores\.average_mean = -0\.1"),
        ("continual", "forgetting_mean", 100.5, r"scores\.forgetting_mean = 100\.5"),
        ("continual", "forgetting_std", float("nan"), r"scores\.forgetting_std = nan"),
        ("continual", "classes", [4, 7], "expected lists of one length"),
        ("slimming", "ratios", [0.0, 1.0], r"scores\.ratios\.1 = 1\.0"),
        ("slimming", "finetuned_mean", [92.0, 175.0], r"scores\.finetuned_mean\.1 = 175\.0"),
        ("slimming", "parameters_mean", [-1.0, 4.0], r"scores\.parameters_mean\.0 = -1\.0"),
        ("slimming", "pruned_std", [1.0], "expected lists of one length"),
        ("slimming", "macs_mean", None, r"scores\.macs_mean"),
    ],
)
def test_a_manifest_that_holds_what_is_not_allowed(
    monkeypatch: pytest.MonkeyPatch, stage: str, key: str, value: Any, words: str
) -> None:
    monkeypatch.setitem(SCORES, stage, SCORES[stage] | {key: value})
    path = store(stage)
    with pytest.raises(EdcError, match=words) as caught:
        applications()
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith(f"; run `edc {stage} --run {path.parent.name}` again")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stage", ["evaluate", "continual", "slimming"])
def test_a_recipe_that_no_file_describes(stage: str) -> None:
    """One line, and nothing that was there is overwritten."""
    store("evaluate")
    plan = Plan(study="s", datasets={}, tables={"s": TablesRow(evaluate=[])})
    tables.run(plan, "s")
    before = {path: path.read_bytes() for path in Path("results").rglob("*") if path.is_file()}
    path = store(stage, "edcc", run="odd")
    with pytest.raises(EdcError, match="unknown recipe 'edcc'; did you mean 'edc'") as caught:
        tables.run(plan, "s")
    assert str(caught.value).startswith(f"{path}: params.{stage}.recipe: ")
    path.unlink()
    assert {path: path.read_bytes() for path in Path("results").rglob("*") if path.is_file()} == before


def test_a_figure_of_the_paper_for_an_unknown_recipe() -> None:
    store("evaluate")
    with REPORTED.open("a") as file:
        file.write("1,CIFAR-10,2,resnet18,edcc,32.6,0.1,\n")
    plan = Plan(study="s", datasets={}, tables={"s": TablesRow(evaluate=[])})
    with pytest.raises(EdcError, match=r"^workflow/paper/reported\.csv: line \d+: unknown recipe 'edcc'"):
        tables.run(plan, "s")
    assert not Path("results/tables").exists()


# Pages


def fill() -> None:
    for stage in ("continual", "slimming"):
        store(stage)
        store(stage, "random", -5.0)
        store(stage, "gvbsm", 0.5)
        store(stage, "edc", -20.0, ipc=1)
    store("continual", "full", 0.9, ipc=0, regime="hard", protocol="real_data", images=None, labels=None)
    store("evaluate")
    store("evaluate", "random", -2.5)
    store("evaluate", "gvbsm", -10, dataset="cifar10", ipc=50, student="resnet18", protocol="gvbsm")


def test_pages_of_the_applications() -> None:
    fill()
    made = applications()
    text = render.markdown(figure4.continual_page(made["continual"]))
    assert "## digits, vgg11_bn, 3 steps" in text
    head = "| recipe | IPC | protocol | 4 classes | 7 classes | 10 classes | average | forgetting | gain |"
    assert head + " image kB | label kB |" in text
    rest = "89.7 ± 0.3 | -1.2 | +5.0 | 6.4 | 0.1 |"
    assert f"| edc | 10 | edc | 99.0 ± 0.5 | 90.1 | 80.0 ± 1.0 | {rest}" in text
    assert "| gvbsm | 10 | edc | **99.5 ± 0.5** | **90.6** | **80.5 ± 1.0** | **90.2 ± 0.3** |" in text
    assert "| full | all | real_data | 99.9 ± 0.5 |" in text, "the ceiling is never the best"
    assert "| edc | 1 | edc | 79.0 ± 0.5 |" in text, "of one there is no best"
    assert "| full | all | real_data | 99.9 ± 0.5 | 91.0 | 80.9 ± 1.0 | 90.6 ± 0.3 | -1.2 |  | 6.4 | 0.1 |" in text
    assert "over 2 orders and 2 seeds" in text
    text = render.markdown(figure4.slimming_page(made["slimming"]))
    assert "| edc | 10 | edc | 0.01 | 0.5 | 25.0 ± 7.0 | 75.0 ± 7.0 | +5.0 | 50 | 350 | 1.50 |" in text
    assert "| gvbsm | 10 | edc | 0.01 | 0.5 | 25.5 ± 7.0 | **75.5 ± 7.0** | +5.5 | 50 | 350 | 1.50 |" in text
    assert "EDC 25.0 at IPC 10" in text


class Reader(HTMLParser):
    """Collects cells, and what is opened without being closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            self.cells[-1] += data


def test_every_table_in_every_form() -> None:
    fill()
    plan = Plan(study="s", datasets={}, tables={"s": TablesRow(evaluate=[])})
    tables.run(plan, "s")
    folder = Path("results/tables")
    for name in TABLES:
        texts = {ending: (folder / f"{name}.{ending}").read_text() for ending in ("md", "tex", "html")}
        reader = Reader()
        reader.feed(texts["html"])
        assert reader.open == []
        cells = [
            re.sub(r"\*\*|\[\^(\d+)\]", r"\1", cell.strip())
            for line in texts["md"].splitlines()
            if line.startswith("|") and not line.startswith("| ---")
            for cell in line.strip("|").split(" | ")
        ]
        assert [cell.strip() for cell in reader.cells] == [cell.strip("| ") for cell in cells], name
        tex = texts["tex"]
        assert tex.count(r"\begin{tabular}") == texts["html"].count("<table")
        assert tex.count(r"\begin{") == tex.count(r"\end{")
        assert tex.count("{") - tex.count(r"\{") == tex.count("}") - tex.count(r"\}")
        assert not re.search(r"(?<!\\)[_#]", tex), f"{name}: an underscore that LaTeX would choke on"
        assert "±" not in tex
        assert "**" not in texts["html"] + tex
    assert r"\textbf{75.5 $\pm$ 7.0}" in (folder / "slimming.tex").read_text()
    assert "<strong>75.5 ± 7.0</strong>" in (folder / "slimming.html").read_text()


def test_marks_and_signs_are_translated() -> None:
    page = render.Page(
        "A_b & <c>",
        [render.Section("50 %", render.table(["x_1", "**y**"], [["**a ± b**[^1][^2]", "{~^\\$}"], [None, 3]]), ("#",))],
        ("see <a> & b_c",),
    )
    tex = render.latex(page)
    assert r"\textbf{a $\pm$ b}\textsuperscript{1}\textsuperscript{2} & \{\~{}\^{}\textbackslash{}\$\} \\" in tex
    assert r"\caption{A\_b \& \textless{}c\textgreater{}: 50 \%}" in tex
    assert r"x\_1 & \textbf{y} \\" in tex
    assert r"\item see \textless{}a\textgreater{} \& b\_c" in tex
    html = render.fragment(page)
    assert "<strong>a ± b</strong><sup>1</sup><sup>2</sup>" in html
    assert "<h1>A_b &amp; &lt;c&gt;</h1>" in html
    assert "<li>see &lt;a&gt; &amp; b_c</li>" in html
    assert "| **a ± b**[^1][^2] | {~^\\$} |\n|  | 3 |" in render.markdown(page)
    assert render.markdown(page).endswith("\n[^1]: see <a> & b_c\n")


def test_what_sources_contradict_is_said_beside_the_figure() -> None:
    store("evaluate", "gvbsm", 9.0, dataset="cifar10", ipc=50, student="resnet18", protocol="gvbsm")
    store("evaluate", "random", 9.0, dataset="cifar10", ipc=50, student="resnet18", protocol="gvbsm")
    plan = Plan(study="s", datasets={}, tables={"s": TablesRow(evaluate=[])})
    tables.run(plan, "s")
    text = Path("results/tables/table1.md").read_text()
    assert "| 59.2 ± 0.4[^1] | -0.2 |" in text
    assert "[^1]: 59.2 in print; a user measured 80.47 with the authors' own images and 77.51 from scratch" in text
    assert (
        "**rded**[^" in text[text.index("- ImageNet-1k, IPC 50") :].splitlines()[0] or "resnet18 56.5 ± 0.1[^" in text
    )
    numbers = [int(number) for number in re.findall(r"^\[\^(\d+)\]: ", text, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert set(map(int, re.findall(r"\[\^(\d+)\](?!:)", text))) == set(numbers)


def test_every_footnote_has_its_figure() -> None:
    """Where nothing ran, all of the paper's figures are listed, and so every footnote must come up."""
    store("evaluate")
    plan = Plan(study="s", datasets={}, tables={"s": TablesRow(evaluate=[])})
    tables.run(plan, "s")
    for note in FOOTNOTES:
        for name in note.tables:
            assert note.text in Path(f"results/tables/{name}.md").read_text(), (name, note)


# Plots


def test_plots_are_the_same_bytes_whatever_the_order_of_the_runs(tmp_path: Path) -> None:
    fill()
    figure4.draw(tmp_path / "a", applications())
    for stage in ("continual", "slimming"):
        for count, run in enumerate(sorted(Path("results", stage).iterdir(), reverse=True)):
            run.rename(run.with_name(f"{count:03d}"))
    figure4.draw(tmp_path / "b", applications())
    for name in FIGURES:
        first, second = ((tmp_path / folder / f"{name}.png").read_bytes() for folder in "ab")
        assert first == second
        assert first.startswith(b"\x89PNG")


def test_what_is_plotted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill()
    store("slimming", dataset="cifar10", run="elsewhere")
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(figure4, "save_figure", lambda path, figure: drawn.setdefault(path.stem, figure))
    figure4.draw(tmp_path, applications())
    (panel,) = drawn["figure4_continual"].axes
    lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in panel.get_lines()}
    assert set(lines) == {"edc, IPC 1", "edc, IPC 10", "gvbsm, IPC 10", "random, IPC 10", "full"}
    assert lines["edc, IPC 10"] == ([4, 7, 10], [99.0, 90.126, 80.0])
    panels = drawn["figure4_slimming"].axes
    assert [panel.get_title() for panel in panels] == ["cifar10, vgg11_bn", "digits, vgg11_bn"]
    lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in panels[1].get_lines()}
    assert lines["random, IPC 10"] == ([0.0, 0.5], [87.0, 70.0])
    colours = [{line.get_label().split(",")[0]: line.get_color() for line in panel.get_lines()} for panel in panels]
    assert colours[0]["edc"] == colours[1]["edc"], "a recipe has one colour in all panels"


# The command


def test_tables_of_a_study_whichever_plan_is_active(monkeypatch: pytest.MonkeyPatch) -> None:
    fill()
    plan = Plan(study="s", datasets={}, tables={"s": TablesRow(evaluate=[])})
    tables.run(plan, "s")
    first = {path: path.read_bytes() for path in Path("results/tables").rglob("*") if path.is_file()}
    shutil.rmtree("results/tables")
    asked: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(tables, "make_plan", lambda name: asked.append(name) or plan)
        tables.run_study("s")
    assert asked == ["s"]
    assert {path: path.read_bytes() for path in Path("results/tables").rglob("*") if path.is_file()} == first
    Path("params.yaml").write_text("study: s\ndatasets: {}\ntables: {s: {evaluate: []}}\n")
    tables.run_study("s")  # of the active plan: there is no file of this study
    assert {path: path.read_bytes() for path in Path("results/tables").rglob("*") if path.is_file()} == first
    with pytest.raises(EdcError, match="unknown study 'other'"):
        tables.run_study("other")


def test_headings_of_all_tables() -> None:
    assert tuple(markdown.HEADINGS) == TABLES
