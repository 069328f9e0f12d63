"""Commands on finished runs: record them in MLflow, or execute them again and compare."""

from __future__ import annotations

import sys
from typing import Annotated

import typer


def track() -> None:
    """Record finished runs that MLflow lacks.

    MLFLOW_TRACKING_URI says where, by default in mlflow.db. EDC_TRACKING=off switches it off.
    """
    from edc import tracking
    from edc.config.references import load_plan

    if not tracking.enabled():
        typer.echo("tracking is off (EDC_TRACKING)")
        return
    try:
        typer.echo(tracking.sync(load_plan(), strict=True) or "tracking: no run of params.yaml is finished")
    except tracking.TrackingError as error:
        print(f"edc: {error}", file=sys.stderr)
        raise typer.Exit(1) from None


def verify(
    run: Annotated[
        list[str] | None, typer.Option("--run", help="Only this run, KEY or STAGE/KEY. May be repeated.", metavar="KEY")
    ] = None,
    sample: Annotated[
        int | None, typer.Option("--sample", min=1, metavar="N", help="Only N runs, drawn at random.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, metavar="N", help="Parallel runs. Default: as many as the GPUs or cores allow."),
    ] = None,
) -> None:
    """Execute recorded runs again and compare.

    Evaluations and applications of the plan that are in results/runs.csv, in a scratch folder. Exit code 1 if one does
    not hold.
    """
    from edc.pipeline.verify import verify

    table = verify(run, sample, jobs)
    typer.echo(table.to_string(index=False, float_format="{:.2f}".format))
    wrong, single = (table["holds"] == "no").sum(), (table["holds"] == "one seed").sum()
    typer.echo(
        f"{len(table) - wrong - single} of {len(table)} hold" + (f", {single} cannot be judged" if single else "")
    )
    if wrong:
        raise typer.Exit(1)
