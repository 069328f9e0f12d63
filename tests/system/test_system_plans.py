"""Plans: studies spelled out, shared rows, and the files of the repository that are made from code."""

from __future__ import annotations

import contextlib
import subprocess

import pytest
import yaml
from checkout import REPOSITORY

from edc import STAGES, dag
from edc.params import Plan, load_plan
from edc.plan import make_plan

SHIPPED = sorted(path.stem for path in (REPOSITORY / "workflow/studies").glob("*.yaml"))
UPSTREAM = {
    "statistics": {"observers": "pretrain"},
    "synthesize": {"observers": "pretrain", "statistics": "statistics"},
    "relabel": {"observers": "pretrain", "images": "synthesize"},
    "evaluate": {"images": "synthesize", "labels": "relabel"},
    "tables": {"evaluate": "evaluate"},
}


@pytest.fixture(scope="module")
def shipped(planned) -> dict[str, Plan]:
    """The plan of every study of the repository."""
    with contextlib.chdir(planned.root):
        return {name: make_plan(name) for name in SHIPPED}


def tracked(path: str) -> bool:
    """Whether Git keeps a file of the repository."""
    command = ["git", "ls-files", "--error-unmatch", path]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True).returncode == 0


def names_missing_rows(plan: dict) -> list[str]:
    """Rows of a plan that name an upstream row or dataset which is not there."""
    missing = []
    for stage in STAGES:
        for key, row in plan[stage].items():
            if "dataset" in row and row["dataset"] not in plan["datasets"]:
                missing.append(f"{stage}.{key}: {row['dataset']}")
            for column, section in UPSTREAM.get(stage, {}).items():
                named = row[column] if isinstance(row[column], list) else [row[column]]
                missing += [f"{stage}.{key}: {n}" for n in named if n is not None and n not in plan[section]]
    return missing


def test_every_row_names_existing_upstream_rows(planned):
    plan = planned.plan()
    assert [len(plan[stage]) for stage in STAGES] == [2, 1, 2, 2, 4, 1]
    assert names_missing_rows(plan) == []


def test_every_stage_of_the_dag_reads_what_another_one_makes(planned):
    stages = planned.stages()
    assert set(stages) == {f"{stage}-{key}" for stage in STAGES for key in planned.plan()[stage]}
    made = {path for stage in stages.values() for path in stage["outs"]}
    read = {path for stage in stages.values() for path in stage["deps"]}
    assert {path for path in read if path.startswith("results/")} <= made
    assert all(planned.path(path).is_file() for path in read if not path.startswith("results/"))
    assert len(made) == sum(len(stage["outs"]) for stage in stages.values()), "two runs write the same file"


def test_the_same_study_gives_the_same_bytes(project):
    before = project.files()
    project.path("params.yaml").unlink()
    project.path("dvc.yaml").unlink()
    project.ok("edc", "plan", "tiny")
    assert project.files() == before


def test_sync_keeps_the_edited_plan_and_writes_its_dag(project):
    keys = list(project.plan()["evaluate"])
    project.edit("params.yaml", {"tables.tiny.evaluate": keys[:1]})
    plan = project.plan()
    for key in keys[1:]:
        del plan["evaluate"][key]
    text = project.write("params.yaml", plan).read_text()
    project.ok("edc", "plan", "--sync")
    assert project.path("params.yaml").read_text() == text
    assert [name for name in project.stages() if name.startswith("evaluate-")] == [f"evaluate-{keys[0]}"]


def test_studies_are_listed_with_what_they_run(planned):
    lines = {line.split()[0]: line for line in planned.ok("edc", "plan").splitlines()}
    assert set(lines) == {"tiny", *SHIPPED}
    assert lines["tiny"].split(None, 1)[1] == "tiny: edc, random; 12 runs. the whole DAG in seconds"


def test_a_broken_study_does_not_hide_the_others(project):
    project.edit("workflow/studies/tiny.yaml", {"recipes": ["edcc"]})
    lines = {line.split()[0]: line for line in project.ok("edc", "plan").splitlines()}
    assert set(lines) == {"tiny", *SHIPPED}
    assert "unknown recipe 'edcc'" in lines["tiny"]


@pytest.mark.parametrize(
    ("changes", "grows"),
    [
        ({"students": ["convnet_w32", "convnet_d1"]}, {"evaluate": 8}),
        ({"protocols": ["edc", "fixed_soft", "hard_label"]}, {"relabel": 4, "evaluate": 6}),
        ({"ipc": [1, 2]}, {"synthesize": 4, "relabel": 4, "evaluate": 8}),
        ({"seeds": [0, 1, 2]}, {}),
    ],
    ids=["students", "protocols", "ipc", "seeds"],
)
def test_rows_that_differ_only_downstream_share_what_is_upstream(project, changes, grows):
    before = project.plan()
    project.edit("workflow/studies/tiny.yaml", changes)
    project.ok("edc", "plan", "tiny")
    plan = project.plan()
    assert {stage: len(plan[stage]) for stage in STAGES} == {stage: len(before[stage]) for stage in STAGES} | grows
    for stage in set(STAGES) - {"evaluate", "tables"}:
        assert plan[stage].items() >= before[stage].items(), f"rows of {stage} that were there before have changed"


def test_recipes_with_the_same_labels_are_labelled_by_one_run_each(planned):
    rows = planned.plan()["evaluate"].values()
    assert len({row["images"] for row in rows}) == len({row["labels"] for row in rows}) == 2


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_study_plans(project, shipped, name):
    project.ok("edc", "plan", name)
    plan = project.plan()
    assert plan == shipped[name].model_dump(mode="json")
    assert names_missing_rows(plan) == []


def test_the_same_key_means_the_same_run_in_every_shipped_study(shipped):
    seen: dict[tuple[str, str], tuple[str, dict]] = {}
    different = []
    for study, plan in shipped.items():
        for stage in ("datasets", "pretrain", "synthesize", "relabel", "evaluate"):
            for key, row in getattr(plan, stage).items():
                values = row.model_dump(mode="json")
                first, earlier = seen.setdefault((stage, key), (study, values))
                if values != earlier:
                    names = [name for name in values if values[name] != earlier[name]]
                    different.append(f"{stage}.{key}: {', '.join(names)} in {first} and {study}")
    assert different == []


@pytest.mark.skipif(not (tracked("params.yaml") and tracked("dvc.yaml")), reason="no plan is committed")
def test_the_committed_dag_belongs_to_the_committed_plan():
    with contextlib.chdir(REPOSITORY):
        expected = dag.render(load_plan())
    assert (REPOSITORY / "dvc.yaml").read_text() == expected


@pytest.mark.skipif(not any((REPOSITORY / "workflow/schema").glob("*.json")), reason="no schema is committed")
def test_the_committed_schemas_are_those_of_the_code(planned):
    planned.ok("edc", "schema", "--check")


def test_schemas_are_written_and_their_drift_is_told(project):
    project.ok("edc", "schema")
    assert project.ok("edc", "schema", "--check").strip() == "up to date"
    schema = project.path("workflow/schema/params.json")
    schema.write_text(schema.read_text().replace("threads", "treads"))
    assert "workflow/schema/params.json" in project.refused("edc", "schema", "--check")
    project.ok("edc", "schema")
    assert yaml.safe_load(schema.read_text())["$defs"]["Machine"]["properties"]["threads"]["minimum"] == 1


def test_yaml_of_a_plan_reads_back_as_the_same_plan(planned):
    with contextlib.chdir(planned.root):
        plan = load_plan()
    assert plan.model_dump(mode="json") == planned.plan()
