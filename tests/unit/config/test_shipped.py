"""Every study of the repository, planned once, and its dataset files."""

from pathlib import Path

import pytest
import yaml
from support import REPOSITORY

from edc import STAGES
from edc.config.compact import PlanFile, compact, expanded, text
from edc.config.explain import explain
from edc.config.files import DatasetFile, names, read
from edc.config.plan import make_plan, render
from edc.config.rows import Dataset, Plan
from edc.config.schema import write_schemas
from edc.config.validation import validate
from edc.training.schedules import multiplier

COMPUTING = [stage for stage in STAGES if stage != "tables"]


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        return {name: make_plan(name) for name in names("studies")}


def test_plans_read_back_as_they_were_written(plans: dict[str, Plan]) -> None:
    for name, plan in plans.items():
        values = yaml.load(text(compact(plan)), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        again = validate(Plan, expanded(validate(PlanFile, values, name), name), name)
        assert again.model_dump() == plan.model_dump()
        assert all(list(getattr(again, stage)) == list(getattr(plan, stage)) for stage in COMPUTING)


def test_the_same_key_means_the_same_run_in_every_study(plans: dict[str, Plan]) -> None:
    """But for labels, which bear the name of the first protocol of a study that needs them."""
    seen: dict[tuple[str, str], tuple[str, dict]] = {}
    different = []
    for study, plan in plans.items():
        # A statistics pass serves whichever observers a study matches.
        for stage in ("datasets", *(stage for stage in COMPUTING if stage != "statistics")):
            for key, row in getattr(plan, stage).items():
                values = row.model_dump(mode="json", exclude={"labels"})
                first, earlier = seen.setdefault((stage, key), (study, values))
                if values != earlier:
                    changed = [name for name in values if values[name] != earlier[name]]
                    different.append(f"{stage}.{key}: {', '.join(changed)} in {first} and {study}")
    assert different == []


def test_dvc_enters_a_stage_when_any_stage_changed_that_its_runs_build_on(plans: dict[str, Plan]) -> None:
    stages = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]
    for plan in plans.values():
        for stage in COMPUTING:
            needed = {f"runs/{s}" for key in getattr(plan, stage) for s, _ in plan.upstream(stage, key)}
            assert needed <= set(stages[stage].get("deps", [])), stage


def test_a_run_builds_on_runs_of_its_plan(plans: dict[str, Plan]) -> None:
    for plan in plans.values():
        for stage in COMPUTING:
            for key in getattr(plan, stage):
                for upstream, name in plan.upstream(stage, key):
                    assert name in getattr(plan, upstream)
                    assert COMPUTING.index(upstream) < COMPUTING.index(stage)


def test_the_ablations_share_images_and_labels_where_only_the_students_differ(plans: dict[str, Plan]) -> None:
    plan = plans["ablations"]
    assert (len(plan.synthesize), len(plan.relabel), len(plan.evaluate)) == (20, 23, 38)
    variants = {row.variant: row for row in plan.evaluate.values() if row.variant}
    zeta = [variants[f"zeta={value}"] for value in ("1.0", "1.5", "2.0", "2.5", "3.0")]
    assert len({(row.images, row.labels) for row in zeta}) == 1
    assert [row.schedule.zeta for row in zeta] == [1.0, 1.5, 2.0, 2.5, 3.0]
    for alpha in ("0.00", "0.25", "0.50", "0.75"):
        no, yes = (variants[f"alpha={alpha};zeta=2.0;weak_aug=yes;ema={ema}"] for ema in ("no", "yes"))
        assert (no.images, no.labels, no.ema, yes.ema) == (yes.images, yes.labels, None, 0.99)
        assert variants[f"alpha={alpha};zeta=2.0;weak_aug=no;ema=no"].images != no.images


def test_a_study_may_use_all_of_a_datasets_observers_or_the_first(plans: dict[str, Plan]) -> None:
    """G-VBSM's own five are not all there without a GPU; SRe2L and RDED take one."""
    plan = plans["cifar10_cpu"]
    five = plan.statistics["cifar10_light-p4"].observers
    assert (plan.pretrain[five[0]].network, len(five)) == ("wrn_16_2", 5)
    assert plan.synthesize["cifar10_light-gvbsm-ipc10"].observers == five
    assert plan.relabel["cifar10_light-gvbsm-ipc10-gvbsm"].observers == five
    assert plan.synthesize["cifar10_light-sre2l-ipc10"].observers == five[:1]
    assert plan.synthesize["cifar10_light-rded-ipc10"].scorers == five[:1]


def test_settings_are_chosen_on_held_out_images(plans: dict[str, Plan]) -> None:
    for name in ("cifar10_choices", "cifar10_cpu_choices"):
        assert all(key.endswith("-val") and row.split == "val" for key, row in plans[name].evaluate.items())


def test_the_committed_plan_and_schemas_are_those_of_the_code(plans: dict[str, Plan]) -> None:
    assert Path("params.yaml").read_text() == render(plans["digits"])
    assert write_schemas(check=True) == []


def test_every_value_of_a_run_has_a_source() -> None:
    for run in ("evaluate/digits-edc-ipc10-convnet_d2-edc", "digits-edc-ipc10", "digits-edc-ipc10-edc"):
        sources = {key: where for key, _, where in explain(run)}
        assert not any("edited" in where for where in sources.values()), sources
        files = {where.split(".yaml")[0] + ".yaml" for where in sources.values() if where.startswith("workflow")}
        assert all(Path(name).exists() for name in files)


# The dataset files of the paper: their values are allowed, and are those of the paper where it gives them


def file(name: str) -> tuple[DatasetFile, Dataset]:
    found: DatasetFile = read("datasets", name)
    return found, Dataset.model_validate({"name": name, "family": name} | found.data)


@pytest.mark.parametrize(
    ("name", "classes", "size", "observers", "epochs", "patch", "batch"),
    [
        ("cifar10", 10, 32, 8, 30, 4, 64),
        ("cifar100", 100, 32, 8, 50, 4, 64),
        ("tiny_imagenet", 200, 64, 5, 50, 4, 64),
        ("imagenet10", 10, 224, 4, 20, 16, 256),
        ("imagenet1k", 1000, 224, 5, 0, 16, 256),
        ("imagenet21k", 10450, 224, 1, 80, 16, 256),
    ],
)
def test_the_paper_s_datasets(
    name: str, classes: int, size: int, observers: int, epochs: int, patch: int, batch: int
) -> None:
    found, dataset = file(name)
    assert name in names("datasets")
    assert (dataset.family, dataset.classes, dataset.image_size) == (name, classes, size)
    assert (len(found.observers), found.pretrain.epochs) == (observers, epochs)
    assert (found.statistics.patch, found.statistics.batch) == (patch, batch)
    cifar = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
    imagenet = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert (tuple(dataset.mean), tuple(dataset.std)) == (cifar if name.startswith("cifar") else imagenet)
    large = size == 224
    assert dataset.streamed == large
    assert dataset.resize == (256 if large else None)
    assert dataset.crop_scale == ((0.08, 1.0) if large else None)
    assert found.pretrain.weights == ("default" if name == "imagenet1k" else None)


def test_imagenet10_has_the_label_order_of_the_published_code() -> None:
    found, dataset = file("imagenet10")
    assert dataset.class_names is not None
    assert " ".join(dataset.class_names) == (
        "n02869837 n01749939 n02488291 n02107142 n13037406 n02091831 n04517823 n04589890 n03062245 n01773797"
    )
    row = found.pretrain
    rate = row.optimiser.lr * multiplier(row.schedule, 19, row.epochs, [])
    assert rate == pytest.approx(0.00772, abs=1e-5)  # of the last epoch: 0.01 (1 + cos(19 pi / 60)) / 2
