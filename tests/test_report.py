"""The report, from hand-made results: what stands in a cell, what is in bold, what is escaped, what is refused."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edc.reporting.applications import CONTINUAL, SLIMMING
from edc.errors import EdcError
from edc.reporting.evaluations import evaluations
from edc.reporting.report import tracked, write_report
from edc.reporting.report.charts import Axis, Point, Scale, Series, chart
from edc.reporting.report.gather import gather, runs
from edc.reporting.report.markup import Html, element
from edc.reporting.report.page import page
from edc.reporting.report.summary import Comparison, comparisons, headline
from edc.reporting.reported import REPORTED, read_figures
from edc.stages.tables import COST, as_csv
from edc.reporting.tabulate import tables
from edc.tracking import run_key

REPOSITORY = Path(__file__).resolve().parents[1]
RECIPES = {"edc": "edc", "random": "edc", "rded": "rded"}
STD = 1.0
Evaluate = Callable[..., str]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty laboratory with the repository's figures of the paper, which tracks nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDC_TRACKING", "off")
    recipes = tmp_path / "workflow/recipes"
    recipes.mkdir(parents=True)
    for name, protocol in RECIPES.items():
        (recipes / f"{name}.yaml").write_text(f"description: d\nsource: s\nprotocol: {protocol}\n")
    REPORTED.parent.mkdir()
    shutil.copyfile(REPOSITORY / REPORTED, REPORTED)
    return tmp_path


@pytest.fixture
def evaluate(place: Path) -> Evaluate:
    """Leaves one evaluation with its learning curve, and the images it was made of."""

    def leave(recipe: str = "edc", mean: float = 50.0, std: float | None = STD, **row: Any) -> str:
        values = {"ipc": 10, "student": "resnet18", "protocol": "edc", "regime": "soft", "seeds": [0, 1]}
        values |= {"dataset": "digits", "recipe": recipe, "variant": "", "images": f"{recipe}-set", "labels": "l"} | row
        name = "-".join(str(values[n]) for n in ("dataset", "recipe", "ipc", "student", "protocol"))
        name += hashlib.sha256(str(values["variant"]).encode()).hexdigest()[:6] if values["variant"] else ""
        history = "seed,epoch,lr,train_loss,test_accuracy\n0,0,1,2,10\n0,1,1,1,\n1,0,1,2,20\n"
        scores = {"final": [mean], "final_mean": mean, "final_std": std, "best_mean": mean + 1, "best_std": std}
        dataset = {"name": values["dataset"], "family": values["dataset"]}
        facts = {"scores": scores, "steps": 480, "image_bytes": 6400, "label_bytes": 240000}
        name = name.replace("/", "_")
        put("evaluate", name, {"evaluate": values, "dataset": dataset}, facts, {"history.csv": history.encode()})
        images = {"dataset": values["dataset"], "recipe": recipe, "ipc": values["ipc"], "seed": 0}
        put("synthesize", f"{recipe}-set", {"synthesize": images}, {}, {"contact_sheet.png": png()})
        return name

    return leave


def put(stage: str, name: str, params: dict[str, Any], facts: dict[str, Any], files: dict[str, bytes]) -> Path:
    """A finished run of any stage."""
    folder = Path("results", stage, name)
    folder.mkdir(parents=True, exist_ok=True)
    entries = {}
    for file, content in files.items():
        (folder / file).write_bytes(content)
        entries[file] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest = {"stage": stage, "run": name, "params": params, "inputs": {}, "dataset_digest": "d1g3st", "classes": []}
    (folder / "manifest.json").write_text(json.dumps(manifest | facts | {"files": entries}))
    record = {"seconds": 12.5, "device": "CPU, 1 threads", "commit": "c0ffee" * 6, "dirty": "false", "torch": "2.9"}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def png(size: int = 8) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (size, size), "red").save(content, format="PNG")
    return content.getvalue()


def tabulate(**more: tuple[tuple[str, ...], list[dict[str, Any]]]) -> None:
    """Every table, and others by name."""
    folder = Path("results/tables")
    folder.mkdir(parents=True, exist_ok=True)
    made = {name: (table.columns, table.rows) for name, table in tables(evaluations(), read_figures()).items()}
    made |= {"continual": (CONTINUAL, []), "slimming": (SLIMMING, [])}
    for name, (columns, rows) in (made | more).items():
        (folder / f"{name}.csv").write_text(as_csv(columns, rows))
    cost = [
        {"stage": run.stage, "run": run.key, "dataset": "digits", **run.made}
        for stage in ("synthesize", "evaluate")
        for run in runs(stage)
    ]
    (folder / "cost.csv").write_text(as_csv(COST, [{name: row.get(name) for name in COST} for row in cost]))


def made() -> str:
    """The page of what is here."""
    return page(gather(), None)


class Tables(HTMLParser):
    """Every table of a page as rows of (text, data-value, bold), and whether all elements are closed."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.found: dict[str, list[list[tuple[str, str | None, bool]]]] = {}
        self.open: list[str] = []
        self._rows: list[list[tuple[str, str | None, bool]]] = []
        self.feed(content)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)
        if tag == "table":
            self._rows = self.found.setdefault(given["aria-label"] or "", [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append(("", given.get("data-value"), False))
        elif tag == "strong" and "table" in self.open:
            self._rows[-1][-1] = (*self._rows[-1][-1][:2], True)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "table" in self.open:
            text, value, bold = self._rows[-1][-1]
            self._rows[-1][-1] = (text + data, value, bold)

    def column(self, table: str, name: str) -> dict[str, tuple[str, str | None, bool]]:
        """Cells of one column by recipe and protocol."""
        head, *body = self.found[table]
        names = [cell[0] for cell in head]
        at = [names.index(one) for one in ("recipe", "protocol")]
        return {"/".join(row[i][0] for i in at): row[names.index(name)] for row in body}


# Markup


def test_text_and_attributes_are_escaped() -> None:
    made = element("td", '<b> & "q"', element("i", "x"), None, class_='a"b', data_value=1, hidden=True, id=None)
    assert made == '<td class="a&quot;b" data-value="1" hidden>&lt;b&gt; &amp; &quot;q&quot;<i>x</i></td>'
    assert element("img", alt="") == '<img alt="">'
    assert (
        element("p", "a\x00\x1b\ud800b") == "<p>a\N{REPLACEMENT CHARACTER}" + "\N{REPLACEMENT CHARACTER}" * 2 + "b</p>"
    )


def test_names_from_results_cannot_become_markup(evaluate: Evaluate) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    evaluate(variant=evil)
    evaluate(dataset=evil, student="a&b")
    tabulate()
    content = made()
    assert "<script>alert" not in content
    assert "<img src=x" not in content
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in content
    assert content.count("<script>") == 1
    Tables(content)


# Tables


def test_a_mean_and_its_deviation_are_one_cell_that_sorts_by_the_mean(evaluate: Evaluate) -> None:
    evaluate("edc", 50.123, 1.26)
    evaluate("random", 40.0, None)
    tabulate()
    last = Tables(made()).column("table1 digits", "final")
    assert last == {"edc/edc": ("50.1 ± 1.3", "50.123", True), "random/edc": ("40.0", "40.0", False)}
    gain = Tables(made()).column("table1 digits", "gain")
    assert gain == {"edc/edc": ("+10.1", "10.123", False), "random/edc": ("", None, False)}


def test_the_best_of_a_cell_is_bold_and_no_other(evaluate: Evaluate) -> None:
    for recipe, protocol, mean in (("edc", "edc", 50), ("random", "edc", 50), ("rded", "rded", 48)):
        evaluate(recipe, mean, protocol=protocol)
    evaluate("edc", 10, student="convnet_d1")
    tabulate()
    content = made()
    found = [(row[0][0], row[3][0], row[4][2]) for row in Tables(content).found["table1 digits"][1:]]
    assert sorted(found) == [
        ("edc", "convnet_d1", False), ("edc", "resnet18", True), ("random", "resnet18", True),
        ("rded", "resnet18", False),
    ]  # fmt: skip


def test_the_three_regimes_the_paper_and_seconds_stand_in_table_1(evaluate: Evaluate) -> None:
    evaluate("edc", 70.0, dataset="cifar10")
    evaluate("edc", 60.0, dataset="cifar10", protocol="static_soft", regime="static")
    evaluate("edc", 55.0, dataset="cifar10", protocol="hard_label", regime="hard")
    put("relabel", "l", {"relabel": {"dataset": "cifar10"}}, {}, {})
    tabulate()
    (head, row) = Tables(made()).found["table1 cifar10"]
    cells = dict(zip([cell[0] for cell in head], [cell[0] for cell in row], strict=True))
    assert (cells["final"], cells["fixed labels"], cells["hard labels"]) == ("70.0 ± 1.0", "60.0 ± 1.0", "55.0 ± 1.0")
    assert (cells["paper"], cells["difference"]) == ("79.1 ± 0.31", "-9.1")  # with the mark of footnote 1
    assert (cells["image kB"], cells["label kB"], cells["s"]) == ("6.4", "240.0", "12.5")


def test_cells_of_the_paper_that_did_not_run_are_folded_and_empty(evaluate: Evaluate) -> None:
    evaluate()
    tabulate()
    content = made()
    rows = Tables(content).found["table22, not run here"]
    names = [cell[0] for cell in rows[0]]
    assert {row[names.index("dataset")][0] for row in rows[1:]} == {"ImageNet-21k"}
    assert {row[names.index("final")][0] for row in rows[1:]} == {""}
    assert all(row[names.index("paper")][0] for row in rows[1:])
    assert re.search(r"<details><summary>\d+ cells of the paper that did not run here", content)


def test_footnotes_are_linked_from_the_figure_they_are_about(evaluate: Evaluate) -> None:
    evaluate("edc", 70.0, dataset="cifar10")
    tabulate()
    content = made()
    links = set(re.findall(r'href="#([^"]+)"', content))
    assert links <= set(re.findall(r' id="([^"]+)"', content))
    assert any(link.startswith("table1-note-") for link in links)


def test_a_table_without_rows_is_left_out_and_one_nobody_knows_is_shown(evaluate: Evaluate) -> None:
    evaluate()
    tabulate(mine=(("recipe", "speed"), [{"recipe": "edc", "speed": 3.5}]))
    content = made()
    assert 'id="tables-mine"' in content
    assert 'id="tables-table1"' in content
    assert 'id="tables-cost"' in content
    assert 'id="tables-variants"' not in content
    assert 'id="tables-cross"' not in content


def test_tables_older_than_the_results_are_told(evaluate: Evaluate) -> None:
    evaluate("edc", 50.0)
    tabulate()
    assert gather().stale == []
    assert 'class="warning"' not in made()
    evaluate("random", 40.0)
    assert "table1" in gather().stale
    assert 'class="warning"' in made()


# Summary


def row(
    recipe: str,
    last: float,
    hard: float | None = None,
    std: float | None = 1.0,
    random: float | None = None,
    **more: Any,
) -> dict[str, Any]:
    more |= {"random_mean": random, "random_std": None if random is None else std}
    cell = {"dataset": "d", "ipc": 10, "student": "s", "protocol": "edc", "seeds": 3, "recipe": recipe}
    return cell | {"final_mean": last, "final_std": std, "hard_mean": hard, "hard_std": std, "static_mean": None} | more


@pytest.mark.parametrize(
    ("ours", "theirs", "std", "verdict"),
    [
        (50, 40, 1, "ahead"),
        (40, 50, 1, "behind"),
        (41, 40, 1, "level"),
        (41.5, 40, 1, "ahead"),
        (40.1, 40, None, "ahead"),
        (40.04, 40, None, "level"),  # the page would say 0.0
        (40, 40, None, "level"),
    ],
)
def test_edc_is_ahead_only_beyond_the_spread(ours: float, theirs: float, std: float | None, verdict: str) -> None:
    assert Comparison(row("edc", ours, std=std), row("random", theirs, std=std), "final").verdict == verdict


def test_the_headline_names_every_regime() -> None:
    rows = [row("edc", 50, 30, random=52), row("random", 52, 20)]
    rows += [row("edc", 60, 33, random=40, ipc=1), row("random", 40, 20.5, ipc=1)]
    rows.append(row("edc", 99, protocol="other"))  # no random images were taught like that
    assert list(headline(comparisons(rows))) == [
        "Under soft labels renewed every epoch EDC is ahead of random real images in 1 of 2 comparisons (by 20.0 "
        "points) and behind in 1 (by 2.0 points).",
        "Under one fixed soft label per image: not run.",
        "Under hard labels EDC is ahead of random real images in 2 of 2 comparisons (by 10.0 to 12.5 points).",
    ]


def test_without_a_comparison_the_page_says_so(evaluate: Evaluate) -> None:
    evaluate("edc")
    tabulate()
    assert "nothing can be said of what EDC is worth" in made()


# Charts and pictures


def test_axes_have_round_ticks() -> None:
    assert [name for _, name in Scale([3, 97], Axis("x"), 0, 100).ticks()] == ["0", "20", "40", "60", "80", "100"]
    assert [name for _, name in Scale([5, 5], Axis("x"), 0, 1).ticks()]
    names = [name for _, name in Scale([40, 400_000], Axis("bytes", logarithmic=True), 0, 100).ticks()]
    assert names == ["100", "1k", "10k", "100k"]


def test_a_chart_draws_every_point_inside_its_frame() -> None:
    points = [Point(x, y, 2.0, f"{x}") for x, y in ((1, 10), (100, 90))]
    drawn = chart("<t>", Axis("x", logarithmic=True), Axis("y"), [Series("a&b", 0, 1, points, band=True)])
    assert "&lt;t&gt;" in drawn
    assert "a&amp;b" in drawn
    assert drawn.count("<title>") == 2
    places = [float(n) for pair in re.findall(r'points="([^"]+)"', drawn) for n in re.split("[ ,]", pair)]
    assert 0 <= min(places) <= max(places) <= 440
    assert chart("t", Axis("x"), Axis("y"), [Series("a", 0, 0, [])]) == Html("")


def test_both_applications_are_drawn_from_their_tables(evaluate: Evaluate) -> None:
    evaluate()
    cell = {
        "dataset": "digits",
        "recipe": "edc",
        "protocol": "edc",
        "ipc": 1,
        "student": "s",
        "regime": "soft",
        "seeds": 2,
    }
    steps = [{"steps": 2, "orders": 1, "step": i + 1, "classes": 5 * i + 5, "accuracy_mean": 90 - i} for i in range(2)]
    ratios = [{"ratio": r, "finetuned_mean": 80 - r, "pruned_mean": 70 - r, "sparsity": 1e-4} for r in (0.0, 0.5)]
    fill = lambda names, rows: (names, [{n: (cell | one).get(n) for n in names} for one in rows])  # noqa: E731
    tabulate(continual=fill(CONTINUAL, steps), slimming=fill(SLIMMING, ratios))
    content = made()
    assert "edc, edc, 10 classes: 89.0 %" in content
    assert "edc, edc, as cut, 0.5 of the channels removed: 69.5 %" in content
    assert 'id="tables-continual"' in content


def test_learning_curves_are_means_over_the_seeds_where_the_test_set_was_looked_at(evaluate: Evaluate) -> None:
    evaluate()
    tabulate()
    content = made()
    assert "edc, edc, epoch 1: 15.0 %" in content
    assert "epoch 2" not in content


# The whole page


def test_the_same_results_give_the_same_bytes_and_nothing_comes_from_outside(evaluate: Evaluate) -> None:
    for recipe in ("edc", "random"):
        evaluate(recipe)
    tabulate()
    first = made()
    for path in Path("results").rglob("*"):
        path.touch()
    assert made() == first
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', first)
    assert "@import" not in first
    assert "url(" not in first


def test_the_plan_is_shown_as_it_is(evaluate: Evaluate) -> None:
    evaluate()
    tabulate()
    assert 'id="plan"' not in made()
    Path("params.yaml").write_text("# <mine>\nstudy: digits\ndatasets: {}\n")
    content = made()
    assert "# &lt;mine&gt;\nstudy: digits" in content
    assert "<h1>Dataset condensation: study digits</h1>" in content


# Bad input


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def change(old: str, new: str) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return edit


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("evaluate/{run}/manifest.json", cut, "damaged or truncated"),
        ("evaluate/{run}/manifest.json", change('"final_mean": 50.0', '"final_mean": 150.0'), "final_mean = 150.0"),
        ("evaluate/{run}/manifest.json", change('"inputs"', '"imputs"'), "no 'inputs' in it"),
        ("evaluate/{run}/run.json", cut, "damaged or truncated"),
        ("evaluate/{run}/history.csv", cut, "changed since it was made"),
        ("synthesize/edc-set/contact_sheet.png", cut, "not a whole PNG"),
        ("synthesize/edc-set/manifest.json", change("{", "["), "damaged or truncated"),
        ("tables/table1.csv", cut, "line"),
        ("tables/table1.csv", change("50.0", "fifty"), "final_mean = 'fifty': expected a number"),
        ("tables/table1.csv", change("50.0", "150.0"), "final_mean = 150.0: expected 0 to 100"),
        ("tables/table1.csv", change("50.0", "nan"), "final_mean = 'nan'"),
        ("tables/table1.csv", lambda path: path.write_bytes(b""), "expected a line of column names"),
        ("tables/cost.csv", lambda path: path.write_bytes(b"\xff\xfe"), "cannot be read"),
    ],
)
def test_a_damaged_result_is_one_line_and_the_old_report_stays(
    evaluate: Evaluate, file: str, damage: Callable[[Path], object], said: str
) -> None:
    run = evaluate()
    tabulate()
    old = Path("results/report.html")
    old.write_text("the old one")
    path = Path("results", file.format(run=run))
    damage(path)
    with pytest.raises(EdcError) as error:
        write_report(old)
    assert str(path) in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert old.read_text() == "the old one"
    assert not list(Path("results").glob(".*"))


def test_nothing_to_report_is_one_line(evaluate: Evaluate) -> None:
    with pytest.raises(EdcError, match="no finished evaluation"):
        write_report(Path("report.html"))
    evaluate()
    with pytest.raises(EdcError, match="no tables here"):
        write_report(Path("report.html"))


def test_a_place_that_cannot_be_written_is_one_line(evaluate: Evaluate) -> None:
    evaluate()
    tabulate()
    with pytest.raises(EdcError, match="results: cannot be written"):
        write_report(Path("results"))
    assert "1.0 MB" not in write_report(Path("deep/er/report.html"))
    assert Path("deep/er/report.html").read_text().startswith("<!doctype html>")


# Tracked runs


def test_runs_are_found_by_their_keys(evaluate: Evaluate) -> None:
    evaluate()
    (run,) = runs("evaluate")
    params = {name: value for name, value in run.row.items() if name != "seeds"}
    found = {run_key("evaluate", run.key, params, 1): ("7", "abc"), "evaluate/other": ("7", "def")}
    assert tracked.matched([run], found, "http://host") == [
        tracked.Tracked("evaluate", run.key, 1, "abc", "http://host/#/experiments/7/runs/abc")
    ]


def test_a_store_that_is_not_there_or_does_not_answer_costs_nothing(
    evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate()
    tabulate()
    monkeypatch.delenv("EDC_TRACKING")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracked.tracked_runs(runs("evaluate")) is None
    assert not Path("mlflow.db").exists()
    Path("mlflow.db").touch()

    def fail(uri: str) -> None:
        raise ConnectionError(uri)

    monkeypatch.setattr(tracked, "known", fail)
    assert tracked.tracked_runs(runs("evaluate")) is None
    assert "wrote" in write_report(Path("report.html"))


def test_links_to_a_server_carry_no_password() -> None:
    assert tracked.served("https://me:secret@host:5000/mlflow/?a=b") == "https://host:5000/mlflow"
    assert tracked.served("sqlite:///mlflow.db") == tracked.LOCAL
