"""``edc report``: everything in ``results/`` as one page that needs nothing but a browser."""

from __future__ import annotations

from pathlib import Path

from edc.storage import write_text

__all__ = ["write_report"]


def write_report(to: Path) -> str:
    """Write the report, whole or not at all; the same results give the same bytes.

    Args:
        to: an HTML file.

    Returns:
        What was written, in a line.

    Raises:
        EdcError: there are no results, one is damaged, or the file cannot be written; an older report stays.
    """
    from edc.reporting.report.gather import gather
    from edc.reporting.report.page import page
    from edc.reporting.report.tracked import tracked_runs

    results = gather()
    text = page(results, tracked_runs(results.runs))
    write_text(to, text)
    tables = sum(bool(table.rows) for table in results.tables.values())
    return f"wrote {to}: {len(results.runs)} runs, {tables} tables, {len(text.encode()) / 1e6:.1f} MB"
