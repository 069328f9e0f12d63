"""The command line: one command per stage, and those that plan, track and describe.

Nothing heavy is imported before a command needs it, so help answers at once.
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Annotated

import typer

from edc import STAGES, __version__
from edc.cli.finished import track, verify
from edc.errors import EdcError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Condense labelled image datasets into a few images per class, evaluate them, and compare methods.",
)

Keys = Annotated[
    list[str] | None,
    typer.Option("--run", help="Only this run, a key of the stage in params.yaml. May be repeated.", metavar="KEY"),
]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", min=1, metavar="N", help="Parallel runs. Default: as many as the GPUs or cores allow."),
]
Force = Annotated[bool, typer.Option("--force", help="Execute runs again even if they are up to date.")]


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of dataset and study: lower-case letters, digits, underscores.")],
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            help="Folder of images: CLASS/*, or train/CLASS/* and test/CLASS/*, or parquet files; or a CSV file with "
            "the columns path and label.",
        ),
    ],
    image_size: Annotated[int, typer.Option(help="Side of the images in pixels.", min=8, max=1024, metavar="N")] = 32,
    minutes: Annotated[
        float, typer.Option("--minutes", min=0, metavar="N", help="Time that the study may take on this machine.")
    ] = 20,
    test_fraction: Annotated[
        float, typer.Option("--test-fraction", metavar="X", help="Share to test on, where the folder has no split.")
    ] = 0.2,
    planned: Annotated[bool, typer.Option("--plan", help="Write params.yaml, too, as `edc plan NAME`.")] = False,
) -> None:
    """Write a dataset file and a study for your own images.

    Decodes the images and prints what it found and decided. The study compares EDC with random, selected and all
    images, as thoroughly as the time allows.
    """
    from edc.bench.first_study import new_study
    from edc.config.files import in_checkout

    in_checkout()
    new_study(name, data, image_size, test_fraction, minutes, typer.echo)
    if planned:
        plan([name])
    else:
        typer.echo(f"next: `edc plan {name}`, then `dvc repro`")
    typer.echo("the answer will be in results/tables/answer.md; `edc report` makes a page of it with pictures")


@app.command()
def plan(
    studies: Annotated[
        list[str] | None,
        typer.Argument(help="Studies in workflow/studies. Without one, all are listed.", metavar="STUDY"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder of the studies' dataset on this machine. It is remembered in .edc/."),
    ] = None,
    cost: Annotated[bool, typer.Option("--cost", help="Print what the studies take, and write nothing.")] = False,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate", metavar="X", help="With --cost: assume TFLOP/s (an H100 reaches about 40), instead of measuring."
        ),
    ] = None,
) -> None:
    """Write the runs of studies to params.yaml. Without a study, list the studies."""
    from edc.config.files import names, read
    from edc.config.plan import make_plan, write_plan

    if not names("studies"):
        raise EdcError("workflow/studies: no studies here; run edc in the root of a checkout")
    if not studies and (cost or data is not None):
        raise EdcError(f"{'--cost' if cost else '--data'}: expected a study")
    if rate is not None and not (cost and rate > 0):
        raise EdcError(f"--rate {rate:g}: expected a number above 0, together with --cost")
    if not studies:
        for name in names("studies"):
            try:
                typer.echo(f"{name:27} {read('studies', name).description}")
            except EdcError as error:
                typer.echo(f"{name:27} {error}")
        return
    made = make_plan(*studies)
    if data is not None:
        from edc.data.roots import remember_root

        families = {dataset.family for dataset in made.datasets.values() if dataset.kind != "digits"}
        if not data.is_dir():
            raise EdcError(f"--data {data}: no such folder")
        if len(families) != 1:
            raise EdcError(
                f"--data {data}: expected one dataset from outside in {' '.join(studies)}, found {len(families)}"
            )
        remember_root(families.pop(), data)
    from edc.bench.dataset_sizes import check_data, check_ipc

    absent = check_data(made)
    check_ipc(made)
    if cost:
        from edc.bench.cost import report
        from edc.bench.rate import machine_rate

        typer.echo(report(made, *(machine_rate(made) if rate is None else (rate, "a device"))))
        return
    if previous := write_plan(made):
        typer.echo(f"the params.yaml that stood here is now {previous}")
    runs = {stage: len(getattr(made, stage)) for stage in STAGES if stage != "tables"}
    typer.echo(f"wrote params.yaml: {', '.join(f'{count} {stage}' for stage, count in runs.items() if count)}")
    for line in absent:
        typer.echo(f"not on this machine: {line}")
    typer.echo("next: `dvc repro`, or `snakemake --cores all --resources gpu=4`, or `edc run`")


@app.command()
def explain(
    run: Annotated[str, typer.Argument(help="A run of params.yaml: STAGE/KEY, or KEY alone if only one stage has it.")],
    key: Annotated[str, typer.Argument(help="A value or section, such as optimiser.lr. Without it, all values.")] = "",
) -> None:
    """Print where the values of a run come from: file, line, layer."""
    from edc.config.explain import explain

    sources = explain(run, key)
    widths = [min(40, max(len(source[i]) for source in sources)) for i in (0, 1)]
    for name, value, where in sources:
        typer.echo(f"{name:{widths[0]}}  {value:{widths[1]}}  {where}")


@app.command("run")
def run_plan(
    jobs: Jobs = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0, metavar="N", help="Stop after N minutes; the next call resumes.")
    ] = None,
    force: Force = False,
) -> None:
    """Execute the plan without DVC or Snakemake.

    Executes every run that is not up to date, then makes the tables.
    """
    from edc.pipeline.stages import run_plan

    run_plan(jobs, minutes, force)


def _stage_command(stage: str) -> None:
    def command(run: Keys = None, jobs: Jobs = None, force: Force = False) -> None:
        from edc.pipeline.stages import run_stage

        run_stage(stage, run, jobs, force)

    app.command(stage, help=f"{STAGES[stage]} Executes the runs of params.yaml that are not up to date.")(command)


for _stage in STAGES:
    if _stage != "tables":
        _stage_command(_stage)


@app.command(help=f"{STAGES['tables']}")
def tables() -> None:
    from edc.pipeline.stages import run_tables

    run_tables()


app.command()(track)
app.command()(verify)


@app.command()
def report(to: Annotated[Path, typer.Option("--to", help="HTML file to write.")] = Path("results/report.html")) -> None:
    """Write the results of the plan as one HTML page."""
    from edc.reporting.report import write_report

    typer.echo(write_report(to))


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="Key of a finished synthesize run.")],
    to: Annotated[Path, typer.Option("--to", help="Folder to write. It must not exist.")],
    layout: Annotated[str, typer.Option("--format", help="Format: folder, parquet, torch, ddranking or fkd.")],
    labels: Annotated[str | None, typer.Option("--labels", help="Key of a finished relabel run of the images.")] = None,
    names: Annotated[
        str,
        typer.Option(help="Class folders: class, index (00000/) or sre2l (new000/class000_id000.png).", metavar="KIND"),
    ] = "class",
) -> None:
    """Write a condensed set as images, parquet files or tensors."""
    from edc.exchange.export import export as write

    typer.echo(f"wrote {write(run, to, layout, labels, names)}")


@app.command("import")
def import_command(
    name: Annotated[str, typer.Argument(help="Name of set and recipe: lower-case letters, digits, underscores.")],
    data: Annotated[
        Path,
        typer.Option(
            "--data", help="An export, an image folder, parquet files, or a .safetensors, .pt, .npy or .npz file."
        ),
    ],
    dataset: Annotated[str, typer.Option("--dataset", help="Dataset that the set was condensed from.")],
    labels: Annotated[
        Path | None,
        typer.Option("--labels", help="Soft labels: file of (N, K) logits or probabilities, or FKD folder."),
    ] = None,
    values: Annotated[
        str | None,
        typer.Option(
            "--values", help="Scale of float images: unit ([0, 1]) or normalised (by the dataset's mean and std)."
        ),
    ] = None,
    classes: Annotated[
        Path | None, typer.Option("--classes", help="File of the classes (N,), if --data holds images alone.")
    ] = None,
    names: Annotated[
        str,
        typer.Option(help="What class folders are named by: class, or index (00000, new000, class_0).", metavar="KIND"),
    ] = "class",
    classes_of: Annotated[
        str | None,
        typer.Option(
            help="Dataset whose classes the set has; those that --dataset lacks are left out.", metavar="DATASET"
        ),
    ] = None,
    ipc: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N images of every class.")] = None,
    clip: Annotated[bool, typer.Option("--clip", help="Clip float images to [0, 1]; prints how many values.")] = False,
) -> None:
    """Import a condensed set made elsewhere as a recipe.

    Studies can then label and evaluate it like any other.
    """
    from edc.config.files import in_checkout
    from edc.exchange.external import Options
    from edc.exchange.importing import import_set

    in_checkout()
    options = Options(labels, values, classes, names, clip, ipc)
    for path in import_set(name, data, dataset, options, classes_of):
        typer.echo(f"wrote {path}")
    typer.echo(f"next: list {name} among the recipes of a study")


@app.command()
def bench(
    dataset: Annotated[
        str, typer.Option("--dataset", help="Dataset whose image size, observers and values are used.")
    ] = "cifar10",
    stage: Annotated[list[str] | None, typer.Option("--stage", help="Only this stage. May be repeated.")] = None,
    network: Annotated[list[str] | None, typer.Option("--network", help="Only this network. May be repeated.")] = None,
    images: Annotated[
        list[int] | None, typer.Option("--images", min=1, metavar="N", help="Images per batch. May be repeated.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="Device: cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option("--threads", min=1, max=256, metavar="N", help="CPU threads.")] = 2,
    seconds: Annotated[float, typer.Option("--seconds", min=0, metavar="N", help="Seconds per case.")] = 10.0,
    recipe: Annotated[
        list[str] | None, typer.Option("--recipe", help="Recipe of synthesis; edc_code by default. May be repeated.")
    ] = None,
    precision: Annotated[str, typer.Option("--precision", help="float32 or bfloat16, of the stages.")] = "float32",
    to: Annotated[Path | None, typer.Option("--to", help="CSV file to write. Default: one in results/bench.")] = None,
) -> None:
    """Measure time and memory of the stages.

    Random images; beside each stage plain passes of its networks.
    """
    from edc.bench import run

    suffix = "" if precision == "float32" else f"-{precision}"
    target = to or run.WHERE / f"{device}-{dataset}{suffix}.csv"
    cases = run.cases(dataset, stage or [], network or [], images or [])
    table = run.run_bench(cases, device, threads, seconds, recipe or ["edc_code"], target, precision)
    typer.echo(run.summary(table).round(2).to_string(index=False))
    typer.echo(f"wrote {target}")


@app.command()
def schema(
    check: Annotated[bool, typer.Option("--check", help="Only check whether they are up to date.")] = False,
) -> None:
    """Write the JSON schemas of the YAML files.

    They are those of params.yaml and of the files in workflow/, and go to workflow/schema/.
    """
    from edc.config.schema import write_schemas

    stale = write_schemas(check)
    if check and stale:
        raise EdcError(f"{', '.join(map(str, stale))}: out of date; run `edc schema`")
    typer.echo("up to date" if not stale else f"wrote {', '.join(map(str, stale))}")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"edc {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point: a mistake in the input, or a place that can't be written to, is one line and exit code 2."""
    try:
        app()
    except EdcError as error:
        print(f"edc: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        print(f"edc: {error.filename or 'a file'}: cannot be written ({error.strerror})", file=sys.stderr)
        raise SystemExit(2) from None
