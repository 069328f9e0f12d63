"""One DAG, two runners: whichever ran, the other finds nothing to do; an edit makes the same runs stale in both."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from checkout import REPOSITORY, Checkout, load
from dvc.dependency import ParamsDependency
from dvc.repo import Repo
from samples import STUDY

from edc.reporting.reported import TABLES
from edc.pipeline.snake import Tasks

NOTHING = {"dvc": set(), "snakemake": set()}
RUNNERS = {"dvc": ["dvc", "repro"], "snakemake": ["snakemake", "--cores", "all", "--resources", "gpu=4"]}
EVALUATE = "evaluate.tiny-random-ipc1-convnet_d2-hard_label"
SYNTHESIZE = "synthesize.tiny-edc-ipc1"
RELABEL = "relabel.tiny-random-ipc1-edc"
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
    return load(checkout.path("dvc.lock"))


def table(checkout: Checkout, name: str) -> list[dict[str, str]]:
    """The rows of a table that ran here, as text."""
    rows = csv.DictReader(checkout.path(f"results/tables/{name}.csv").open())
    return [row for row in rows if row["dataset"] == "tiny"]


@pytest.mark.slow
@pytest.mark.early(1)
def test_dvc_makes_the_tables(by_dvc):
    rows = {row["recipe"]: row for row in table(by_dvc, "table1")}
    assert {recipe: (row["protocol"], row["ipc"], row["seeds"]) for recipe, row in rows.items()} == {
        "edc": ("edc", "1", "2"),
        "random": ("edc", "1", "2"),
        "rded": ("rded", "1", "2"),
        "full": ("real_data", "0", "2"),
    }
    assert list(rows) == ["full", "edc", "random", "rded"]
    found = {(recipe, name) for recipe, row in rows.items() for name in ("final_mean", "hard_mean") if row[name]}
    own = {("edc", "final_mean"), ("random", "final_mean"), ("rded", "final_mean")}
    assert found == own | {("edc", "hard_mean"), ("random", "hard_mean"), ("full", "hard_mean")}
    assert all(0 < float(rows[recipe][name]) <= 100 for recipe, name in found)
    assert rows["edc"]["random_mean"] == rows["random"]["final_mean"]
    assert rows["rded"]["random_mean"] == ""  # no random images under that protocol
    costs = list(csv.DictReader(by_dvc.path("results/tables/cost.csv").open()))
    runs = {f"{row['stage']}-{row['run']}" for row in costs}
    assert runs == set(by_dvc.stages()) - {"tables-tiny"}
    assert "digits, a few" in by_dvc.path("results/tables/table1.md").read_text()


@pytest.mark.slow
def test_variants_crossings_and_scores_stand_in_tables_of_their_own(by_dvc):
    assert [(row["recipe"], row["variant"], row["protocol"]) for row in table(by_dvc, "variants")] == [
        ("edc", "ema=no", "edc")
    ]
    crossed = [(row["recipe"], row["protocol"], row["regime"]) for row in table(by_dvc, "cross")]
    assert crossed == [
        ("edc", "edc", "soft"),
        ("edc", "hard_label", "hard"),
        ("random", "edc", "soft"),
        ("random", "hard_label", "hard"),
        ("rded", "rded", "soft"),
    ]
    scores = {row["recipe"]: row for row in table(by_dvc, "scores")}
    full = next(row for row in table(by_dvc, "table1") if row["recipe"] == "full")
    assert {row["real_hard"] for row in scores.values()} == {str(float(full["hard_mean"]) / 100)}
    assert {recipe for recipe, row in scores.items() if row["lrs"]} == {"edc", "random"}


@pytest.mark.slow
def test_the_manifest_of_the_tables_names_every_file_as_it_is(by_dvc):
    made = json.loads(by_dvc.path("results/tables/tiny/manifest.json").read_text())["tables"]
    assert list(made) == list(TABLES)
    for name, facts in made.items():
        content = by_dvc.path(f"results/tables/{name}.csv").read_bytes()
        assert facts == {"rows": content.count(b"\n") - 1, "sha256": hashlib.sha256(content).hexdigest()}, name


@pytest.mark.slow
def test_the_papers_cells_stand_in_the_tables_without_accuracies_of_ours(by_dvc):
    with by_dvc.path("results/tables/table1.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] != "tiny"]
    assert len(rows) > 50
    assert {row["seeds"] + row["final_mean"] + row["hard_mean"] for row in rows} == {""}
    assert all(float(row["reported"]) > 0 for row in rows)


@pytest.mark.slow
def test_snakemake_makes_the_same_files(by_dvc, by_snakemake):
    runs = [name.split("-", 1) for name in by_dvc.stages() if not name.startswith("tables")]
    for stage, key in runs:
        assert by_snakemake.outputs(stage, key) == by_dvc.outputs(stage, key), f"{stage} {key}"
    for name in TABLES:
        tables = [checkout.path(f"results/tables/{name}.csv").read_bytes() for checkout in (by_dvc, by_snakemake)]
        assert tables[0] == tables[1], name


@pytest.mark.slow
def test_snakemake_tells_dvc_what_dvc_would_have_found(by_dvc, by_snakemake):
    assert lock(by_snakemake) == lock(by_dvc)


@pytest.mark.slow
def test_when_a_runner_has_finished_both_have_nothing_to_do(ran):
    assert ran.stale() == NOTHING


@pytest.mark.slow
@pytest.mark.early(10)
def test_a_forced_second_run_leaves_the_lock_as_it_was(done):
    # One run of each stage; that the others are the same again is seen where the other runner made them.
    before = done.path("dvc.lock").read_bytes()
    names = {name.partition("-")[0]: name for name in done.stages()}
    said = done.ok("dvc", "repro", "--force", "--single-item", *names.values())
    assert said.count("> edc ") == len(names) == 6
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
    ran.write("workflow/studies/wide.yaml", STUDY | {"students": ["convnet_d2", "convnet_d1"]})
    ran.ok("edc", "plan", "wide")
    new = {name for name in ran.stages() if name.startswith("evaluate-") and "-convnet_d1-" in name}
    assert len(new) == 7
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


@pytest.mark.slow
@pytest.mark.parametrize("study", ["cifar10_small_applications", "digits", "imagenet21k"])
def test_both_runners_show_what_a_shipped_study_would_run_where_no_data_are(shipped, tmp_path, study):
    project = shipped(study).copy(tmp_path / "project")
    with ThreadPoolExecutor() as pool:
        commands = (("snakemake", "-n"), ("dvc", "dag", "--dot"))
        snakemake, dvc = [future.result() for future in [pool.submit(project.ok, *words) for words in commands]]
    stages = project.stages()
    assert set(re.findall(r"^rule (\S+):$", snakemake, re.MULTILINE)) - {"all"} == set(stages)
    edges = set(re.findall(r'^"([^"]+)" -> "([^"]+)";$', dvc, re.MULTILINE))
    makes = {path: name for name, stage in stages.items() for path in stage["outs"]}
    expected = {(makes[path], name) for name, stage in stages.items() for path in stage["deps"] if path in makes}
    assert edges == expected
    assert set(re.findall(r'"([^"]+)"', dvc)) == set(stages)


@pytest.mark.parametrize("study", ["tiny", *SHIPPED])
def test_dvc_and_snakemake_resolve_the_same_dag(planned, shipped, tmp_path, monkeypatch, study):
    project = (planned if study == "tiny" else shipped(study)).copy(tmp_path / "project")
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
