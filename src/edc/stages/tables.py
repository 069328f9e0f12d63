"""Stage tables: the finished runs of the plan go into the record, and every table and figure is made from the record.

All of it lies in ``results/`` and in Git: a fresh clone makes the same bytes without any run.
"""

from __future__ import annotations

import pandas as pd

from edc.config.rows import Plan
from edc.reporting import correctness, record
from edc.reporting.answer import answer_page, answers, compared
from edc.reporting.applications import applications
from edc.reporting.collect import collect
from edc.reporting.evaluations import evaluations
from edc.reporting.figure2 import draw_figure2, figure2, recorded
from edc.reporting.figures import accuracy_over_bytes, accuracy_over_ipc, draw_applications, save_figure
from edc.reporting.pages import page
from edc.reporting.paper import read_reported
from edc.reporting.quality import quality
from edc.reporting.tables import tables
from edc.stages.copies import learning, measurements, share_condensed_sets
from edc.stages.versions import VERSIONS
from edc.storage import RESULTS, write_json, write_text


def run(plan: Plan) -> None:
    """Write the record, the tables as CSV and Markdown, the figures, the metrics, and copies for people.

    Raises:
        EdcError: a finished run or the record is damaged, or two runs are the same cell; nothing is written then.
    """
    frame = record.merge(record.read(), collect(plan), VERSIONS)
    rows = record.comparable(frame)
    correct = correctness.merge(correctness.read(), correctness.collect(plan), frame)
    courses, measured = learning(plan, frame), measurements(plan, frame)
    analysed = recorded(measured, rows)
    right = correctness.by_run(correct, rows)
    cells = evaluations(rows, "test", right, courses)
    made = tables(cells, read_reported()) | applications(rows)
    made |= {"quality": quality(rows), "figure2": figure2(analysed)}
    texts = {f"{name}.csv": table.to_csv(index=False, lineterminator="\n") for name, table in made.items()}
    texts |= {f"{name}.md": page(name, table, cells, list(plan.datasets)) for name, table in made.items()}
    answered = answers(plan, compared(plan, rows, right, courses))
    texts["answer.md"] = answer_page(answered)
    record.write(frame)
    correctness.write(correct)
    for name, text in texts.items():
        write_text(RESULTS / "tables" / name, text)
    write_json(RESULTS / "metrics.json", metrics(cells, plan))
    for name, history in {"learning": courses, **measured}.items():
        write_text(record.history(name), history.to_csv(index=False, lineterminator="\n"))
    save_figure(RESULTS / "figures/accuracy.png", accuracy_over_ipc({a.heading: a.cells for a in answered}))
    save_figure(RESULTS / "figures/equal_bytes.png", accuracy_over_bytes(made["equal_bytes"]))
    draw_applications(RESULTS / "figures", made["continual"], made["slimming"])
    draw_figure2(RESULTS / "figures", analysed)
    share_condensed_sets(plan)


def metrics(cells: pd.DataFrame, plan: Plan) -> dict[str, dict[str, float]]:
    """Test accuracy in percent by dataset and cell, for ``dvc metrics`` and ``dvc exp show``: a table a screen holds.

    Of the plan's evaluations those of each recipe with its own protocol, means over the seeds; all stand in ``tables``.
    """
    values: dict[str, dict[str, float]] = {}
    for cell in cells[cells["own"] & (cells["variant"] == "") & cells["run"].isin(list(plan.evaluate))].to_dict(
        "records"
    ):
        name = f"{cell['recipe']} ipc{cell['ipc'] or '_all'} {cell['student']}"
        values.setdefault(cell["dataset"], {})[name] = round(cell["final_mean"], 4)
    return values
