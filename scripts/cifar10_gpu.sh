#!/usr/bin/env bash
# A study on a GPU machine that has Python, PyTorch and pandas but no runner, no tracker and no Git repository.
#
#   scripts/cifar10_gpu.sh prepare     at home, before the checkout is copied: writes its commit down in .edc-commit
#   scripts/cifar10_gpu.sh [MINUTES]   there: runs what is not done yet for so long (default 9), then packs what is done
#
# Called again, it goes on where it ended, in the middle of a run too. The packed results lie in $OUT (default
# results-gpu) and come home with `edc unpack`. What else may be set: EDC_DATA_CIFAR10 (the folder of the parquet
# files), STUDY (default cifar10), JOBS (runs at once, default 4: they use what one leaves idle, but eleven that took
# turns were slower than one after the other), EDC_RUNS_PER_GPU (how many of them share a GPU, default JOBS), ONLY
# (patterns of run names, separated by blanks; what they need is run and packed too), LARGEST_MB (of the large files
# packed, default 4).
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-python3}

if [ "${1:-}" = prepare ]; then
  "$python" -c 'from edc.tracking.provenance import note; note()'
  exit
fi

study=${STUDY:-cifar10} jobs=${JOBS:-4} out=${OUT:-results-gpu}
export EDC_RUNS_PER_GPU=${EDC_RUNS_PER_GPU:-$jobs}
only=()
set -f # the patterns are of runs, not of files
for pattern in ${ONLY:-}; do only+=(--only "$pattern"); done
set +f

"$python" -m edc plan "$study" >/dev/null
failed=0
"$python" -m edc run --minutes "${1:-9}" --jobs "$jobs" "${only[@]}" || failed=$?
"$python" -m edc pack "$out" --largest-mb "${LARGEST_MB:-4}" "${only[@]}" || failed=1

"$python" - <<'EOF'
from pathlib import Path

from edc import dag
from edc.current import current
from edc.loading import load_plan
from edc.storage import read_json

plan = load_plan()
done = [task for task in dag.tasks(plan) if task.stage == "evaluate" and current(plan, task)]
print(f"{'recipe':24} {'ipc':>4} {'student':18} {'protocol':12} last")
for task in done:
    row, scores = plan.evaluate[task.key], read_json(Path(dag.folder(task.stage, task.key)) / "manifest.json")["scores"]
    name = f"{row.recipe} {row.variant}".strip()
    deviation = f" ± {scores['last_std']:.1f}" if scores["last_std"] is not None else ""
    print(f"{name:24} {row.ipc or 'all':>4} {row.student:18} {row.protocol:12} {scores['last_mean']:.1f}{deviation}")
print(f"{len(done)} of {len(plan.evaluate)} evaluations, on {'/'.join(sorted({r.judge for r in plan.evaluate.values()}))}")
EOF
exit "$failed"
