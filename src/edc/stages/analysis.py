"""Stage analysis: why the choices work, EDC's Figure 2 measured on our own runs, and the quality of condensed sets."""

from __future__ import annotations

from typing import Any

from edc.stages import quality
from edc.stages.context import Context
from edc.stages.figure2 import TABLES, Measurements
from edc.stages.progress import ProgressLog


def run(context: Context) -> None:
    """The kind of analysis that the row names."""
    {"figure2": figure2, "quality": quality.run}[context.row.kind](context)


def figure2(context: Context) -> None:
    """Category-aware matching on a toy, curvature of synthesis, sharpness of students, gradients of small batches.

    What is compared differs in one choice alone: the iterates with and without the regulariser have start and draws in
    common, the students with and without the smoothing schedule their initial weights, images and labels. The test set
    is not read.
    """
    measurements = Measurements(context)
    results = context.resume() or {}
    bar = ProgressLog(len(TABLES), f"analysis {context.key}", len(results.keys() & TABLES), "part")
    for name in TABLES:
        if name not in results:
            results[name] = getattr(measurements, name)(results)
            context.checkpoint(lambda: results, now=True)
            bar.update()
    scores: dict[str, Any] = {}
    for name, columns in TABLES.items():
        context.write_table(f"{name}.csv", columns, results[name]["rows"])
        scores |= results[name]["scores"]
    measurements.draw(results)
    context.finish([f"{name}.csv" for name in TABLES], dataset_digest=measurements.digest, scores=scores)
