"""The benchmark: what it measures runs, adds up, and is not measured twice. Nothing is asserted about times."""

from __future__ import annotations

import gc
import json
import math
import weakref
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from edc.bench import projection
from edc.bench.cases import ALL, Bench, Case
from edc.bench.pieces import STAGES
from edc.bench.run import COLUMNS, IMAGES, bench, cases, measure, summary
from edc.bench.timing import Work, held_at_most, most_in_tensors, side_by_side
from edc.condense.budget import activations, groups_at_once
from edc.pipeline.devices import peak_memory
from edc.errors import EdcError
from edc.training.students import Student
from edc.condense.watching import Watcher


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_measured(stage: str) -> None:
    case = Case(stage, "digits", "wrn_16_2", 10)
    line = measure(case, "cpu", torch.get_num_threads(), 0, "edc_code")
    assert list(line)[: len(COLUMNS)] == list(COLUMNS)
    assert {name: line[name] for name in asdict(case)} == asdict(case)
    assert all(line[name] > 0 for name in ("milliseconds", "bare", "ratio", "floor_mb"))
    assert line["peak_mb"] > 0
    assert line["process_mb"] is not None
    assert (line["reference"] is not None) == (stage in ("statistics", "synthesize"))
    json.dumps(line)


def test_the_stage_measured_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every student it trains has learned something afterwards: not an empty shell."""
    made: list[Student] = []

    class Noted(Student):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr("edc.bench.pieces.Student", Noted)
    bench = Bench(Case("evaluate", "digits", "convnet_d1", 25, 2), torch.device("cpu"), "edc")
    pieces = STAGES["evaluate"](bench)
    before = [parameters_to_vector(student.model.parameters()).detach().clone() for student in made]
    assert pieces.units == 4
    pieces.stage()
    assert len(made) == 2
    for student, old in zip(made, before, strict=True):
        assert not torch.equal(parameters_to_vector(student.model.parameters()), old)


def test_what_is_measured_where_nothing_is_asked_for() -> None:
    found = cases("cifar10", [], [], [])
    assert {case.stage for case in found} == set(STAGES)
    observers = {case.network for case in found if case.stage == "synthesize"}
    assert len(observers) == 8
    assert {case.images for case in found if case.stage == "synthesize"} == set(IMAGES["synthesize"])
    assert {(c.network, c.seeds) for c in found if c.stage == "evaluate"} == {
        (network, seeds) for network in ("resnet18", "convnet_w128") for seeds in (1, 3)
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("cifar10", ["synthesise"], [], []), "--stage"),
        (("cifar10", [], ["resnet"], []), "'resnet'"),
        (("cifar", [], [], []), "--dataset"),
        (("cifar10", ["evaluate"], [ALL], []), "'all'"),
    ],
)
def test_unknown_names(arguments: tuple[str, list[str], list[str], list[int]], said: str) -> None:
    with pytest.raises(EdcError, match=said):
        cases(*arguments)


def test_what_is_measured_stays_measured(tmp_path: Path) -> None:
    to = tmp_path / "bench.csv"
    todo = [Case("relabel", "digits", "convnet_d1", 100), Case("relabel", "digits", "convnet_d2", 100)]
    first = bench(todo[:1], "cpu", 1, 0, "edc_code", to)
    both = bench(todo, "cpu", 1, 0, "edc_code", to)
    assert both["network"].tolist() == ["convnet_d1", "convnet_d2"]
    assert both["milliseconds"].iloc[0] == pytest.approx(first["milliseconds"].iloc[0], abs=1e-4)
    assert pd.read_csv(to)["network"].tolist() == ["convnet_d1", "convnet_d2"]
    other = bench(todo[:1], "cpu", 1, 0, "edc", to)
    assert other["recipe"].tolist() == ["edc"]
    stored = pd.read_csv(to)
    assert stored["recipe"].tolist() == ["edc_code", "edc_code", "edc"]
    assert set(stored["threads"]) == {1}
    assert stored[["device", "torch", "commit", "dirty"]].notna().all(axis=None)


@pytest.mark.parametrize("text", ["", "stage,network\n", 'nonsense "x\n', None])
def test_a_file_of_something_else_is_left_alone(text: str | None, tmp_path: Path) -> None:
    to = tmp_path / "bench.csv"
    to.mkdir() if text is None else to.write_text(text)
    with pytest.raises(EdcError, match=r"bench\.csv: "):
        bench([Case("relabel", "digits", "convnet_d1", 100)], "cpu", 1, 0, "edc", to)
    assert text is None or to.read_text() == text


@pytest.mark.parametrize(("stage", "images"), [("evaluate", 101), ("relabel", 150)])
def test_images_a_stage_would_not_work_with(stage: str, images: int) -> None:
    with pytest.raises(EdcError, match=f"--images {images}: {stage}"):
        cases("digits", [stage], ["convnet_d1"], [images])


@pytest.mark.parametrize("recipe", ["sre2l", "random"])
def test_a_recipe_without_statistics(recipe: str) -> None:
    case = Case("evaluate", "digits", "convnet_d1", 50)
    assert measure(case, "cpu", torch.get_num_threads(), 0, recipe)["recipe"] == recipe


def test_an_unknown_precision(tmp_path: Path) -> None:
    with pytest.raises(EdcError, match="--precision"):
        bench([], "cpu", 1, 0, "edc", tmp_path / "bench.csv", "half")


@pytest.mark.parametrize("device", ["gpu", *(["cuda"] if not torch.cuda.is_available() else [])])
def test_a_device_that_is_not_here(device: str, tmp_path: Path) -> None:
    with pytest.raises(EdcError, match="--device"):
        bench([], device, 1, 0, "edc", tmp_path / "bench.csv")


def line(network: str, milliseconds: float, bare: float, **others: object) -> dict[str, object]:
    plain = {"stage": "synthesize", "images": 10, "seeds": 1, "unit": "iteration", "ratio": milliseconds / bare}
    plain |= {"dataset": "cifar10", "recipe": "edc_code", "threads": 2, "precision": "float32"}
    return dict.fromkeys(COLUMNS) | plain | {"network": network, "milliseconds": milliseconds, "bare": bare} | others


def test_networks_are_summed() -> None:
    small = {"peak_mb": 2.0, "floor_mb": 0.5, "bare_peak_mb": 1.0, "process_mb": 9.0}
    memory = {"peak_mb": 3.0, "floor_mb": 2.0, "bare_peak_mb": 2.5, "process_mb": 4.0}
    table = pd.DataFrame([line("a", 3, 2, reference=8, **small), line("b", 30, 10, reference=40, **memory)])
    found = summary(table).iloc[0]
    assert (found["networks"], found["milliseconds"], found["bare"]) == (2, 33, 12)
    assert found["ratio"] == pytest.approx(33 / 12)
    assert found["largest_ratio"] == 3
    assert found["reference_ratio"] == pytest.approx(4)
    assert found["peak_to_floor"] == pytest.approx(1.5)
    assert found["peak_to_bare"] == pytest.approx(1.2)
    assert found["process_mb"] == 4
    both = pd.DataFrame([line(ALL, 20, 11, reference=50, **memory)])
    together = summary(pd.concat([table, both])).iloc[0]
    assert (together["networks"], together["ratio"]) == (2, pytest.approx(20 / 11))
    assert together["largest_ratio"] == 3


def test_projection_to_whole_jobs(tmp_path: Path) -> None:
    """Two observers at 20 and 30 ms for 80 pictures: 3,200 a second, 20 million visits in 1.74 hours."""
    large = [line("a", 20, 1, images=80), line("b", 30, 1, images=80)]
    large += [line(name, 0.05, 1, stage="relabel", images=500) for name in "ab"]
    small = [line("resnet18", 12, 1, stage="evaluate", images=25, seeds=3)]
    for name, lines in (("imagenet1k", large), ("cifar10", small)):
        pd.DataFrame(lines).to_csv(tmp_path / f"cuda-{name}.csv", index=False)
    found = projection.synthesis(pd.DataFrame(large)).iloc[0]
    assert found["per_second"] == pytest.approx(3200)
    assert found["hours"] == pytest.approx(2e7 / 3200 / 3600)
    short = [*large, line("a", 1, 1, images=160)]  # the other one did not fit
    assert list(projection.synthesis(pd.DataFrame(short))["images"]) == [80]
    said = projection.report(tmp_path)
    assert "10,000 images a second" in said
    assert "48 s" in said


def test_pieces_take_turns() -> None:
    calls: list[str] = []
    times = side_by_side({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, torch.device("cpu"), 0)
    assert calls == ["a", "b"] * 4
    assert len(times["a"]) == len(times["b"]) == 3


# -------------------------------------------------------------------------------------------- memory and start-up


def test_activations_are_what_the_backward_pass_keeps() -> None:
    """Per image the convolution's input of 8 x 8 values and the ReLU's output of 4 x 8 x 8; no weights."""
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU()).eval().requires_grad_(False)
    assert activations(model, (1, 8, 8), 6) == 6 * 4 * (64 + 4 * 64)


@pytest.mark.parametrize(("kilobytes", "groups"), [(1, 1), (11.5, 1), (23.1, 2), (116, 10)])
def test_groups_fill_the_memory_there_is_to_plan_with(kilobytes: float, groups: int) -> None:
    """Of the two networks the one that keeps more decides: 7,680 bytes for six images, and half of that beside them."""
    large, small = (
        torch.nn.Sequential(torch.nn.Conv2d(1, width, 3, padding=1), torch.nn.ReLU()).eval().requires_grad_(False)
        for width in (4, 1)
    )
    memory = kilobytes * 1e3 / 1e9
    assert groups_at_once([small, large], (1, 8, 8), 6, torch.device("cuda"), memory) == groups
    assert groups_at_once([small, large], (1, 8, 8), 6, torch.device("cpu"), memory) == 1


def test_what_is_counted_is_let_go() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Sigmoid()).eval().requires_grad_(False)
    weight = weakref.ref(model[0].weight)
    activations(model, (1, 8, 8), 6)
    del model
    gc.collect()
    assert weight() is None


def test_tensors_are_counted_while_they_are_held() -> None:
    """What is made for the work or by its first round counts, what is given back before or meanwhile does not."""
    kilobyte, kept = 256, list[torch.Tensor]()

    def make() -> Work:
        torch.ones(100 * kilobyte)
        held = torch.ones(8 * kilobyte)

        def work() -> None:
            if not kept:
                kept.append(torch.ones(16 * kilobyte))
            for _ in range(3):
                held + torch.ones(8 * kilobyte)

        return work

    assert most_in_tensors(make) == pytest.approx(40 * 1024, abs=64)


def test_peak_memory_is_this_process_own() -> None:
    before = peak_memory()
    held = torch.ones(64 * 2**20)
    assert peak_memory() - before > 0.5 * held.numel() * 4
    assert math.isfinite(float(held[0]))


def test_watching_leaves_nothing_behind() -> None:
    """Many visits hold no more memory than one: no graph survives its backward pass."""
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(64, 3, 1))
    watcher = Watcher(model.eval().requires_grad_(False), 4, (3, 64, 64))
    x = torch.randn(16, 3, 64, 64, requires_grad=True)

    def visit() -> None:
        logits, statistics = watcher(x)
        (logits.mean() + statistics.sum()).backward()

    for _ in range(3):
        visit()
    before = peak_memory()
    for _ in range(30):
        visit()
    assert peak_memory() - before < 10 * 16 * 64 * 64**2 * 4


def test_a_pass_holds_what_it_has_not_given_back() -> None:
    """Three maps of four bytes a value: the input, what the first layer makes of it, what the second makes of that."""
    network = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    assert held_at_most(network, (1, 4, 4), 10) == 10 * 4 * 16 * (1 + 2 + 2)
