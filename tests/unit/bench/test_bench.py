"""The benchmark: what it measures runs and adds up. Nothing is asserted about times."""

import gc
import json
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
import torch
from support import REPOSITORY
from torch import nn
from torch.nn.utils import parameters_to_vector

from edc.bench.cases import ALL, BenchInputs, Case, Work
from edc.bench.measure import in_turns, measure
from edc.bench.memory import map_bytes, tensor_peak
from edc.bench.run import COLUMNS, IMAGES, cases, run_bench, summary
from edc.bench.workloads import STAGES
from edc.condense.budget import activation_bytes, groups_at_once
from edc.condense.layer_statistics import StatisticsCollector
from edc.errors import EdcError
from edc.pipeline.devices import peak_memory
from edc.training.students import Student

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_measured(stage):
    case = Case(stage, "digits", "wrn_16_2", 10)
    row = measure(case, "cpu", 1, 0, "edc_code")
    assert set(row) == set(COLUMNS)
    assert {name: row[name] for name in asdict(case)} == asdict(case)
    assert all(row[name] > 0 for name in ("milliseconds", "bare", "ratio", "floor_mb", "peak_mb"))
    assert (row["reference"] is not None) == (stage in ("statistics", "synthesize"))
    json.dumps(row)
    if stage == "evaluate":  # recipes without statistics
        for recipe in ("sre2l", "random"):
            assert measure(Case("evaluate", "digits", "convnet_d1", 50), "cpu", 1, 0, recipe)["recipe"] == recipe


def test_the_measured_stage_trains_every_student(monkeypatch):
    students: list[Student] = []

    class Recorded(Student):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            students.append(self)

    monkeypatch.setattr("edc.bench.workloads.Student", Recorded)
    workload = STAGES["evaluate"](BenchInputs(Case("evaluate", "digits", "convnet_d1", 25, 2), CPU, "edc"))
    assert workload.units == 4
    assert workload.reference is not None
    reference = workload.reference()
    assert len(students) == 4
    before = [parameters_to_vector(student.model.parameters()).detach().clone() for student in students]
    workload.stage()
    reference()
    for student, old in zip(students, before, strict=True):
        assert not torch.equal(parameters_to_vector(student.model.parameters()), old)


def test_default_cases():
    default = cases("cifar10", [], [], [])
    assert {case.stage for case in default} == set(STAGES)
    synthesize = [case for case in default if case.stage == "synthesize"]
    assert len({case.network for case in synthesize}) == 8
    assert {case.images for case in synthesize} == set(IMAGES["synthesize"])
    students = {(case.network, case.seeds) for case in default if case.stage == "evaluate"}
    assert students == {(network, seeds) for network in ("resnet18", "convnet_w128") for seeds in (1, 3)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cifar10", ["synthesise"], [], []), "--stage"),
        (("cifar10", [], ["resnet"], []), "'resnet'"),
        (("cifar", [], [], []), "--dataset"),
        (("cifar10", ["evaluate"], [ALL], []), "'all'"),
        (("digits", ["evaluate"], ["convnet_d1"], [101]), "--images 101: evaluate"),
        (("digits", ["relabel"], ["convnet_d1"], [150]), "--images 150: relabel"),
    ],
)
def test_cases_that_are_refused(arguments, message):
    with pytest.raises(EdcError, match=message):
        cases(*arguments)


@pytest.mark.parametrize(("option", "value"), [("device", "gpu"), ("recipe", "ecd"), ("precision", "half")])
def test_options_that_are_refused(option, value, tmp_path):
    options = {"device": "cpu", "recipe": "edc", "precision": "float32", option: value}
    with pytest.raises(EdcError, match=f"--{option}: unknown"):
        run_bench([], options["device"], 1, 0, [options["recipe"]], tmp_path / "bench.csv", options["precision"])


@pytest.mark.parametrize("text", ["", "stage,network\n", 'nonsense "x\n', None])
def test_a_file_of_something_else_is_not_overwritten(text, tmp_path):
    to = tmp_path / "bench.csv"
    to.mkdir() if text is None else to.write_text(text)
    with pytest.raises(EdcError, match=r"bench\.csv: "):
        run_bench([Case("relabel", "digits", "convnet_d1", 100)], "cpu", 1, 0, ["edc"], to)
    assert text is None or to.read_text() == text


def test_committed_measurements_have_the_columns():
    for path in Path("results/bench").glob("*.csv"):
        assert list(pd.read_csv(path).columns) == COLUMNS


def row(network: str, milliseconds: float, bare: float, **others: object) -> dict[str, object]:
    values = {"stage": "synthesize", "images": 10, "seeds": 1, "unit": "iteration", "ratio": milliseconds / bare}
    values |= {"dataset": "cifar10", "recipe": "edc_code", "threads": 2, "precision": "float32"}
    return dict.fromkeys(COLUMNS) | values | {"network": network, "milliseconds": milliseconds, "bare": bare} | others


def test_networks_are_summed():
    small = {"peak_mb": 2.0, "floor_mb": 0.5, "bare_peak_mb": 1.0}
    large = {"peak_mb": 3.0, "floor_mb": 2.0, "bare_peak_mb": 2.5, "process_mb": 4.0}
    table = pd.DataFrame([row("a", 3, 2, reference=8, **small), row("b", 30, 10, reference=40, **large)])
    sums = summary(table).iloc[0]
    names = ["networks", "milliseconds", "bare", "ratio", "largest_ratio", "reference_ratio", "peak_to_floor"]
    values = sums[[*names, "peak_to_bare", "process_mb"]].astype(float).tolist()
    assert values == pytest.approx([2, 33, 12, 33 / 12, 3, 4, 1.5, 1.2, 4])
    together = summary(pd.concat([table, pd.DataFrame([row(ALL, 20, 11, reference=50, **large)])])).iloc[0]
    assert (together["networks"], together["ratio"]) == (2, pytest.approx(20 / 11))
    assert together["largest_ratio"] == 3


def test_work_is_done_in_turns():
    calls: list[str] = []
    times = in_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, CPU, 0)
    assert calls == ["a", "b"] * 4
    assert len(times["a"]) == len(times["b"]) == 3


def convolution(width: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU()).eval().requires_grad_(False)


def test_activations_are_what_the_backward_pass_keeps():
    """Per image the convolution's input of 8 x 8 values and the ReLU's output of 4 x 8 x 8; no weights."""
    model = convolution(4)
    assert activation_bytes(model, (1, 8, 8), 6) == 6 * 4 * (64 + 4 * 64)
    weight = weakref.ref(model[0].weight)
    del model
    gc.collect()
    assert weight() is None


@pytest.mark.parametrize(("kilobytes", "groups"), [(1, 1), (11.5, 1), (23.1, 2), (116, 10)])
def test_groups_fill_the_planned_memory(kilobytes, groups):
    """Of two networks the one that keeps more decides: 7,680 bytes for six images, and half of that in addition."""
    networks, memory = [convolution(1), convolution(4)], kilobytes * 1e3 / 1e9
    assert groups_at_once(networks, (1, 8, 8), 6, torch.device("cuda"), memory) == groups
    assert groups_at_once(networks, (1, 8, 8), 6, CPU, memory) == 1


def test_tensors_are_counted_while_they_exist():
    """Tensors made for the work or by its first round count, those freed before or meanwhile do not."""
    kilobyte, of_first_round = 256, list[torch.Tensor]()

    def make() -> Work:
        torch.ones(100 * kilobyte)
        of_work = torch.ones(8 * kilobyte)

        def work() -> None:
            if not of_first_round:
                of_first_round.append(torch.ones(16 * kilobyte))
            for _ in range(3):
                of_work + torch.ones(8 * kilobyte)

        return work

    assert tensor_peak(make) == pytest.approx(40 * 1024, abs=64)


def test_maps_of_a_pass():
    """Four bytes a value: the input, the first layer's map, the second layer's."""
    network = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    assert map_bytes(network, (1, 4, 4), 10) == 10 * 4 * 16 * (1 + 2 + 2)


def test_collecting_statistics_leaves_no_graph():
    """Many visits take no more memory than one."""
    collector = StatisticsCollector(convolution(64), 4, (1, 64, 64))
    x = torch.randn(16, 1, 64, 64, requires_grad=True)

    def visit() -> None:
        logits, statistics = collector(x)
        (logits.mean() + statistics.sum()).backward()

    for _ in range(3):
        visit()
    before = peak_memory()
    for _ in range(30):
        visit()
    assert peak_memory() - before < 10 * 16 * 64 * 64**2 * 4


# In processes of its own


@pytest.mark.slow
def test_measured_cases_are_not_repeated(tmp_path):
    to = tmp_path / "bench.csv"
    todo = [Case("relabel", "digits", network, 100) for network in ("convnet_d1", "convnet_d2")]
    first = run_bench(todo[:1], "cpu", 1, 0, ["edc_code"], to)
    both = run_bench(todo, "cpu", 1, 0, ["edc_code"], to)
    assert both["network"].tolist() == ["convnet_d1", "convnet_d2"]
    assert both["milliseconds"].iloc[0] == pytest.approx(first["milliseconds"].iloc[0], abs=1e-4)
    images = [Case("synthesize", "digits", "convnet_d1", 100), todo[0]]
    assert run_bench(images, "cpu", 1, 0, ["edc", "gvbsm"], to)["recipe"].tolist() == ["edc", "gvbsm", "edc"]
    stored = pd.read_csv(to)
    assert stored["recipe"].tolist() == ["edc_code", "edc_code", "edc", "gvbsm", "edc"]
    assert set(stored["threads"]) == {1}
    assert stored[["device", "torch", "commit", "dirty"]].notna().all(axis=None)


def children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_bench_leaves_no_process(number, tmp_path):
    options = ["--stage", "relabel", "--network", "convnet_d1", "--images", "100", "--seconds", "600"]
    command = [sys.executable, "-m", "edc.cli", "bench", "--dataset", "digits", *options]
    with subprocess.Popen([*command, "--to", str(tmp_path / "bench.csv")], cwd=REPOSITORY) as bench:
        while not (started := children(bench.pid)) and bench.poll() is None:
            time.sleep(0.1)
        assert len(started) == 1
        time.sleep(1)
        bench.send_signal(number)
        bench.wait()
    until = time.monotonic() + 60
    while Path(f"/proc/{started[0]}").exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert not Path(f"/proc/{started[0]}").exists()
    assert not list(tmp_path.iterdir())
