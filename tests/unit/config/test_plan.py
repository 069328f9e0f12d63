"""The plan: studies side by side, what a run depends on, shared values, and mistakes in ``params.yaml``."""

import fcntl
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support import edited, one_line
from support.study import plan, study

from edc.config.compact import PlanFile, compact, expanded, text
from edc.config.expand import Builder
from edc.config.plan import SMALLEST, add, check_sizes, make_plan, render, write_plan
from edc.config.references import check_references, load_plan
from edc.config.rows import Plan, free_key
from edc.config.validation import validate
from edc.errors import EdcError
from edc.nets import build, networks
from edc.storage.planlock import BY_DVC, LOCK

EVALUATE = "evaluate.digits-edc-ipc1-convnet_d2-edc"
SYNTHESIZE = "synthesize.digits-edc-ipc1"
FULL = "evaluate.digits-full-all-convnet_d2-real_data"
RDED = "synthesize.digits-rded-ipc1"


@pytest.fixture(scope="module")
def written() -> str:
    """``params.yaml`` of the small study."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(Path(__file__).parents[3])
        return text(compact(plan()))


def load(values: dict[str, Any]) -> Plan:
    """As :func:`load_plan` does from a file."""
    file = validate(PlanFile, values, "params.yaml")
    made: Plan = validate(Plan, expanded(file, "params.yaml"), "params.yaml")
    check_references(made, "params.yaml")
    return made


# What a run depends on


def test_what_each_run_builds_on() -> None:
    made, observers = plan(), [("pretrain", f"digits-{name}") for name in ("convnet_d1", "convnet_d2", "wrn_16_2")]
    images, labels = ("synthesize", "digits-edc-ipc1"), ("relabel", "digits-edc-ipc1-edc")
    statistics = ("statistics", "digits-p4")
    assert made.upstream("pretrain", "digits-convnet_d1") == []
    assert made.upstream(*statistics) == observers
    assert made.upstream(*images) == [*observers, statistics]
    assert made.upstream("synthesize", "digits-rded-ipc1") == observers[2:]
    assert made.upstream("synthesize", "digits-random-ipc1") == []
    assert made.upstream(*labels) == [images, *observers]
    assert made.upstream("evaluate", "digits-edc-ipc1-convnet_d2-hard_label") == [images, labels]
    assert made.upstream("evaluate", "digits-full-all-convnet_d2-real_data") == []
    # It labels the images of each step itself.
    assert made.upstream("continual", "digits-edc-ipc1-convnet_d2-edc") == [images, *observers]
    assert made.upstream("slimming", "digits-edc-ipc1-vgg11_bn-edc") == [images, labels]
    # It makes the images once more.
    assert made.upstream("analysis", "digits-edc-ipc1-convnet_d2-edc") == [images, labels, *observers, statistics]
    # Imported labels need no teacher.
    row = made.relabel["digits-edc-ipc1-edc"].model_copy(update={"source": "imported"})
    made.relabel["digits-edc-ipc1-edc"] = row
    assert made.upstream("relabel", "digits-edc-ipc1-edc") == [("synthesize", "digits-edc-ipc1")]


def test_a_run_s_identity_is_its_row_and_its_dataset() -> None:
    made = plan()
    values = made.resolved("evaluate", "digits-edc-ipc1-convnet_d2-edc")
    assert set(values) == {"evaluate", "dataset"}
    assert values["dataset"]["name"] == "digits"
    continual = made.resolved("continual", "digits-edc-ipc1-convnet_d2-edc")
    assert continual["relabel"] == made.relabel["digits-edc-ipc1-edc"].model_dump(mode="json")
    with pytest.raises(EdcError, match="unknown evaluate run 'digits-edc-ipc1'; did you mean"):
        made.row("evaluate", "digits-edc-ipc1")


# Studies side by side


def test_studies_share_rows_with_the_same_values() -> None:
    one, two, both = make_plan("digits"), make_plan("digits_more"), make_plan("digits", "digits_more")
    for stage in ("pretrain", "statistics", "synthesize", "relabel", "evaluate"):
        assert getattr(both, stage).items() >= getattr(one, stage).items()
        assert len(getattr(both, stage)) <= len(getattr(one, stage)) + len(getattr(two, stage))
    assert list(both.studies) == ["digits", "digits_more"]
    assert both.studies["digits"] == one.studies["digits"]
    assert len(both.synthesize) == len(one.synthesize) + 2  # edc_code and herding
    assert both == make_plan("digits", "digits_more", "digits")


def test_another_row_under_a_taken_key_gets_a_number_and_is_named_by_it() -> None:
    longer = study(overrides={"recipes": {"edc": {"families": {"digits": {"synthesize": {"jpeg": 50}}}}}})
    values = plan().model_dump(mode="json")
    keys = add(values, Builder("longer", longer).build().model_dump(mode="json"), "longer")
    made: Plan = validate(Plan, values, "params.yaml")
    check_references(made, "params.yaml")
    assert keys["synthesize", "digits-edc-ipc1"] == "digits-edc-ipc1-2"
    assert keys["synthesize", "digits-random-ipc1"] == "digits-random-ipc1"
    row = made.evaluate[keys["evaluate", "digits-edc-ipc1-convnet_d2-edc"]]
    assert (row.images, row.labels) == ("digits-edc-ipc1-2", "digits-edc-ipc1-edc-2")
    assert made.studies["longer"].evaluate[0] == "digits-edc-ipc1-convnet_d2-edc-2"
    assert free_key("a", {"a": 0, "a-2": 0}) == "a-3"


def test_two_datasets_of_one_name_are_refused() -> None:
    other = study(overrides={"datasets": {"digits": {"data": {"pad": 2}}}})
    with pytest.raises(EdcError, match="study 'other': its overrides make another dataset of 'digits'"):
        add(plan().model_dump(mode="json"), Builder("other", other).build().model_dump(mode="json"), "other")


# Shared values


def test_values_stand_once_and_rows_name_them(written: str) -> None:
    values = yaml.safe_load(written)
    row = values["evaluate"]["digits-edc-ipc1-convnet_d2-edc"]
    assert row["training_values"] == "edc"
    assert row["epochs"] == 200
    assert "optimiser" not in row
    assert values["training"]["edc"]["optimiser"]["lr"] == 0.001
    assert set(values["recipes"]) == {"edc", "random", "rded"}
    # A row that differs in little names the values it has in common and writes the others.
    variant = values["evaluate"]["digits-edc-ipc1-convnet_d2-edc-ema_no"]
    assert (variant["training_values"], variant["ema"], variant["variant"]) == ("edc", None, "ema=no")
    assert load(values).model_dump() == plan().model_dump()


def test_a_row_that_differs_in_much_gets_values_of_its_own() -> None:
    change = {"optimiser": {"lr": 1, "momentum": 0, "weight_decay": 1}, "ema": None, "validations": 1}
    variants = {"ema=no": {"protocol": {"student": change}}}
    assert {"edc", "edc-2"} <= set(compact(plan(variants=variants))["training"])


def test_values_of_a_row_come_before_shared_ones(written: str) -> None:
    values = edited(written, {f"{EVALUATE}.optimiser.lr": 0.5, f"{EVALUATE}.epochs": 3})
    row = load(values).evaluate["digits-edc-ipc1-convnet_d2-edc"]
    assert (row.optimiser.lr, row.optimiser.name, row.epochs) == (0.5, "adamw", 3)
    shared = load(edited(written, {"training.edc.optimiser.lr": 0.25})).evaluate
    assert shared["digits-edc-ipc1-convnet_d2-edc"].optimiser.lr == 0.25
    assert shared["digits-rded-ipc1-convnet_d2-rded"].optimiser.lr == 0.001


MISTAKES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "key": ({f"{EVALUATE}.epoch": 5}, [f"{EVALUATE}: unknown key 'epoch'", "'epochs'"]),
    "shared key": ({"recipes.edc.match.alhpa": 1}, ["recipes.edc.match: unknown key 'alhpa'", "'alpha'"]),
    "shared name": ({f"{EVALUATE}.training_values": "edk"}, [f"{EVALUATE}.training_values", "'edk'", "'edc'"]),
    "section": ({"synthesise": {}}, ["unknown key 'synthesise'", "'synthesize'"]),
    "range": ({f"{EVALUATE}.optimiser.lr": -1}, [f"{EVALUATE}.optimiser.lr = -1", "greater than 0"]),
    "infinite": ({f"{EVALUATE}.optimiser.lr": float("inf")}, [f"{EVALUATE}.optimiser.lr = inf", "finite"]),
    "not a number": ({f"{SYNTHESIZE}.match.weight": float("nan")}, [f"{SYNTHESIZE}.match.weight = nan"]),
    "type": ({f"{EVALUATE}.epochs": "many"}, [f"{EVALUATE}.epochs = 'many'", "integer"]),
    "network": ({f"{EVALUATE}.student": "convnet_w23"}, [EVALUATE, "'convnet_w23'", "'convnet_w32'"]),
    "images": ({f"{EVALUATE}.images": "digits-edc-ipc"}, [EVALUATE, "'digits-edc-ipc'", "'digits-edc-ipc1'"]),
    "observers": ({f"{SYNTHESIZE}.observers": ["digits-convnet"]}, [SYNTHESIZE, "'digits-convnet'", "convnet_d"]),
    "no observers": ({f"{SYNTHESIZE}.observers": []}, [SYNTHESIZE, "observers must not be empty"]),
    "no statistics": ({f"{SYNTHESIZE}.statistics": None}, [SYNTHESIZE, "statistics must name a row"]),
    "other statistics": ({"statistics.digits-p4.observers": ["digits-wrn_16_2"]}, ["has no statistics of"]),
    "scorers": ({f"{RDED}.scorers": ["digits-wrn_16"]}, [RDED, "'digits-wrn_16'", "'digits-wrn_16_2'"]),
    "no scorers": ({f"{RDED}.scorers": []}, [RDED, "scorers must not be empty"]),
    "no images": ({f"{EVALUATE}.images": None}, [EVALUATE, "expected images and labels, or null for both"]),
    "other labels": (
        {f"{EVALUATE}.labels": "digits-random-ipc1-edc"},
        [f"{EVALUATE}.labels = 'digits-random-ipc1-edc'", "labels of 'digits-random-ipc1'"],
    ),
    "images of another size": ({f"{EVALUATE}.ipc": 2}, [f"{EVALUATE}.ipc = 2", "'digits-edc-ipc1'"]),
    "images of another recipe": ({f"{EVALUATE}.recipe": "rded"}, [f"{EVALUATE}.recipe = 'rded'", "have 'edc'"]),
    "epochs without labels": ({f"{EVALUATE}.epochs": 201}, [EVALUATE, "epochs = 201", "labels for 200 epochs"]),
    "shares": ({f"{EVALUATE}.phases": [{"regime": "soft", "share": 0.5}]}, [f"{EVALUATE}.phases", "a sum of 1"]),
    "phases": (
        {"continual.digits-edc-ipc1-convnet_d2-edc.phases": [{"regime": "soft", "share": 1.0}]},
        ["continual.digits-edc-ipc1-convnet_d2-edc.phases: expected none"],
    ),
    "hard labels": ({f"{FULL}.loss.hard": {}}, [f"{FULL}.loss.hard: expected none", "of condensed images"]),
    "dataset": ({f"{EVALUATE}.dataset": "digitz"}, [EVALUATE, "'digitz'", "'digits'"]),
    "study": ({"studies.small.evaluate": ["digits-edc"]}, ["studies.small.evaluate", "unknown evaluate row"]),
    "row": ({"studies.small": 3}, ["studies.small = 3"]),
    "list": ({"evaluate": []}, ["evaluate = []"]),
    "misspelt section": ({"datasets": {}, "dataset": {}}, ["unknown key 'dataset'", "'datasets'"]),
    "mean up to 255": ({"datasets.digits.mean": [78.0]}, ["datasets.digits", "mean = [78.0]", "divide by 255"]),
    "std up to 255": ({"datasets.digits.std": [87.2]}, ["datasets.digits", "std = [87.2]", "divide by 255"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_plan(written: str, name: str) -> None:
    changes, words = MISTAKES[name]
    with one_line(*words, start="params.yaml: "):
        load(edited(written, changes))


# Networks and images


@pytest.mark.parametrize(
    ("network", "size", "words"),
    [
        ("timm:test_vit", 8, "evaluate.digits-edc-ipc1-student-edc.student = 'timm:test_vit' on digits (8 px)"),
        ("convnet_w32", 4, "image_size 8 or more, got 4"),
        ("torchvision:resnet18", 32, "channels is 1"),
    ],
)
def test_a_network_that_cannot_take_the_images_is_refused_before_anything_runs(network, size, words) -> None:
    values = plan().model_dump(mode="json")
    values["datasets"]["digits"]["image_size"] = size
    row = values["evaluate"]["digits-edc-ipc1-convnet_d2-edc"] | {"student": network}
    made = Plan.model_validate(values | {"evaluate": {"digits-edc-ipc1-student-edc": row}})
    with one_line(words, "expected another network"):
        check_sizes(made)


def test_networks_of_this_package_take_all_sizes_that_are_not_tried() -> None:
    for network in networks():
        model = build(network, classes=2, image_size=SMALLEST, channels=1).eval()
        assert model(torch.zeros(1, 1, SMALLEST, SMALLEST)).shape == (1, 2)


# The file


def test_a_plan_is_written_whole_and_an_edited_one_is_moved_away(tmp_path: Path) -> None:
    made = plan()
    assert write_plan(made, tmp_path) is None
    path = tmp_path / "params.yaml"
    assert path.read_text() == render(made)
    assert load_plan(path) == made
    assert write_plan(made, tmp_path) is None
    path.write_text("edited: true\n")
    previous = write_plan(made, tmp_path)
    assert previous is not None
    assert previous.read_text() == "edited: true\n"


@pytest.mark.parametrize("lock", [LOCK, BY_DVC])
def test_a_plan_is_not_replaced_while_runs_of_it_are_made(lock: Path, tmp_path: Path) -> None:
    write_plan(plan(), tmp_path)
    before, other = (tmp_path / "params.yaml").read_text(), plan(seed=1)
    (tmp_path / lock).parent.mkdir(parents=True, exist_ok=True)
    with (tmp_path / lock).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # by each of several runners
        write_plan(plan(), tmp_path)
        with one_line("params.yaml: runs of it are being made"):
            write_plan(other, tmp_path)
        assert (tmp_path / "params.yaml").read_text() == before
    assert write_plan(other, tmp_path)


@pytest.mark.parametrize("content", [b"study: [tiny\n", b"studies: a\n\tmachine: 3\n", b"- tiny\n", b"\xff\xfe\x00"])
def test_a_plan_that_is_no_yaml(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(EdcError, match=r"params\.yaml"):
        load_plan(tmp_path / "params.yaml")
    with pytest.raises(EdcError, match="no plan here; write one with `edc plan STUDY`"):
        load_plan(tmp_path / "other.yaml")
