# The pipeline as jobs, for many GPUs or a cluster:  snakemake --cores all --resources gpu=4
#
# One rule per stage. A job makes one run, or with --config minutes=5 as many short runs as take so long; {key} is the
# first of them, a row of the stage in params.yaml. `dvc repro` makes the same runs, stage by stage. Which runs are stale
# is read from their manifests (edc.pipeline.status), so that Snakemake, DVC and `edc run` agree. Each job leaves a flag,
# because Snakemake deletes what a job declares before it starts: a run can resume, and one that turns out to be up to
# date ends at once.
import os
import sys
from pathlib import Path

from edc import STAGES
from edc.pipeline.snakemake import flag, jobs_of, keep_needed_variables, pass_signals_on, read_jobs, write_jobs

TABLES = "runs/tables/done"

if workflow.is_main_process:
    from edc.config.references import load_plan
    from edc.errors import EdcError
    from edc.pipeline.stages import finish, track
    from edc.pipeline.status import stale, tables_up_to_date
    from edc.storage.planlock import hold_plan

    hold_plan()
    try:
        PLAN = load_plan()
        STALE = stale(PLAN)
        if "minutes" in config:
            from edc.bench.jobs import batched

            JOBS = batched(PLAN, STALE, config["minutes"], config.get("tflops"))
        else:
            JOBS = jobs_of(PLAN, (([run], 1440, 6000) for run in STALE))
    except EdcError as error:
        sys.exit(f"edc: {error}")
    UP_TO_DATE = not STALE and tables_up_to_date(PLAN)
    for path in [TABLES, *map(flag, JOBS)]:
        Path(path).unlink(missing_ok=True)
else:  # a job, for which nothing is decided again
    JOBS, UP_TO_DATE = read_jobs(), False

ENVIRONMENT = dict(os.environ)


def job(stage, value, doubled=False):
    """A value of a job; twice as much each time it is submitted again."""
    if doubled:
        return lambda wildcards, attempt: getattr(JOBS[stage, wildcards.key], value) * 2 ** (attempt - 1)
    return lambda wildcards: getattr(JOBS[stage, wildcards.key], value)


rule all:
    default_target: True
    input: "params.yaml" if UP_TO_DATE else TABLES


for stage in STAGES:
    if stage == "tables":
        continue

    rule:
        name: stage
        input: job(stage, "after")
        output: touch(f"runs/{stage}/{{key}}/done")
        log: f"logs/{stage}/{{key}}.log"
        threads: job(stage, "threads")
        resources:
            gpu=job(stage, "gpu"),
            mem_mb=job(stage, "memory", doubled=True),
            runtime=job(stage, "minutes", doubled=True),
        params: stage=stage, runs=job(stage, "runs")
        # MLflow is synchronised once, at the end.
        shell: "EDC_TRACKING=off edc {params.stage} $(printf ' --run %s' {params.runs}) 2> {log}"


rule tables:
    localrule: True
    input: [flag(run) for run in JOBS]
    output: touch(TABLES)
    log: "logs/tables.log"
    shell: "EDC_TRACKING=off edc tables 2> {log}"


onstart:
    write_jobs(JOBS)
    pass_signals_on()
    if workflow.non_local_exec:
        keep_needed_variables()


onsuccess:
    os.environ.update(ENVIRONMENT)
    try:
        finish(PLAN)
    except EdcError as error:  # Snakemake would show it as a fault of this file
        print(f"edc: {error}", file=sys.stderr)


onerror:
    os.environ.update(ENVIRONMENT)
    track(PLAN)
