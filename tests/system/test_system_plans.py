"""Plans: studies spelled out, shared rows, and the files of the repository that are made from code."""

from __future__ import annotations

import contextlib
import subprocess

import pytest
import yaml
from checkout import REPOSITORY, digests
from samples import STUDY

from edc import STAGES
from edc.pipeline import dag
from edc.config.cost import report
from edc.config.references import load_plan
from edc.pipeline.locking import LOCK, OTHERS, entries
from edc.config.rows import Plan, TablesRow
from edc.config.plan import make_plan

SHIPPED = sorted(path.stem for path in (REPOSITORY / "workflow/studies").glob("*.yaml"))
UPSTREAM = {
    "statistics": {"observers": "pretrain"},
    "synthesize": {"observers": "pretrain", "scorers": "pretrain", "statistics": "statistics"},
    "relabel": {"observers": "pretrain", "images": "synthesize"},
    **{key: {"images": "synthesize", "labels": "relabel"} for key in ("evaluate", "continual", "slimming", "analysis")},
    "tables": {stage: stage for stage in TablesRow.model_fields},
}
GRIDS = STUDY["grids"]
MIX = {"recipes": ["edc"], "protocols": ["edc"], "variants": ["mix=no"]}
ADDED_BY_MIX = {"relabel": 4, "evaluate": 8}


@pytest.fixture(scope="module")
def plans(planned) -> dict[str, Plan]:
    """The plan of every study of the repository."""
    with contextlib.chdir(planned.root):
        return {name: make_plan(name) for name in SHIPPED}


def counts(plan: dict) -> dict[str, int]:
    """Runs of each stage that has any."""
    return {stage: len(plan[stage]) for stage in STAGES if plan[stage]}


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
    expected = {"pretrain": 2, "statistics": 1, "synthesize": 3, "relabel": 3, "evaluate": 7, "tables": 1}
    assert counts(plan) == expected
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
    assert lines["tiny"].split(None, 1)[1] == "tiny: edc, random, rded, full; 17 runs. the whole DAG in seconds"


def test_a_broken_study_does_not_hide_the_others(project):
    project.edit("workflow/studies/tiny.yaml", {"recipes": ["edcc"]})
    for name in set(SHIPPED) - {"cifar10", "digits"}:  # a few others do
        project.path("workflow/studies", f"{name}.yaml").unlink()
    lines = {line.split()[0]: line for line in project.ok("edc", "plan").splitlines()}
    assert set(lines) == {"cifar10", "digits", "tiny"}
    assert "unknown recipe 'edcc'" in lines["tiny"]


def test_a_variant_can_draw_other_images(project):
    """To see how much depends on which images a set was made of."""
    drawn = {"recipes": ["random"], "protocols": ["edc"], "variants": ["", "draw=5"]}
    project.edit("workflow/studies/tiny.yaml", {"variants.draw=5": {"seed": 5}, "grids": [*GRIDS, drawn]})
    project.ok("edc", "plan", "tiny")
    rows = project.plan()["synthesize"]
    (name,) = [name for name in rows if name.endswith("draw_5")]
    assert rows[name] == rows[name.removesuffix("-draw_5")] | {"seed": 5}
    assert {row["seed"] for key, row in rows.items() if key != name} == {0}


@pytest.mark.parametrize(
    ("changes", "grows"),
    [
        ({"students": ["convnet_d2", "convnet_d1"]}, {"evaluate": 14}),
        ({"protocols": ["edc", "static_soft", "hard_label"]}, {"relabel": 5, "evaluate": 9}),
        ({"ipc": [1, 2]}, {"synthesize": 6, "relabel": 6, "evaluate": 13}),
        ({"seeds": [0, 1, 2]}, {}),
        ({"variants.mix=no": {"protocol": {"relabel": {"mix": "none"}}}, "grids": [*GRIDS, MIX]}, ADDED_BY_MIX),
        ({"grids": [*GRIDS, *GRIDS]}, {}),
    ],
    ids=["students", "protocols", "ipc", "seeds", "variants", "grids twice"],
)
def test_rows_that_differ_only_downstream_share_what_is_upstream(project, changes, grows):
    before = project.plan()
    project.edit("workflow/studies/tiny.yaml", changes)
    project.ok("edc", "plan", "tiny")
    plan = project.plan()
    assert counts(plan) == counts(before) | grows
    for stage in set(STAGES) - {"evaluate", "tables"}:
        assert plan[stage].items() >= before[stage].items(), f"rows of {stage} that were there before have changed"


def test_recipes_with_the_same_labels_are_labelled_by_one_run_each(planned):
    rows = planned.plan()["evaluate"].values()
    assert sorted({(row["images"], row["labels"]) for row in rows if row["images"]}) == [
        ("tiny-edc-ipc1", "tiny-edc-ipc1-edc"),
        ("tiny-random-ipc1", "tiny-random-ipc1-edc"),
        ("tiny-rded-ipc1", "tiny-rded-ipc1-rded"),
    ]


def test_training_on_the_whole_dataset_waits_for_no_other_run(planned):
    rows = {key: row for key, row in planned.plan()["evaluate"].items() if row["recipe"] == "full"}
    assert {key: [row[name] for name in ("images", "labels", "ipc")] for key, row in rows.items()} == {
        "tiny-full-all-convnet_d2-real_data": [None, None, 0]
    }
    read = planned.stages()["evaluate-tiny-full-all-convnet_d2-real_data"]["deps"]
    assert [path for path in read if path.startswith("results/")] == []


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_study_plans(shipped, plans, name):
    plan = shipped(name).plan()
    assert plan == plans[name].model_dump(mode="json")
    assert names_missing_rows(plan) == []


@pytest.mark.parametrize("name", SHIPPED)
def test_no_two_rows_of_a_shipped_study_are_the_same_work(plans, name):
    plan = plans[name].model_dump(mode="json")
    for stage, labels in {"pretrain": (), "synthesize": ("recipe",), "relabel": (), "evaluate": ()}.items():
        rows = [{n: v for n, v in row.items() if n not in labels} for row in plan[stage].values()]
        assert [row for i, row in enumerate(rows) if row in rows[:i]] == []


def check_costs(lines: list[str], plan: dict) -> None:
    """Every stage is told with its runs, and every dataset with its sizes."""
    told = {line.split()[0]: line.split()[1] for line in lines}
    runs = {stage: len(plan[stage]) for stage in STAGES}
    assert {stage: told[stage] for stage in [*STAGES, "total"]} == {
        **{stage: str(count) for stage, count in runs.items()},
        "total": str(sum(runs.values())),
    }
    assert {f"{dataset}:" for dataset in plan["datasets"]} <= set(told)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_the_cost_of_a_shipped_study_is_told(plans, name):
    check_costs(report(plans[name], 40, "a device").splitlines(), plans[name].model_dump(mode="json"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "imagenet21k"])
def test_the_cost_of_a_shipped_study_is_told_and_nothing_written(shipped, name):
    project = shipped(name)
    before = digests(project.root, skip=(".git", "__pycache__"))
    lines = project.ok("edc", "plan", name, "--cost").splitlines()
    assert digests(project.root, skip=(".git", "__pycache__")) == before
    check_costs(lines, project.plan())


def test_the_ablations_share_images_and_labels_where_only_the_students_differ(shipped):
    plan = shipped("ablations").plan()
    assert {stage: counts(plan)[stage] for stage in ("synthesize", "relabel", "evaluate")} == {
        "synthesize": 17,
        "relabel": 19,
        "evaluate": 28,
    }
    by_variant = {row["variant"]: row for row in plan["evaluate"].values()}
    zeta = [by_variant[f"zeta={value}"] for value in ("1.0", "1.5", "2.0", "2.5", "3.0")]
    assert len({(row["images"], row["labels"]) for row in zeta}) == 1
    assert [row["schedule"]["zeta"] for row in zeta] == [1.0, 1.5, 2.0, 2.5, 3.0]
    for alpha in ("0.00", "0.25", "0.50", "0.75"):
        no, yes = (by_variant[f"alpha={alpha};zeta=2.0;weak_aug=yes;ema={ema}"] for ema in ("no", "yes"))
        assert (no["images"], no["labels"]) == (yes["images"], yes["labels"])
        assert (no["ema"], yes["ema"]) == (None, 0.99)
        strong = by_variant[f"alpha={alpha};zeta=2.0;weak_aug=no;ema=no"]
        assert strong["images"] != no["images"]


def test_the_same_key_means_the_same_run_in_every_shipped_study(plans):
    seen: dict[tuple[str, str], tuple[str, dict]] = {}
    different = []
    for study, plan in plans.items():
        # A pass for statistics serves whichever observers a study matches.
        for stage in ("datasets", *(stage for stage in STAGES if stage not in ("statistics", "tables"))):
            for key, row in getattr(plan, stage).items():
                values = row.model_dump(mode="json")
                first, earlier = seen.setdefault((stage, key), (study, values))
                if values != earlier:
                    names = [name for name in values if values[name] != earlier[name]]
                    different.append(f"{stage}.{key}: {', '.join(names)} in {first} and {study}")
    assert different == []


def test_a_study_may_ask_all_of_a_datasets_observers_or_the_first(plans):
    """G-VBSM's own five are not all there without a GPU; SRe2L and RDED take one."""
    plan = plans["cifar10_cpu"]
    five = plan.statistics["cifar10_light-p4"].observers
    assert plan.pretrain[five[0]].network == "wrn_16_2"
    assert len(five) == 5
    assert plan.synthesize["cifar10_light-gvbsm-ipc10"].observers == five
    assert plan.relabel["cifar10_light-gvbsm-ipc10-gvbsm"].observers == five
    assert plan.synthesize["cifar10_light-sre2l-ipc10"].observers == five[:1]
    assert plan.synthesize["cifar10_light-rded-ipc10"].scorers == five[:1]


@pytest.mark.skipif(not (tracked("params.yaml") and tracked("dvc.yaml")), reason="no plan is committed")
def test_the_committed_dag_belongs_to_the_committed_plan():
    with contextlib.chdir(REPOSITORY):
        expected = dag.render(load_plan())
    assert (REPOSITORY / "dvc.yaml").read_text() == expected


@pytest.mark.skipif(not tracked("dvc.lock"), reason="nothing is locked")
def test_the_committed_lock_has_the_runs_of_the_committed_plan_and_no_others():
    with contextlib.chdir(REPOSITORY):
        names = {task.name for task in dag.tasks(load_plan())}
        here, others = entries(LOCK), entries(OTHERS)
    assert here.keys() <= names
    assert not others.keys() & names


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
