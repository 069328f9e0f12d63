"""One DAG, two runners: whichever ran, the other finds nothing to do; an edit makes the same runs stale in both."""

from __future__ import annotations

import csv
import re

import pytest
import yaml
from checkout import REPOSITORY, Checkout
from dvc.dependency import ParamsDependency
from dvc.repo import Repo
from samples import STUDY

from edc.snake import Tasks

NOTHING = {"dvc": set(), "snakemake": set()}
RUNNERS = {"dvc": ["dvc", "repro"], "snakemake": ["snakemake", "--cores", "all", "--resources", "gpu=4"]}
EVALUATE = "evaluate.tiny-random-ipc1-convnet_w32-hard_label"
SYNTHESIZE = "synthesize.tiny-edc-ipc1"
RELABEL = "relabel.tiny-random-ipc1-b5-e6"
SHIPPED = sorted(path.stem for path in (REPOSITORY / "workflow/studies").glob("*.yaml"))


@pytest.fixture(params=["by_dvc", "by_snakemake"])
def ran(request, tmp_path) -> Checkout:
    """A checkout to work in where one of the runners has run everything."""
    return request.getfixturevalue(request.param).copy(tmp_path / "project")


def stage_name(row: str) -> str:
    """Name of a row's stage in both runners: ``evaluate.KEY`` -> ``evaluate-KEY``."""
    return row.replace(".", "-", 1)


def lock(checkout: Checkout) -> object:
    """``dvc.lock`` as values: runners differ in the order of its entries."""
    return yaml.safe_load(checkout.path("dvc.lock").read_text())


@pytest.mark.slow
def test_dvc_makes_the_tables(by_dvc):
    rows = list(csv.DictReader(by_dvc.path("results/tables/table1.csv").open()))
    assert [(row["dataset"], row["recipe"], row["protocol"], row["seeds"]) for row in rows] == [
        ("tiny", "edc", "edc", "2"),
        ("tiny", "random", "edc", "2"),
    ]
    assert all(0 < float(row[name]) <= 100 for row in rows for name in ("last_mean", "best_mean", "hard_mean"))
    costs = list(csv.DictReader(by_dvc.path("results/tables/cost.csv").open()))
    runs = {f"{row['stage']}-{row['run']}" for row in costs}
    assert runs == set(by_dvc.stages()) - {"tables-tiny"}
    assert "digits, a few" in by_dvc.path("results/tables/table1.md").read_text()


@pytest.mark.slow
def test_snakemake_makes_the_same_files(by_dvc, by_snakemake):
    runs = [name.split("-", 1) for name in by_dvc.stages() if not name.startswith("tables")]
    for stage, key in runs:
        assert by_snakemake.outputs(stage, key) == by_dvc.outputs(stage, key), f"{stage} {key}"
    tables = [checkout.path("results/tables/table1.csv").read_bytes() for checkout in (by_dvc, by_snakemake)]
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_snakemake_tells_dvc_what_dvc_would_have_found(by_dvc, by_snakemake):
    assert lock(by_snakemake) == lock(by_dvc)


@pytest.mark.slow
def test_when_a_runner_has_finished_both_have_nothing_to_do(ran):
    assert ran.stale() == NOTHING


@pytest.mark.slow
def test_a_forced_second_run_leaves_the_lock_as_it_was(done):
    before = done.path("dvc.lock").read_bytes()
    said = done.ok("dvc", "repro", "--force")
    assert said.count("> edc ") == len(done.stages())
    assert done.path("dvc.lock").read_bytes() == before


@pytest.mark.slow
def test_an_edit_makes_the_same_runs_stale_in_both_and_nothing_once_reverted(ran):
    text = ran.path("params.yaml").read_text()
    every = set(ran.stages())
    edits: dict[str, tuple[object, set[str]]] = {
        f"{EVALUATE}.optimiser.lr": (0.02, {stage_name(EVALUATE)}),
        f"{SYNTHESIZE}.match.weight": (0.02, {stage_name(SYNTHESIZE)}),
        "tables.tiny.evaluate": (ran.plan()["tables"]["tiny"]["evaluate"][::-1], {"tables-tiny"}),
        "machine.threads": (2, every - {"tables-tiny"}),
    }
    found, expected = {}, {}
    for name, (value, roots) in edits.items():
        ran.edit("params.yaml", {name: value})
        found[name] = ran.stale()
        expected[name] = dict.fromkeys(RUNNERS, ran.with_downstream(roots))
        ran.path("params.yaml").write_text(text)
    found["reverted"], expected["reverted"] = ran.stale(), NOTHING
    assert found == expected


@pytest.mark.slow
@pytest.mark.parametrize("runner", RUNNERS)
def test_an_edit_run_by_the_other_runner_is_done_for_the_first(by_dvc, by_snakemake, tmp_path, runner):
    first = {"dvc": by_snakemake, "snakemake": by_dvc}[runner]
    project = first.copy(tmp_path / "project")
    project.edit("params.yaml", {f"{RELABEL}.seed": 43})
    said = project.ok(*RUNNERS[runner])
    started = re.findall(r"^(?:localrule |Running stage ')(.+?)'?:$", said, re.MULTILINE)
    assert set(started) - {"all"} == project.with_downstream({stage_name(RELABEL)})
    assert '"seed": 43' in project.path("results", *RELABEL.split("."), "manifest.json").read_text()
    assert project.stale() == NOTHING


@pytest.mark.slow
def test_snakemake_agrees_when_dvc_made_a_run_again_with_the_same_outcome(done):
    # DVC compares contents: what is downstream of a file made again with the same bytes stays as it is.
    with done.path("src/edc/statistics.py").open("a") as source:
        source.write("# a remark that changes no number\n")
    expected = done.with_downstream({"statistics-tiny-p4"})
    assert done.stale() == {"dvc": expected, "snakemake": expected}
    assert done.ok("dvc", "repro").count("> edc ") == 1
    assert done.stale() == NOTHING


@pytest.mark.slow
def test_another_study_runs_only_what_is_new(ran):
    ran.write("workflow/studies/wide.yaml", STUDY | {"students": ["convnet_w32", "convnet_d1"]})
    ran.ok("edc", "plan", "wide")
    new = {name for name in ran.stages() if name.startswith("evaluate-") and "-convnet_d1-" in name}
    assert len(new) == 4
    assert ran.stale() == dict.fromkeys(RUNNERS, new | {"tables-wide"})
    ran.ok("edc", "plan", "tiny")
    assert ran.stale() == NOTHING


def test_snakemake_refuses_a_dag_of_another_plan(project):
    plan = project.plan()
    del plan["evaluate"][EVALUATE.split(".")[1]]
    plan["tables"]["tiny"]["evaluate"].remove(EVALUATE.split(".")[1])
    project.write("params.yaml", plan)
    done = project.run("snakemake", "-n")
    assert done.returncode == 1
    assert "edc: dvc.yaml does not belong to params.yaml; run `edc plan --sync`" in done.stderr.splitlines()


def test_what_snakemake_shows_is_what_dvc_would_run(project):
    done = project.run("snakemake", "-n", "-p")
    pattern = r"^rule (\S+):\n    input: (.+)\n    output: (.+)\n(?:    .+\n)*Shell command: (edc .+?) 2> "
    shown = re.findall(pattern, done.stdout, re.MULTILINE)
    found = {name: (command, set(reads.split(", ")), writes.split(", ")) for name, reads, writes, command in shown}
    stages = project.stages()
    assert set(found) == set(stages)
    for name, (command, reads, writes) in found.items():
        stage = stages[name]
        assert command == stage["cmd"]
        assert reads - {f".edc/plan/{name.replace('-', '/', 1)}.json"} == set(stage["deps"])
        assert writes == stage["outs"]


@pytest.mark.parametrize("study", ["tiny", *SHIPPED])
def test_dvc_and_snakemake_resolve_the_same_dag(project, monkeypatch, study):
    project.ok("edc", "plan", study)
    for name, value in project.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(project.root)
    tasks = {task.name: task for task in Tasks().tasks}
    with Repo(".") as repo:
        stages = {stage.name: stage for stage in repo.index.stages}
    assert set(tasks) == set(stages)
    for name, task in tasks.items():
        stage = stages[name]
        reads = {dep.def_path for dep in stage.deps if not isinstance(dep, ParamsDependency)}
        params = {key for dep in stage.deps if isinstance(dep, ParamsDependency) for key in dep.params}
        assert stage.cmd == task.command
        assert {*Tasks.inputs(task)} - reads == {f".edc/plan/{task.stage}/{task.key}.json"}
        assert reads <= {*Tasks.inputs(task)}
        assert [out.def_path for out in stage.outs] == Tasks.outputs(task)
        assert {f"{task.stage}.{task.key}"} <= params
