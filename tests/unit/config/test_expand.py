"""A study spelled out: rows that differ only downstream share what is upstream, and what it names must exist."""

from typing import Any

import pytest
from support import one_line
from support.study import APPLICATION, STUDY, plan, study

from edc import STAGES
from edc.config.expand import Builder
from edc.config.rows import Plan

GRIDS = STUDY["grids"]
NO_APPLICATIONS: dict[str, Any] = {"continual": [], "slimming": [], "analysis": []}
MIX = {"recipes": ["edc"], "protocols": ["edc"], "variants": ["mix=no"]}


def counts(made: Plan) -> dict[str, int]:
    return {stage: len(getattr(made, stage)) for stage in STAGES if getattr(made, stage, None)}


def test_every_stage_has_its_runs() -> None:
    made = plan()
    expected = {"pretrain": 3, "statistics": 1, "synthesize": 3, "relabel": 3, "evaluate": 7}
    assert counts(made) == expected | {"continual": 1, "slimming": 1, "analysis": 1}
    runs = made.studies["small"]
    for stage in ("evaluate", "continual", "slimming", "analysis"):
        assert getattr(runs, stage) == list(getattr(made, stage))
    assert plan() == made


def test_a_pretrained_network_is_pruned_for_every_seed() -> None:
    (pruned,) = STUDY["slimming"]
    made = plan(slimming=[pruned | {"seeds": [0, 1]}, pruned | {"seeds": [0, 1], "pretrained": True}])
    assert list(made.slimming) == ["digits-edc-ipc1-vgg11_bn-edc", "digits-edc-ipc1-vgg11_bn-edc-pretrained"]
    keys = ["digits-vgg11_bn", "digits-vgg11_bn-seed1"]
    assert [made.pretrain[key].seed for key in keys] == [0, 1]
    assert made.slimming["digits-edc-ipc1-vgg11_bn-edc-pretrained"].pretrained == keys
    assert made.upstream("slimming", "digits-edc-ipc1-vgg11_bn-edc-pretrained")[2:] == [("pretrain", k) for k in keys]


def test_settings_of_slimming_are_tried_on_held_out_images() -> None:
    (pruned,) = STUDY["slimming"]
    variants = {"lr=0.01": {"protocol": {"student": {"optimiser": {"lr": 0.01}}}}}
    trials = [pruned | {"variants": ["", *variants]}]
    made = plan(**NO_APPLICATIONS | {"slimming": trials}, variants=STUDY["variants"] | variants, split="val")
    assert [(key, row.variant, row.split) for key, row in made.slimming.items()] == [
        ("digits-edc-ipc1-vgg11_bn-edc-val", "", "val"),
        ("digits-edc-ipc1-vgg11_bn-edc-lr_0_01-val", "lr=0.01", "val"),
    ]
    plain, changed = made.slimming.values()
    assert (plain.images, plain.labels) == (changed.images, changed.labels)
    assert (plain.optimiser.lr, changed.optimiser.lr) == (0.001, 0.01)


@pytest.mark.parametrize(
    ("changes", "grows"),
    [
        ({"students": ["convnet_d2", "convnet_d1"]}, {"evaluate": 14}),
        ({"protocols": ["edc", "static_soft", "hard_label"]}, {"evaluate": 9}),
        ({"ipc": [1, 2]}, {"synthesize": 6, "relabel": 6, "evaluate": 13}),
        ({"seeds": [0, 1, 2]}, {}),
        (
            {"variants": {"ema=no": {}, "mix=no": {"protocol": {"relabel": {"mix": "none"}}}}, "grids": [*GRIDS, MIX]},
            {"relabel": 4, "evaluate": 8},
        ),
        ({"grids": [*GRIDS, *GRIDS]}, {}),
    ],
    ids=["students", "protocols", "ipc", "seeds", "variants", "grids twice"],
)
def test_rows_that_differ_only_downstream_share_what_is_upstream(
    changes: dict[str, Any], grows: dict[str, int]
) -> None:
    before, after = plan(), plan(**changes)
    assert counts(after) == counts(before) | grows
    for stage in ("pretrain", "statistics", "synthesize", "relabel"):
        assert getattr(after, stage).items() >= getattr(before, stage).items()


def test_what_a_hard_label_student_is_trained_on() -> None:
    """The views of the soft labels; or the whole dataset, once, whatever the images per class."""
    rows = plan().evaluate.values()
    assert sorted({(row.images, row.labels) for row in rows if row.images and row.labels}) == [
        ("digits-edc-ipc1", "digits-edc-ipc1-edc"),
        ("digits-random-ipc1", "digits-random-ipc1-edc"),
        ("digits-rded-ipc1", "digits-rded-ipc1-rded"),
    ]
    full = [row for row in plan(ipc=[1, 2]).evaluate.values() if row.recipe == "full"]
    assert [(row.ipc, row.images, row.labels, row.protocol) for row in full] == [(0, None, None, "real_data")]


def test_a_variant_can_draw_other_images() -> None:
    drawn = {"recipes": ["random"], "protocols": ["edc"], "variants": ["", "draw=5"]}
    rows = plan(variants={"ema=no": {}, "draw=5": {"seed": 5}}, grids=[*GRIDS, drawn]).synthesize
    (name,) = [name for name in rows if name.endswith("draw_5")]
    assert rows[name] == rows[name.removesuffix("-draw_5")].model_copy(update={"seed": 5})
    assert {row.seed for key, row in rows.items() if key != name} == {0}


def test_layers_and_overrides_change_what_they_name() -> None:
    """Weakest first: the file, its family, its images per class, both; an override of a layer is as strong as that."""
    values = {"edc": {"student": {"epochs": 11}, "families": {"digits": {"ipc": {1: {"student": {"batch": 4}}}}}}}
    made = plan(overrides={"protocols": values})
    row = made.evaluate["digits-edc-ipc1-convnet_d2-edc"]
    assert (row.epochs, row.batch, row.changed) == (200, 4, True)
    assert made.relabel["digits-edc-ipc1-edc"].batch == 4
    assert not made.evaluate["digits-rded-ipc1-convnet_d2-rded"].changed


def test_how_often_a_student_is_evaluated_is_no_change_of_the_protocol() -> None:
    made = plan(overrides={"protocols": {"edc": {"students": {"convnet_d2": {"validations": 1}}}}})
    row = made.evaluate["digits-edc-ipc1-convnet_d2-edc"]
    assert (row.validations, row.changed) == (1, False)


def test_observers_laid_over_a_recipe_are_no_change_of_it() -> None:
    made = plan(overrides={"recipes": {"edc": {"families": {"digits": {"observers": {"match": "first"}}}}}})
    assert made.synthesize["digits-edc-ipc1"].observers == ["digits-convnet_d1"]
    assert not any(row.changed for row in made.evaluate.values())
    # The pass that serves some observers only bears their names.
    assert list(made.statistics) == ["digits-p4-convnet_d1"]


def test_precision_becomes_part_of_every_row() -> None:
    made = plan(machine={"device": "cpu", "precision": "bfloat16"})
    rows = [row for stage in counts(made) for row in getattr(made, stage).values()]
    assert {row.precision for row in rows} == {"bfloat16"}
    assert "precision" not in made.machine.model_dump()


def test_students_on_held_out_images_have_keys_of_their_own() -> None:
    tested, held = plan(**NO_APPLICATIONS), plan(split="val", **NO_APPLICATIONS)
    assert list(held.evaluate) == [f"{key}-val" for key in tested.evaluate]
    for key, row in tested.evaluate.items():
        assert held.evaluate[f"{key}-val"] == row.model_copy(update={"split": "val"})
    assert held.synthesize == tested.synthesize


def overridden(kind: str, name: str, **values: Any) -> dict[str, Any]:
    """A study that lays values over a file."""
    return {"overrides": {kind: {name: values}}}


UNKNOWN_OBSERVER = overridden("recipes", "gvbsm", families={"digits": {"observers": {"match": ["convnet_d3"]}}})
# What is changed, and the words of the line that refuses it.
MISTAKES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "recipe": ({"recipes": ["edcc"]}, ["workflow/studies/small.yaml: unknown recipe 'edcc'", "'edc'"]),
    "protocol": ({"protocols": ["hard_labels"]}, ["unknown protocol 'hard_labels'", "'hard_label'"]),
    "dataset": ({"datasets": ["digitz"]}, ["workflow/studies/small.yaml: unknown dataset 'digitz'", "'digits'"]),
    "student": ({"students": ["convnet_w23"]}, ["unknown network 'convnet_w23'", "'convnet_w32'"]),
    "variant": ({"variants": {"ema=on": {}}}, ["grids or slimming: unknown variant 'ema=no'", "'ema=on'"]),
    "unused variant": ({"grids": [{}]}, ["small.yaml: variants.ema=no: expected its name in grids or slimming"]),
    "unused override": ({"overrides": {"recipes": {"gvbsm": {}}}}, ["overrides.recipes: unknown recipe 'gvbsm'"]),
    "observer": (
        {"recipes": ["gvbsm"], "grids": [{}], "variants": {}} | UNKNOWN_OBSERVER,
        ["overrides.recipes.gvbsm, laid", "observers.match: unknown observer of digits 'convnet_d3'", "'convnet_d"],
    ),
    "observer of a dataset": (
        overridden("datasets", "digits", observers=["convnet_d0", "wrn_16_2"]),
        ["unknown network 'convnet_d0'", "'convnet_d"],
    ),
    "network": (
        overridden("datasets", "digits", networks={"convnet_d0": {}}),
        ["small.yaml: overrides.datasets.digits, ", "datasets/digits.yaml: networks: unknown network 'convnet_d0'"],
    ),
    "dataset kind": (
        overridden("datasets", "digits", data={"kind": "digit"}),
        ["datasets.digits: unknown dataset kind 'digit'", "'digits'"],
    ),
    "channels": (
        overridden("datasets", "digits", data={"channels": 3}),
        ["small.yaml: overrides.datasets.digits, ", "mean and std need 3 values"],
    ),
    "warm-up": (
        overridden("protocols", "edc", student={"schedule": {"warmup": 300}}),
        ["small.yaml: overrides.protocols.edc, ", "schedule.warmup = 300: expected fewer than the 200 epochs"],
    ),
    "warm-up of a variant": (
        {"variants": {"ema=no": {"protocol": {"student": {"schedule": {"warmup": 300}}}}}},
        ["small.yaml: variants.ema=no, laid over workflow/protocols/edc.yaml: student", "schedule.warmup = 300"],
    ),
    "steps": ({"continual": [APPLICATION | {"steps": 11}]}, ["steps = 11: expected at most 10"]),
    "prunable": (
        {"slimming": [APPLICATION | {"ratios": [0.1], "finetune": 1}]},
        ["unknown prunable network 'convnet_d2'"],
    ),
    "analysis": (
        {"analysis": [APPLICATION | {"recipes": ["random"]}]},
        ["images = 'digits-random-ipc1': expected images synthesised with a regulariser"],
    ),
    "sizes": (
        overridden("recipes", "edc", synthesize={"optimise": {"sizes": [4]}}),
        ["synthesize.digits-edc-ipc1.optimise.sizes = [4]: expected 8 last, the dataset's image_size"],
    ),
    "held-out": (
        {"split": "val"} | NO_APPLICATIONS | overridden("datasets", "digits", data={"val_fraction": 0.0}),
        ["split = 'val': dataset 'digits' holds no training image out"],
    ),
    "applications": ({"split": "val"}, ["continual: expected none beside split = 'val'"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_study_that_cannot_be_spelled_out(name: str) -> None:
    changes, words = MISTAKES[name]
    with one_line(*words):
        Builder("small", study(**changes)).build()
