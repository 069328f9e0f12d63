"""The page: sections with anchors, a table of contents, everything inline."""

from __future__ import annotations

import base64
import hashlib
import struct
from collections import Counter
from importlib.resources import files
from typing import Any

from edc.reporting.figure4 import PAPER
from edc.reporting.markdown import BEST, ELSEWHERE, HEADINGS, NOTES, PERCENT, images, title
from edc.reporting.report import plots, summary
from edc.reporting.report.charts import charts
from edc.reporting.report.gather import Results, Run
from edc.reporting.report.markup import Html, element
from edc.reporting.report.notes import Notes
from edc.reporting.report.tabular import Cell, sections, table_of
from edc.reporting.report.tracked import Tracked
from edc.reporting.tabulate import Table

BESIDE = {
    "table1": (
        "random: random real images taught alike; gain: last minus that. fixed and hard labels: the same "
        "images under the other two label regimes. s: seconds of the evaluation, all seeds; s to make: of the images "
        "and labels."
    ),
    "continual": (
        "accuracy: on the test images of all classes seen after the step; average: of all steps; forgetting: by how "
        "many points the portions end below their best; gain: accuracy minus that of random real images."
    ),
    "slimming": f"gain: fine-tuned minus random real images' at the same ratio; macs: of one image. {PAPER}",
}
BOLD = f"{BEST} Empty: nothing ran."


def page(results: Results, tracked: list[Tracked] | None) -> str:
    """The whole document."""
    name = f"Dataset condensation: study {results.study}" if results.study else "Dataset condensation"
    parts = [
        ("summary", "Summary", overview(results)),
        ("tables", "Tables", all_tables(results)),
        ("applications", "Applications", applied(results)),
        ("figures", "Figures", figures(results)),
        ("images", "Condensed images", contact_sheets(results)),
        ("plan", "Plan", plan(results)),
        ("provenance", "Environment and provenance", provenance(results)),
        ("runs", "Tracked runs", tracked_runs(tracked)),
    ]
    shown = [(anchor, heading, content) for anchor, heading, content in parts if content]
    links = [element("li", element("a", heading, href=f"#{anchor}")) for anchor, heading, _ in shown]
    contents = element("nav", element("ul", *links), aria_label="Contents")
    body = [element("section", element("h2", heading), *content, id=anchor) for anchor, heading, content in shown]
    top = element(
        "header", element("h1", name), element("p", "Accuracy and cost of condensed image sets, measured here.")
    )
    return document(
        name, [element("a", "To the content", href="#summary", class_="skip"), top, contents, element("main", *body)]
    )


def document(name: str, body: list[Html]) -> str:
    """Head and body. The policy lets nothing in from outside and runs no script but the page's own."""
    style, script = (files("edc.reporting.report").joinpath(file).read_text(encoding="utf-8") for file in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {hashed(style)}; script-src {hashed(script)}; base-uri 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("title", name),
        element("style", Html(style)),
    )
    made = element("html", head, element("body", *body, element("script", Html(script))), lang="en-GB")
    return f"<!doctype html>\n{made}\n"


def hashed(content: str) -> str:
    """A piece of the page as its policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def overview(results: Results) -> list[object]:
    """What ran, and EDC against random images."""
    return [
        element("h3", "EDC against random real images"),
        *summary.against_random(summary.comparisons(results.rows("table1"))),
        element("h3", "What ran"),
        summary.facts(results),
    ]


def all_tables(results: Results) -> list[object]:
    """Every table that has rows."""
    parts: list[object] = []
    if results.stale:
        said = f"The results have changed since these tables were written: {', '.join(results.stale)}. "
        parts.append(
            element(
                "p", said, "Write them again with ", element("code", "edc tables --run STUDY"), ".", class_="warning"
            )
        )
    parts.append(
        element("p", "A click on the head of a column sorts by it, a second one the other way round.", class_="small")
    )
    for name, table in results.tables.items():
        if table.rows:
            heading = {"cost": "Cost of every run"}.get(name, HEADINGS.get(name, name))
            notes = Notes(name)
            parts.append(element("h3", heading, id=f"tables-{name}"))
            parts += sections(name, with_seconds(results, table) if name == "table1" else table, notes)
            parts.append(element("p", below(name, table), class_="small"))
            parts.append(notes.below())
    return parts


def below(name: str, table: Table) -> str:
    """What a reader must know of a table."""
    if name == "cost":
        return "Seconds, peak memory and commit of every run; no runner compares these."
    said = [NOTES.get(name, PERCENT), BESIDE.get(name, "")]
    said += [ELSEWHERE if "reported_imagenet1k" in table.columns else "", BOLD, f"File: results/tables/{name}.csv."]
    return " ".join(filter(None, said))


def with_seconds(results: Results, table: Table) -> Table:
    """Table 1 with what every row took."""
    runs = {(*one.cell, one.protocol): one.run for one in results.evaluations if not one.variant}
    rows = {run.key: run.row for run in results.of("evaluate")}
    made = []
    for row in table.rows:
        run = runs.get(tuple(row[name] for name in ("dataset", "recipe", "ipc", "student", "protocol")))
        extra: dict[str, float | None] = {"seconds": None, "seconds_to_make": None}
        if run is not None and row["seeds"] is not None:
            parts = [("synthesize", rows[run].get("images")), ("relabel", rows[run].get("labels"))]
            taken = [results.seconds.get((stage, name)) for stage, name in parts if name]
            extra["seconds"] = results.seconds.get(("evaluate", run))
            extra["seconds_to_make"] = None if None in taken or not taken else sum(value or 0 for value in taken)
        made.append(row | extra)
    return Table((*table.columns, "seconds", "seconds_to_make"), made)


def applied(results: Results) -> list[object]:
    """Continual learning and slimming, where they ran."""
    parts: list[object] = []
    for heading, name, drawn in (
        ("Continual learning", "continual", plots.incremental(results)),
        ("Network slimming", "slimming", plots.slimmed(results)),
    ):
        if figure := charts(drawn):
            link = element("a", "The numbers", href=f"#tables-{name}")
            parts += [element("h3", heading), figure, element("p", link, class_="small")]
    return parts


def figures(results: Results) -> list[object]:
    """Accuracy against cost, learning curves, and figures of no single run."""
    parts: list[object] = []
    for heading, drawn in (
        ("Accuracy against cost", charts(plots.trade_offs(results))),
        ("Learning curves", charts(plots.learning_curves(results))),
    ):
        if drawn:
            parts += [element("h3", heading), drawn]
    if results.pictures:
        shown = [picture(content, path, path) for path, content in results.pictures.items()]
        parts += [element("h3", "Analyses"), element("div", *shown, class_="pictures")]
    return parts


def contact_sheets(results: Results) -> list[object]:
    """Condensed images beside real ones, by dataset."""
    parts: list[object] = []
    for dataset in sorted({run.row["dataset"] for run in results.of("synthesize")}):
        shown = []
        runs = [run for run in results.of("synthesize") if run.row["dataset"] == dataset]
        for run in sorted(runs, key=lambda run: (run.row.get("ipc") or 0, run.key)):
            if content := run.picture("contact_sheet.png"):
                name = f"{run.row.get('recipe')}, IPC {images(run.row.get('ipc') or 0)}"
                about = f"Images of {name}, {title(dataset)}: condensed left, real right, one row a class"
                shown.append(picture(content, about, name))
        if shown:
            parts += [element("h3", title(dataset)), element("div", *shown, class_="pictures")]
    if parts:
        parts.insert(0, element("p", "Left the condensed images, right real ones, a row a class.", class_="small"))
    return parts


def picture(content: bytes, about: str, caption: str) -> Html:
    """A PNG with its caption."""
    width, height = struct.unpack(">II", content[16:24])
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    image = element("img", src=source, alt=about, width=width, height=height)
    return element("figure", element("figcaption", element("strong", caption)), image, class_="picture")


def plan(results: Results) -> list[object]:
    """``params.yaml``, folded."""
    if not results.plan:
        return []
    text = element("pre", element("code", results.plan), tabindex="0")
    return [element("details", element("summary", "params.yaml: every run with every value"), text)]


def provenance(results: Results) -> list[object]:
    """With what and from which code the results were made."""

    def counted(name: str, runs: list[Run] = results.runs) -> str:
        found = Counter(str(run.made.get(name) or "not recorded") for run in runs)
        return ", ".join(f"{value} ({count} runs)" for value, count in sorted(found.items()))

    seeds = sorted(
        {
            (stage, run.row["seed"])
            for stage in ("pretrain", "synthesize")
            for run in results.of(stage)
            if "seed" in run.row
        }
    )
    listed: dict[str, Any] = {
        "Commit": counted("commit"),
        "Uncommitted changes": counted("dirty"),
        "Device": counted("device"),
        "torch": counted("torch"),
        "Python": counted("python"),
        "Seeds": ", ".join(f"{stage} {seed}" for stage, seed in seeds) or "not recorded",
    }
    runs = [run for run in results.runs if isinstance(run.row.get("dataset"), str)]
    digests = sorted({(run.row["dataset"], str(run.manifest["dataset_digest"])) for run in runs})
    rows = [[Cell(title(name)), Cell(element("code", digest[:16]))] for name, digest in digests]
    return [
        summary.definitions(listed),
        table_of("Training images", ["dataset", "digest of the training images"], rows),
    ]


def tracked_runs(tracked: list[Tracked] | None) -> list[object]:
    """Run ids in MLflow."""
    if not tracked:
        return []
    rows = [
        [
            Cell(one.stage),
            Cell(one.run),
            Cell("" if one.seed is None else one.seed, one.seed),
            Cell(element("a", element("code", one.run_id), href=one.link)),
        ]
        for one in tracked
    ]
    said = [
        "The newest finished run of each row and seed in MLflow. ",
        element("code", "make ui"),
        " shows a local store.",
    ]
    return [element("p", *said, class_="small"), table_of("Tracked runs", ["stage", "run", "seed", "run_id"], rows)]
