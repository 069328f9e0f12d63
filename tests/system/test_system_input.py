"""Mistakes in files and commands: one line that names file, key and value, exit code 2, and nothing written."""

from __future__ import annotations

import shutil

import pytest
from samples import PRETRAIN

from edc import STAGES

STUDY_FILE = "workflow/studies/tiny.yaml"
RECIPE = "workflow/recipes/edc.yaml"
PROTOCOL = "workflow/protocols/edc.yaml"
DATASET_FILE = "workflow/datasets/tiny.yaml"
SYNTHESIZE = "synthesize.tiny-edc-ipc1"
RDED = "synthesize.tiny-rded-ipc1"
EVALUATE = "evaluate.tiny-edc-ipc1-convnet_d2-edc"

# What is changed in which file; what the line must say.
WORKFLOW_EDITS = {
    "recipe name": (STUDY_FILE, {"recipes": ["edcc"]}, ["unknown recipe 'edcc'", "'edc'", STUDY_FILE]),
    "protocol name": (STUDY_FILE, {"protocols": ["hard_labels"]}, ["unknown protocol 'hard_labels'", "'hard_label'"]),
    "dataset name": (STUDY_FILE, {"datasets": ["tinny"]}, ["unknown dataset 'tinny'", "'tiny'", STUDY_FILE]),
    "student name": (STUDY_FILE, {"students": ["convnet_w23"]}, ["unknown network 'convnet_w23'", "'convnet_w32'"]),
    "observer name": (
        DATASET_FILE,
        {"observers": ["convnet_d0", "wrn_16_2"]},
        ["unknown network 'convnet_d0'", "'convnet_d"],
    ),
    "overridden name": (STUDY_FILE, {"overrides.recipes.edcc": {}}, ["'edcc'", "'edc'", STUDY_FILE]),
    "study key": (STUDY_FILE, {"student": ["convnet_w32"]}, [STUDY_FILE, "unknown key 'student'", "'students'"]),
    "recipe key": (
        RECIPE,
        {"synthesize.optimise.iteration": 5},
        [RECIPE, "unknown key 'optimise.iteration'", "'optimise.iterations'"],
    ),
    "protocol key": (PROTOCOL, {"student.epoch": 5}, [PROTOCOL, "unknown key 'epoch'", "'epochs'"]),
    "dataset key": (DATASET_FILE, {"data.image_sise": 8}, [DATASET_FILE, "'image_sise'", "'image_size'"]),
    "recipe range": (RECIPE, {"synthesize.match.alpha": 1.5}, [RECIPE, "match.alpha = 1.5", "less than or equal to 1"]),
    "recipe choice": (RECIPE, {"synthesize.match.method": "norm"}, [RECIPE, "match.method = 'norm'", "'category'"]),
    "recipe registry": (
        RECIPE,
        {"synthesize.initialise.method": "reel"},
        [RECIPE, "initialise.method", "'reel'", "'real'"],
    ),
    "recipe observers": (RECIPE, {"observers": {"match": ["convnet_d1"]}}, [RECIPE, "observers.match: 'convnet_d1'"]),
    "recipe role": (RECIPE, {"observers": {"label": "first"}}, [RECIPE, "observers"]),
    "protocol observers": (
        PROTOCOL,
        {"observers": {"label": ["wrn"]}},
        [PROTOCOL, "observers.label: 'wrn'", "wrn_16_2"],
    ),
    "protocol mix": (PROTOCOL, {"relabel.mix": "cutmx"}, [PROTOCOL, "mix = 'cutmx'", "'cutmix'"]),
    "recipe type": (RECIPE, {"synthesize.optimise.lr": "fast"}, [RECIPE, "optimise.lr = 'fast'", "number"]),
    "family range": (
        RECIPE,
        {"families.digits.synthesize.optimise.lr": -1},
        [RECIPE, "families.digits", "optimise.lr = -1"],
    ),
    "override range": (
        STUDY_FILE,
        {"overrides.protocols.edc.student": {"epochs": 0}},
        ["epochs = 0", "greater than or equal to 1"],
    ),
    "dataset kind": (DATASET_FILE, {"data.kind": "digit"}, ["unknown dataset kind 'digit'", "'digits'"]),
    "channels": (DATASET_FILE, {"data.channels": 3}, [DATASET_FILE, "mean and std need 3 values"]),
    "no recipes": (STUDY_FILE, {"recipes": []}, [STUDY_FILE, "recipes"]),
    "repeated seed": (STUDY_FILE, {"seeds": [0, 0]}, [STUDY_FILE, "seeds"]),
    "variant name": (
        STUDY_FILE,
        {"variants": {"ema=on": {}}},
        [STUDY_FILE, "grids", "unknown variant 'ema=no'", "'ema=on'"],
    ),
    "variant range": (
        STUDY_FILE,
        {"variants.ema=no.protocol.student": {"ema": 2}},
        ["variant 'ema=no'", STUDY_FILE, "ema = 2", "less than or equal to 1"],
    ),
    "grid key": (STUDY_FILE, {"grids": [{"recipe": ["edc"]}]}, [STUDY_FILE, "'grids.0.recipe'", "'grids.0.recipes'"]),
    "unused override": (STUDY_FILE, {"overrides.recipes.gvbsm": {}}, [STUDY_FILE, "overrides.recipes", "'gvbsm'"]),
    "parent": (RECIPE, {"inherits": "edc_cod"}, ["unknown recipe 'edc_cod'", "'edc_code'", RECIPE]),
    "circle": (RECIPE, {"inherits": "edc"}, [RECIPE, "inherits from itself", "edc -> edc"]),
    "long circle": (RECIPE, {"inherits": "edc_code"}, [RECIPE, "inherits from itself", "edc -> edc_code -> edc"]),
}
PARAMS_EDITS = {
    "key": ({f"{EVALUATE}.epoch": 5}, [f"unknown key '{EVALUATE}.epoch'", f"'{EVALUATE}.epochs'"]),
    "section": ({"synthesise": {}}, ["unknown key 'synthesise'", "'synthesize'"]),
    "range": ({f"{EVALUATE}.optimiser.lr": -1}, [f"{EVALUATE}.optimiser.lr = -1", "greater than 0"]),
    "infinite": ({f"{EVALUATE}.optimiser.lr": float("inf")}, [f"{EVALUATE}.optimiser.lr = inf", "finite"]),
    "not a number": ({f"{SYNTHESIZE}.match.weight": float("nan")}, [f"{SYNTHESIZE}.match.weight = nan"]),
    "type": ({f"{EVALUATE}.epochs": "many"}, [f"{EVALUATE}.epochs = 'many'", "integer"]),
    "network": ({f"{EVALUATE}.student": "convnet_w23"}, [EVALUATE, "'convnet_w23'", "'convnet_w32'"]),
    "images": ({f"{EVALUATE}.images": "tiny-edc-ipc"}, [EVALUATE, "'tiny-edc-ipc'", "'tiny-edc-ipc1'"]),
    "observers": ({f"{SYNTHESIZE}.observers": ["tiny-convnet"]}, [SYNTHESIZE, "'tiny-convnet'", "'tiny-convnet_"]),
    "no observers": ({f"{SYNTHESIZE}.observers": []}, [SYNTHESIZE, "observers must not be empty"]),
    "no statistics": ({f"{SYNTHESIZE}.statistics": None}, [SYNTHESIZE, "statistics must name a row"]),
    "scorers": ({f"{RDED}.scorers": ["tiny-wrn_16"]}, [RDED, "'tiny-wrn_16'", "'tiny-wrn_16_2'"]),
    "no scorers": ({f"{RDED}.scorers": []}, [RDED, "scorers must not be empty"]),
    "no images": ({f"{EVALUATE}.images": None}, [EVALUATE, "images and labels must be given, or both be null"]),
    "labels of other images": (
        {f"{EVALUATE}.labels": "tiny-random-ipc1-edc"},
        [f"{EVALUATE}.labels = 'tiny-random-ipc1-edc'", "labels of 'tiny-random-ipc1'"],
    ),
    "images of another size": ({f"{EVALUATE}.ipc": 2}, [f"{EVALUATE}.ipc = 2", "'tiny-edc-ipc1'"]),
    "epochs without labels": ({f"{EVALUATE}.epochs": 7}, [EVALUATE, "epochs = 7", "labels for 6 epochs"]),
    "dataset": ({f"{EVALUATE}.dataset": "tinny"}, [EVALUATE, "'tinny'", "'tiny'"]),
    "row": ({"tables.tiny": 3}, ["tables.tiny = 3"]),
    "list": ({"evaluate": []}, ["evaluate = []"]),
}


# The files of the workflow


@pytest.mark.parametrize("edit", WORKFLOW_EDITS)
def test_a_mistake_in_a_workflow_file(project, refused, edit):
    file, changes, words = WORKFLOW_EDITS[edit]
    project.edit(file, changes)
    line = refused(project, "edc", "plan", "tiny")
    assert all(word in line for word in words), line


def test_an_unknown_study(project):
    assert "unknown study 'tinny'; did you mean 'tiny'?" in project.refused("edc", "plan", "tinny")
    assert "unknown study '../studies/tiny'" in project.refused("edc", "plan", "../studies/tiny")


def test_a_plan_that_is_no_text_is_kept(project):
    project.path("params.yaml").write_bytes(b"\xff\xfe\x00")
    before = project.path("dvc.yaml").read_bytes()
    assert "params.yaml: cannot be read (not UTF-8 text)" in project.refused("edc", "plan", "tiny")
    assert project.path("params.yaml").read_bytes() == b"\xff\xfe\x00"
    assert project.path("dvc.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("description: [open", [RECIPE, "not valid YAML"]),
        ("- a\n- b\n", [RECIPE, "mapping"]),
        ("", [RECIPE, "mapping"]),
        ("1: one\n", [RECIPE]),
    ],
    ids=["broken", "list", "empty", "number"],
)
def test_a_recipe_that_is_no_mapping(project, refused, text, words):
    project.write(RECIPE, text)
    line = refused(project, "edc", "plan", "tiny")
    assert all(word in line for word in words), line


def test_a_recipe_that_is_no_text(project):
    project.path(RECIPE).write_bytes(b"description: caf\xe9\n")
    assert RECIPE in project.refused("edc", "plan", "tiny")


def test_plan_outside_of_a_checkout(project):
    shutil.rmtree(project.path("workflow"))
    assert "workflow/studies" in project.refused("edc", "plan")
    assert "workflow/studies" in project.refused("edc", "plan", "tiny")


def test_a_data_folder_for_a_study_that_needs_none(project):
    assert "--data" in project.refused("edc", "plan", "tiny", "--data", ".")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sync", "tiny"], "--sync: expected neither a study"),
        (["--sync", "--cost"], "--sync: expected neither a study"),
        (["--cost"], "--cost: expected a study"),
        (["--data", "."], "--data: expected a study"),
        (["tiny", "--rate", "3"], "--rate: expected with --cost"),
        (["tiny", "--device-name", "it"], "--device-name: expected with --cost"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_say_nothing_together(project, refused, options, words):
    assert words in refused(project, "edc", "plan", *options)


# The plan


@pytest.mark.parametrize("edit", PARAMS_EDITS)
def test_a_mistake_in_the_plan(project, refused, edit):
    changes, words = PARAMS_EDITS[edit]
    project.edit("params.yaml", changes)
    line = refused(project, "edc", "tables", "--run", "tiny")
    assert line.startswith("edc: params.yaml: ")
    assert all(word in line for word in words), line


@pytest.mark.parametrize("text", ["study: [tiny\n", "study: tiny\n\tmachine: 3\n", "- tiny\n"])
def test_a_plan_that_is_no_yaml(project, refused, text):
    project.write("params.yaml", text)
    assert refused(project, "edc", "tables", "--run", "tiny").startswith("edc: params.yaml")
    assert refused(project, "edc", "plan", "--sync").startswith("edc: params.yaml")


def test_no_plan(project):
    project.path("params.yaml").unlink()
    assert "params.yaml: no plan here; write one with `edc plan STUDY`" in project.refused(*PRETRAIN)
    assert "params.yaml" in project.refused("edc", "plan", "--sync")


@pytest.mark.parametrize("stage", STAGES)
def test_an_unknown_run(project, refused, stage):
    known = next(iter(project.plan()[stage]), None)
    asked = known[:-1] if known else "tiny"
    line = refused(project, "edc", stage, "--run", asked)
    assert f"unknown {stage} run {asked!r}" in line
    assert known is None or f"did you mean {known!r}?" in line
