# The DAG of the active plan, run in parallel. The runs themselves are listed in src/edc/dag.py, for DVC and for here.
# Defaults stand in profiles/default/profile.yaml.
import sys

from edc import STAGES
from edc.errors import EdcError
from edc.snake import Tasks, benchmark_file

try:
    TASKS = Tasks()
except EdcError as error:
    sys.exit(f"edc: {error}")


rule all:
    default_target: True
    input:
        TASKS.targets,


for stage in STAGES:

    include: f"workflow/rules/{stage}.smk"


onsuccess:
    TASKS.commit()


onerror:
    TASKS.commit()
