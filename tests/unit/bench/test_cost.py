"""What a plan takes, before anything starts."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from support import golden

from edc import STAGES
from edc.bench.cost import REGULARISERS, Cost, Estimate, report, statistics_size
from edc.bench.dataset_sizes import KNOWN, Images, count_images
from edc.bench.rate import machine_rate
from edc.config import choices
from edc.config.rows import Dataset, Plan
from edc.data.pictures import available_cores
from edc.data.sets import load_split
from edc.errors import EdcError
from edc.nets.flops import arithmetic

BUDGETS = golden("baselines")["evaluation_budget"]
"""What the published protocols amount to."""
SGD = {"name": "sgd", "lr": 0.1}
CONSTANT = {"name": "constant"}
D1, D2 = (arithmetic(name, 10, 32).macs for name in ("convnet_d1", "convnet_d2"))


@pytest.fixture(autouse=True)
def no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither folders nor variables that say where a dataset lies."""
    for name in [name for name in os.environ if name.startswith("EDC_DATA_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def dataset(**values: Any) -> Dataset:
    shape = {"image_size": 32, "channels": 3, "classes": 10, "mean": [0.5] * 3, "std": [0.25] * 3}
    return Dataset.model_validate({"name": "c", "family": "cifar10", "kind": "parquet", **shape, **values})


def plan(images: dict[str, Any] | None = None, **sections: Any) -> Plan:
    """A study on CIFAR-10 with two observers, as far as its sections are given."""
    training = {"dataset": "c", "epochs": 0, "batch": 64, "optimiser": SGD, "schedule": CONSTANT, "seed": 0}
    pretrain = {key: training | {"network": f"convnet_{key}"} for key in ("d1", "d2")}
    values = {"studies": {}, "datasets": {"c": dataset(**(images or {}))}, "pretrain": pretrain, **sections}
    return Plan.model_validate(values)


def condensed(**values: Any) -> dict[str, Any]:
    made = {"optimise": {"iterations": 0}, "match": {"target": "none"}, "observers": ["d1", "d2"]}
    return {"dataset": "c", "recipe": "r", "ipc": 10, "seed": 0, **made, **values}


def student(**values: Any) -> dict[str, Any]:
    row = {"dataset": "c", "recipe": "r", "ipc": 10, "student": "convnet_d1", "protocol": "p", "regime": "soft"}
    row |= {"images": "x", "labels": "y", "seeds": [0], "epochs": 10, "batch": 50, "validations": 1}
    return row | {"optimiser": SGD, "schedule": CONSTANT} | values


@pytest.mark.parametrize("case", BUDGETS.values(), ids=BUDGETS)
def test_published_budgets(case: dict[str, int]) -> None:
    row = student(ipc=case["images"] // 10, batch=case["batch"], epochs=case["epochs"])
    cost = Estimate(plan(synthesize={"x": condensed(ipc=row["ipc"])}, evaluate={"e": row})).stage("evaluate")
    assert cost.steps == case["optimizer_steps"]
    assert cost.macs == D1 * (3 * case["image_passes"] + 10_000)


def test_a_lonely_last_image_is_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """21 images in batches of 10: training joins the last one with the batch before it."""
    monkeypatch.setitem(KNOWN, "three", (3, 30, 30))
    rows = {"synthesize": {"x": condensed(ipc=7)}, "evaluate": {"e": student(batch=10)}}
    assert Estimate(plan({"family": "three", "classes": 3}, **rows)).stage("evaluate").steps == 10 * 2


def test_seeds_and_evaluations_count() -> None:
    rows = {"e": student(seeds=[0, 1, 2], validations=4), "f": student(seeds=[5], epochs=3, validations=10)}
    cost = Estimate(plan(synthesize={"x": condensed()}, evaluate=rows)).stage("evaluate")
    passes = 3 * (3 * 10 * 100 + 4 * 10_000) + (3 * 3 * 100 + 3 * 10_000)
    assert cost == Cost(runs=2, steps=3 * 20 + 6, macs=D1 * passes)


def test_the_dataset_itself_and_its_held_out_images() -> None:
    row = student(images=None, labels=None, ipc=0, regime="hard", batch=128)
    cost = Estimate(plan({"val_fraction": 0.0}, evaluate={"e": row})).stage("evaluate")
    assert cost.steps == 10 * 391
    assert cost.macs == D1 * (3 * 10 * 50_000 + 10_000)
    rows = [student(validations=10, split=split) for split in ("test", "val")]
    tested, held = (Estimate(plan(synthesize={"x": condensed()}, evaluate={"e": row})) for row in rows)
    assert tested.stage("evaluate").macs - held.stage("evaluate").macs == 10 * (10_000 - 5_000) * D1


def test_observers_and_their_statistics() -> None:
    made = plan()
    row = made.pretrain["d1"].model_copy(update={"epochs": 2})
    cost = Estimate(made).pretrain(row)
    assert cost.steps == 2 * 704  # 45,000 images in batches of 64, the last one of 8
    assert cost.macs == D1 * 2 * (3 * 45_000 + 5_000)
    assert cost.stored == 4 * 331_530
    assert Estimate(made).stage("pretrain").runs == 2
    row = {"dataset": "c", "observers": ["d1", "d2"], "patch": 4, "batch": 64, "seed": 0}
    cost = Estimate(plan(statistics={"s": row})).stage("statistics")
    assert cost == Cost(runs=1, macs=45_000 * (D1 + D2), stored=4 * 11 * (134 + 422))


@pytest.mark.parametrize(
    ("network", "image_size", "patch", "size"),
    [
        ("resnet18", 32, 4, 18_388),
        ("mobilenet_v2_half", 64, 4, 36_580),
        ("wrn_16_2", 32, 4, 4_830),
        ("torchvision:shufflenet_v2_x0_5", 224, 16, 14_874),
        ("torchvision:efficientnet_b0", 224, 16, 101_310),
    ],
)
def test_statistics_have_their_published_size(network: str, image_size: int, patch: int, size: int) -> None:
    assert statistics_size(network, 10, image_size, 3, patch) == size


VISITS = {"none": 2, "logits": 3, "statistics": 3, "sam": 5, "densification": 2}


@pytest.mark.parametrize(("method", "visit"), VISITS.items())
def test_synthesis(method: str, visit: int) -> None:
    assert set(REGULARISERS) == set(choices.REGULARISE) >= set(VISITS)
    row = condensed(optimise={"iterations": 50, "group": 30}, regularise={"method": method})
    cost = Estimate(plan(synthesize={"x": row})).stage("synthesize")
    assert cost.steps == 4 * 50  # groups of 30, 30, 30 and 10 images
    assert cost.macs == visit * 100 * 50 * ((D1 + D2) // 2)
    assert cost.stored == 100 * (3 * 32 * 32 + 8)
    for part in ({"sizes": [16, 32]}, {"stagger": 4}):  # pixels of 5/8, images of 1, 2, 3 and 4 fourths
        fewer = condensed(optimise={"iterations": 50, "group": 30} | part, regularise={"method": method})
        assert Estimate(plan(synthesize={"x": fewer})).stage("synthesize").macs == cost.macs * 5 // 8
    rounds = condensed(optimise={"iterations": 50, "rounds": 0})
    assert Estimate(plan(synthesize={"x": rounds})).stage("synthesize").steps == 10 * 50


@pytest.mark.parametrize(
    ("initialise", "passes"),
    [
        ({"method": "real"}, 0),
        ({"method": "composites", "candidates": 300, "crops": 5}, 10 * 300 * 5),
        ({"method": "composites", "candidates": 9_000, "crops": 1}, 45_000),
        ({"method": "herding"}, 45_000),
    ],
)
def test_scored_images(initialise: dict[str, Any], passes: int) -> None:
    row = condensed(initialise=initialise, scorers=["d2"], observers=[])
    assert Estimate(plan(synthesize={"x": row})).stage("synthesize").macs == passes * D2


def test_relabel() -> None:
    row = {"dataset": "c", "images": "x", "observers": ["d1", "d2"], "flip": True, "epochs": 300, "batch": 50}
    cost = Estimate(plan(synthesize={"x": condensed()}, relabel={"y": row})).stage("relabel")
    assert cost.macs == (D1 + D2) * (300 * 100 + 100 + 2_000)
    assert cost.stored == 2 * 10 * 100 * (300 + 1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, Images(45_000, 5_000, 10_000, 4_500, False)),
        ({"val_fraction": 0.0}, Images(50_000, 0, 10_000, 5_000, False)),
        ({"train_per_class": 500, "test_per_class": 200}, Images(4_500, 500, 2_000, 450, False)),
        ({"train_per_class": 6_000, "test_per_class": 6_000}, Images(45_000, 5_000, 10_000, 4_500, False)),
    ],
)
def test_known_sizes(values: dict[str, Any], expected: Images) -> None:
    assert count_images(dataset(**values)) == expected


def test_known_families_lose_no_image() -> None:
    for family, (classes, train, test) in KNOWN.items():
        found = count_images(dataset(family=family, classes=classes))
        assert (found.train + found.val, found.test, found.counted) == (train, test, False), family


def test_images_that_are_here_are_counted(tmp_path: Path) -> None:
    digits = dataset(family="digits", kind="digits", channels=1, image_size=8, mean=[0.3], std=[0.3])
    found = count_images(digits)
    splits = {split: load_split(digits, split) for split in ("train", "val", "test")}
    smallest = int(splits["train"].labels.bincount().min())
    assert found == Images(*map(len, splits.values()), smallest, counted=True)
    assert found.train + found.val + found.test == 1_797
    for part, count in (("train", 6), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / part / name).mkdir(parents=True)
            for i in range(count):
                (tmp_path / "pets" / part / name / f"{i}.png").write_bytes(b"never opened")
    pets = dataset(family="pets", kind="folder", root=str(tmp_path / "pets"), classes=2, val_fraction=0.2)
    assert count_images(pets) == Images(10, 2, 4, 5, True)


@pytest.mark.parametrize("values", [{"family": "pets"}, {"family": "imagenet1k", "classes": 100}])
def test_unknown_sizes_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(EdcError, match=r"^dataset c: no folder given; .*; the cost needs the number of images$"):
        count_images(dataset(**values))


def test_the_published_bill_of_imagenet() -> None:
    """Arithmetic of IPC 10 with ResNet-18: 33 PFLOP of training, 17 of labels, 52 of synthesis (forward, backward)."""
    observers = ["resnet18", "mobilenet_v2", "shufflenet_v2_x0_5", "alexnet"]
    training = {"dataset": "i", "epochs": 0, "batch": 64, "optimiser": SGD, "schedule": CONSTANT, "seed": 0}
    row = {"dataset": "i", "images": "x", "observers": observers, "flip": True, "epochs": 300, "batch": 100}
    matched = [*observers, "efficientnet_b0"]
    made = Plan(
        studies={},
        datasets={"i": dataset(family="imagenet1k", classes=1000, image_size=224)},
        pretrain={key: training | {"network": f"torchvision:{key}"} for key in matched},
        synthesize={"x": condensed(dataset="i", observers=matched, optimise={"iterations": 2000})},
        relabel={"y": row},
        evaluate={"e": student(dataset="i", student="torchvision:resnet18", epochs=300, batch=100)},
    )
    estimate = Estimate(made)
    evaluations = 2 * 50_000 * 1.8141e9
    assert 2 * estimate.stage("evaluate").macs - evaluations == pytest.approx(33e15, rel=0.02)
    assert 2 * estimate.stage("relabel").macs == pytest.approx(17e15, rel=0.02)
    assert 2 * estimate.stage("synthesize").macs == pytest.approx(52e15, rel=0.02)
    assert estimate.stage("relabel").stored == 2 * 10_000 * 1_000 * 301


def test_continual_learning_counts_what_is_remembered() -> None:
    """Two steps of 50 and 100 of 100 images, two orders, three seeds: batches of 50, five epochs, two observers."""
    row = student(steps=2, orders=[0, 1], seeds=[0, 1, 2], epochs=5)
    labels = {"dataset": "c", "images": "x", "observers": ["d1", "d2"], "flip": True, "epochs": 5, "batch": 50}
    made = plan(synthesize={"x": condensed()}, relabel={"y": labels}, continual={"k": row})
    cost = Estimate(made).stage("continual")
    assert cost.steps == 2 * 3 * 5 * (1 + 2)
    training = 3 * (3 * 5 * (50 + 100) + (5_000 + 10_000)) * D1
    assert cost.macs == 2 * (training + 5 * (50 + 100) * (D1 + D2))


def test_slimming_counts_the_training_and_every_fine_tuning() -> None:
    row = student(student="vgg11_bn", sparsity=0.01, ratios=[0, 0.3, 0.7], finetune=4, seeds=[0, 1], epochs=10)
    labels = {"dataset": "c", "images": "x", "observers": ["d1"], "flip": True, "epochs": 10, "batch": 50}
    cost = Estimate(plan(synthesize={"x": condensed()}, relabel={"y": labels}, slimming={"k": row})).stage("slimming")
    epochs, evaluated = 2 * (10 + 2 * 4), 2 * 5 * 10_000
    assert cost.steps == epochs * 2
    assert cost.macs == (3 * epochs * 100 + evaluated) * arithmetic("vgg11_bn", 10, 32).macs


def test_report() -> None:
    rows = {f"e{i}": student(seeds=[i]) for i in range(400)}
    made = plan(synthesize={"x": condensed(optimise={"iterations": 5})}, evaluate=rows)
    text = report(made, 40, "one good GPU")
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[: len(STAGES) + 1]] == [*["stage", *STAGES][:-1], "total"]
    assert re.fullmatch(r"evaluate +400 +8,000 +[\d.]+ TFLOP +- +\S+( \S+)?", lines[5])
    known = "c: 45,000 images to train on, 5,000 held out, 10,000 to test (known sizes, no data were read)"
    assert lines[len(STAGES) + 1] == known
    assert "one good GPU at 40 TFLOP/s" in lines[-1]
    assert max(map(len, lines)) <= 120
    assert Cost(macs=18 * 10**15).hours(rate=10.0) == 1.0
    with pytest.raises(EdcError, match="--rate 0: expected TFLOP/s above 0"):
        report(plan(), 0, "")


@pytest.mark.parametrize("threads", [1, available_cores()])
def test_a_cpu_is_measured_as_the_runs_that_it_executes_side_by_side(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    rate, name = machine_rate(plan(machine={"device": "cpu", "threads": threads}))
    assert rate > 0
    assert name.startswith(f"this machine ({available_cores() // threads} processes, CPU)")
