# The DAG of the active plan, run in parallel. The runs themselves are listed in src/edc/dag.py, for DVC and for here.
# Defaults stand in profiles/default/profile.yaml. Seconds and memory of a run stand in its run.json: Snakemake's own
# benchmarks walk the memory maps of each job twice a second, a seventh of two cores.
import sys

from edc import STAGES
from edc.errors import EdcError
from edc.pipeline.snake import Tasks

try:
    TASKS = Tasks()
except EdcError as error:
    sys.exit(f"edc: {error}")


def shown(task):
    """What a run leaves, with its pictures and tables marked for `snakemake --report`."""
    files, looked_at = [], (".png", ".csv") if task.stage == "tables" else (".png",)
    for path in TASKS.outputs(task):
        labels = {"run": task.key, "file": path.rpartition("/")[2]}
        files.append(report(path, category=task.stage, labels=labels) if path.endswith(looked_at) else path)
    return files


rule all:
    default_target: True
    input:
        TASKS.targets,


for stage in STAGES:

    include: f"workflow/rules/{stage}.smk"


onstart:
    if workflow.local_exec:  # jobs that a scheduler places run in what it gives them
        TASKS.warm()


onsuccess:
    TASKS.commit()


onerror:
    TASKS.commit()
