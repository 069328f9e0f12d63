"""The command line itself: help without heavy imports, version, usage."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version

import pytest

from edc import STAGES

COMMANDS = [*STAGES, "plan", "new", "track", "schema", "export", "import", "report"]
HEAVY = {"torch", "numpy", "pandas", "mlflow", "dvc", "yaml", "edc.config.rows", "edc.config.plan", "edc.stages.context"}

HELP = """
import json, sys
from edc.cli import main
sys.argv = ["edc", *{words!r}]
try:
    main()
except SystemExit as end:
    code = end.code
print(json.dumps([code, sorted(sys.modules)]))
"""


@pytest.mark.parametrize("words", [["--help"], *([command, "--help"] for command in COMMANDS)], ids=" ".join)
def test_help_answers_without_loading_anything_heavy(planned, words):
    said = planned.ok(sys.executable, "-c", HELP.format(words=words))
    code, modules = json.loads(said.splitlines()[-1])
    assert not code
    assert "Usage: edc" in said
    assert not HEAVY & set(modules)


def test_help_names_every_command(planned):
    said = planned.ok("edc", "--help")
    assert all(f"\n  {command} " in said for command in COMMANDS)


def test_version(planned):
    assert planned.ok("edc", "--version").strip() == f"edc {version('edc')}"


@pytest.mark.parametrize("command", STAGES)
def test_a_stage_without_its_run_is_a_usage_error(planned, command):
    done = planned.run("edc", command)
    assert done.returncode == 2
    assert f"Usage: edc {command}" in done.stderr
    assert "--run" in done.stderr


def test_an_unknown_command_is_a_usage_error(planned):
    done = planned.run("edc", "pretrian")
    assert done.returncode == 2
    assert "pretrian" in done.stderr
    assert "Traceback" not in done.stderr
