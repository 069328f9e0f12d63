"""The command line: help without heavy imports, version, usage, unknown runs, nothing to do."""

import json
import subprocess
import sys
from importlib.metadata import version

import pytest
from support import laboratory as lab

from edc import STAGES
from edc.config.plan import write_plan

COMMANDS = [*STAGES, "plan", "run", "explain", "new", "track", "schema", "export", "import", "report", "bench"]
HEAVY = {"torch", "numpy", "pandas", "mlflow", "dvc", "matplotlib", "sklearn"}
PROGRAM = """
import json, sys
from edc.cli import main
code = 0
for words in json.loads(sys.argv[1]):
    sys.argv = ["edc", *words]
    try:
        main()
    except SystemExit as end:
        code = max(code, end.code or 0)
print(json.dumps([code, sorted(sys.modules)]))
"""


def edc(*commands):
    """Run commands in one process: the largest exit code, output, errors, imported modules."""
    command = [sys.executable, "-c", PROGRAM, json.dumps(commands)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *output, last = done.stdout.splitlines()
    code, modules = json.loads(last)
    return code, "\n".join(output), done.stderr, set(modules)


def test_help_is_printed_without_heavy_imports():
    code, output, errors, modules = edc(["--help"], *([command, "--help"] for command in COMMANDS))
    assert (code, errors) == (0, "")
    assert all(f"\n  {command} " in output for command in COMMANDS)
    assert all(f"Usage: edc {command} " in output for command in COMMANDS)
    assert not modules & (HEAVY | {"yaml", "edc.config.rows", "edc.stages.context"})
    assert edc(["--version"])[1] == f"edc {version('edc-condensation')}"


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """A folder with a plan alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDC_TRACKING", "off")
    write_plan(lab.plan())
    return tmp_path


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage not in ("tables", "analysis")])
def test_an_unknown_run_is_refused_in_one_line(planned, stage):
    code, _, errors, modules = edc([stage, "--run", "observe"])
    assert (code, len(errors.splitlines())) == (2, 1)
    assert errors.startswith(f"edc: params.yaml: unknown {stage} run 'observe'; ")
    assert stage != "pretrain" or "did you mean 'observer'?" in errors
    assert [path.name for path in planned.iterdir()] == ["params.yaml"]
    assert not modules & HEAVY


def test_a_stage_with_nothing_to_do_imports_nothing_heavy(planned):
    for stage in ("pretrain", "statistics"):
        lab.execute(lab.plan(), stage, lab.PREPARED[stage])
    code, output, errors, modules = edc(["statistics"], ["pretrain", "--run", "observer"])
    assert (code, output) == (0, "")
    assert errors.splitlines() == [f"edc: {stage}: up to date, 1 run(s)" for stage in ("statistics", "pretrain")]
    assert not modules & HEAVY
