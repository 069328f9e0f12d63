# The pipeline run by run, for many GPUs or a cluster:  snakemake --cores all --resources gpu=4
#
# One rule per stage; {key} is a row of that stage in params.yaml. `dvc repro` makes the same runs, stage by stage. Which
# runs are stale is read from their manifests (edc.pipeline.status), so that Snakemake, DVC and `edc run` agree. Each job
# leaves a flag, because Snakemake deletes what a job declares before it starts: a run can resume, and one that turns out
# to be up to date ends at once.
import sys
from pathlib import Path

from edc.config.references import load_plan
from edc.errors import EdcError
from edc.pipeline.snakemake import pass_signals_on
from edc.pipeline.stages import finish, track
from edc.pipeline.status import stale, tables_up_to_date
from edc.storage.planlock import hold_plan

hold_plan()
try:
    PLAN = load_plan()
except EdcError as error:
    sys.exit(f"edc: {error}")

STALE = dict.fromkeys(stale(PLAN))
GPUS = 0 if PLAN.machine.device == "cpu" else 1
TABLES = "runs/tables/done"


def flag(run):
    return "runs/{}/{}/done".format(*run)


def upstream(stage):
    """Flags of the stale runs that a run builds on."""
    return lambda wildcards: [flag(run) for run in PLAN.upstream(stage, wildcards.key) if run in STALE]


if workflow.is_main_process:  # not the jobs, which parse this file while others finish
    for path in [TABLES, *map(flag, STALE)]:
        Path(path).unlink(missing_ok=True)


rule all:
    default_target: True
    input: TABLES if STALE or not tables_up_to_date(PLAN) else "params.yaml"


rule pretrain:
    input: upstream("pretrain")
    output: touch("runs/pretrain/{key}/done")
    log: "logs/pretrain/{key}.log"
    threads: PLAN.machine.threads
    resources: gpu=GPUS, mem_mb=6000, runtime=1440
    params: stage="pretrain"
    shell: "edc {params.stage} --run {wildcards.key} 2> {log}"


use rule pretrain as statistics with:
    input: upstream("statistics")
    output: touch("runs/statistics/{key}/done")
    log: "logs/statistics/{key}.log"
    params: stage="statistics"


use rule pretrain as synthesize with:
    input: upstream("synthesize")
    output: touch("runs/synthesize/{key}/done")
    log: "logs/synthesize/{key}.log"
    params: stage="synthesize"


use rule pretrain as relabel with:
    input: upstream("relabel")
    output: touch("runs/relabel/{key}/done")
    log: "logs/relabel/{key}.log"
    params: stage="relabel"


use rule pretrain as evaluate with:
    input: upstream("evaluate")
    output: touch("runs/evaluate/{key}/done")
    log: "logs/evaluate/{key}.log"
    params: stage="evaluate"


use rule pretrain as continual with:
    input: upstream("continual")
    output: touch("runs/continual/{key}/done")
    log: "logs/continual/{key}.log"
    params: stage="continual"


use rule pretrain as slimming with:
    input: upstream("slimming")
    output: touch("runs/slimming/{key}/done")
    log: "logs/slimming/{key}.log"
    params: stage="slimming"


use rule pretrain as analysis with:
    input: upstream("analysis")
    output: touch("runs/analysis/{key}/done")
    log: "logs/analysis/{key}.log"
    params: stage="analysis"


rule tables:
    localrule: True
    input: [flag(run) for run in STALE]
    output: touch(TABLES)
    log: "logs/tables.log"
    shell: "edc tables 2> {log}"


onstart:
    pass_signals_on()


onsuccess:
    try:
        finish(PLAN)
    except EdcError as error:  # Snakemake would show it as a fault of this file
        print(f"edc: {error}", file=sys.stderr)


onerror:
    track(PLAN)
