"""Figure 2: curvature, landscapes and gradients against exact small cases; the stage on a few digits."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from edc.stages import analysis
from edc.pipeline import dag
from edc.config.choices import Loss, Match
from edc.data.augment import Normaliser
from edc.condense.engine import Observer, Progress, step, synthesize
from edc.errors import EdcError
from edc.condense.hessian import (
    Group,
    by_differences,
    exactly,
    frobenius,
    iterates,
    plain_statistics,
    signs,
    synthesis_loss,
    without_regulariser,
)
from edc.stages.context import execute
from edc.training.landscape import cosine, curve, direction, directions, gradient, local_cosines, mean_loss, moved, part
from edc.config.references import load_plan
from edc.config.rows import SynthesizeRow
from edc.config.plan import make_plan, write_plan
from edc.data.rng import generator
from edc.condense.watching import Watcher

REPOSITORY = Path(__file__).resolve().parents[1]
SHAPE = (2, 8, 8)
CLASSES = 3


# Hutchinson's estimate


def every_sign(*shape: int) -> list[Tensor]:
    """All vectors of signs: over them the estimate is no estimate."""
    return [torch.tensor(v).double().view(shape) for v in itertools.product((-1.0, 1.0), repeat=math.prod(shape))]


def softmax_loss(weight: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: F.cross_entropy(x @ weight, torch.tensor([0, 2]))


def test_norm_of_a_quadratic() -> None:
    half = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix, x = half + half.T, torch.ones(6, dtype=torch.float64)

    def loss(x: Tensor) -> Tensor:
        return 0.5 * x @ matrix @ x

    for product in (exactly(loss, x), by_differences(loss, x, 0.3)):
        norm, error = frobenius(product, every_sign(6))
        assert norm == pytest.approx(float(matrix.norm()), rel=1e-12)
        assert error > 0
    v = torch.arange(6.0, dtype=torch.float64)
    torch.testing.assert_close(exactly(loss, x)(v), matrix @ v)


def test_norm_of_a_softmax() -> None:
    random = torch.Generator().manual_seed(1)
    x, weight = (torch.randn(*shape, dtype=torch.float64, generator=random) for shape in ((2, 4), (4, 3)))
    loss = softmax_loss(weight)
    hessian = torch.autograd.functional.hessian(loss, x)
    expected = float(hessian.norm())
    assert frobenius(exactly(loss, x), every_sign(2, 4))[0] == pytest.approx(expected, rel=1e-12)
    assert frobenius(by_differences(loss, x, 1e-4), every_sign(2, 4))[0] == pytest.approx(expected, rel=1e-6)
    assert frobenius(by_differences(loss, x, 0.05), every_sign(2, 4))[0] == pytest.approx(expected, rel=0.02)


def test_a_few_probes_are_near_as_their_error_says() -> None:
    weight = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) / 6
    x = torch.zeros(2, 40, dtype=torch.float64)
    expected = float(torch.autograd.functional.hessian(softmax_loss(weight), x).norm())
    norm, error = frobenius(exactly(softmax_loss(weight), x), [v.double() for v in signs(50, x, 0)])
    assert 0 < error < 0.2 * expected
    assert abs(norm - expected) < 4 * error


def test_differences_see_a_kink_that_the_exact_hessian_does_not() -> None:
    x, v = torch.tensor([0.01, 5.0]), torch.ones(2)
    assert exactly(lambda x: (x.abs() * x.abs().sqrt()).sum(), x)(v)[1] > 0
    bent = by_differences(lambda x: x.relu().sum(), x, 0.05)(v)
    torch.testing.assert_close(bent, torch.tensor([1 / 0.1, 0.0]))


def test_probes_are_signs_of_a_seed() -> None:
    like = torch.zeros(3, 4)
    first, second = signs(2, like, 0), signs(3, like, 0)
    assert set(first[0].unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(first[0], signs(2, like, 0)[0])
    assert not torch.equal(first[0], signs(2, like, 1)[0])
    assert len(second) == 3


# The loss of synthesis, twice differentiable


def network(seed: int, bend: type[nn.Module] = nn.Tanh) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(SHAPE[0], 4, 3, padding=1),
            nn.BatchNorm2d(4),
            bend(),
            nn.Conv2d(4, 5, 3, padding=1, stride=2),
            nn.BatchNorm2d(5),
            bend(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(5, CLASSES),
        )
        model(torch.randn(16, *SHAPE))
    return model.eval().requires_grad_(False)


def group(method: str = "category", regularise: str = "logits", iterations: int = 7, **match: Any) -> Group:
    """Six images of three classes and two observers with made-up statistics."""
    row = SynthesizeRow.model_validate(
        {
            "dataset": "d",
            "recipe": "r",
            "ipc": 2,
            "seed": 0,
            "statistics": "s",
            "observers": ["o0", "o1"],
            "match": {"method": method, "weight": 0.5, **match},
            "regularise": {"method": regularise, "weight": 5.0, "beta": 0.5},
            "optimise": {"iterations": iterations},
        }
    )
    random = torch.Generator().manual_seed(0)
    observers = []
    for i, key in enumerate(row.observers):
        bare = row.model_copy(update={"match": Match(method="bn")}) if method == "bn" else row
        size = Observer.make(key, network(i), bare, 3, SHAPE, None).watcher.size
        targets = {"global": torch.rand(size, generator=random), "classes": torch.rand(3, size, generator=random)}
        observers.append(Observer.make(key, network(i), row, 3, SHAPE, None if method == "bn" else targets))
    labels = torch.arange(3).repeat_interleave(2)
    for observer in observers:
        observer.matcher.start_group(labels)
    start = torch.randn(6, *SHAPE, generator=random)
    return Group(start, labels, observers, row, Normaliser((0.5,) * 2, (0.25,) * 2))


@pytest.mark.parametrize("patch", [0, 3, 4])
def test_statistics_and_their_gradient_are_those_of_synthesis(patch: int) -> None:
    x = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0), requires_grad=True)
    layer = torch.nn.Conv2d(2, 1, 1) if patch else torch.nn.BatchNorm2d(2).eval()
    found, expected = plain_statistics(x, patch), Watcher(layer, patch or 1, x.shape[1:])(x)[1]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    weights = torch.linspace(-1, 1, len(found))
    slopes = [torch.autograd.grad((s * weights).sum(), x)[0] for s in (found, expected)]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "choices",
    [
        {"method": "category", "ema": 0.0},
        {"method": "category", "alpha": 0.2, "ema": 0.0, "swap_class_patch": True},
        {"method": "layers", "ema": 0.0, "drop": 0.5},
        {"method": "bn", "ema": 0.0},
        {"method": "none"},
    ],
    ids=str,
)
def test_loss_is_the_engines(choices: dict[str, Any]) -> None:
    """Of the last round of visits, without memory and regulariser; value and gradient."""
    made = group(**choices)
    row = without_regulariser(made.row)
    x = made.start.clone().requires_grad_(True)
    # With two observers and seven iterations the last round is visits 5 and 6.
    terms = [step(x, x, made.labels, made.observers[k % 2], row, range(1), k) for k in (5, 6)]
    expected = sum(sum(term.values()) for term in terms)[0] / 2
    slope = torch.autograd.grad(expected, x)[0]
    found = synthesis_loss(made)(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.autograd.grad(found, x)[0], slope, rtol=1e-4, atol=1e-6)


def test_hessian_of_synthesis_agrees_with_differences_where_there_are_no_kinks() -> None:
    made = group()
    loss, probes = synthesis_loss(made), signs(3, made.start, 0)
    product = exactly(loss, made.start)
    first, second = (product(v) for v in probes[:2])
    assert float((probes[1] * first).sum()) == pytest.approx(float((probes[0] * second).sum()), rel=1e-3, abs=1e-5)
    norms = [frobenius(way, probes)[0] for way in (product, by_differences(loss, made.start, 3e-3))]
    assert norms[0] > 0
    assert norms[1] == pytest.approx(norms[0], rel=0.02)


def test_no_slope_where_a_statistic_is_met_exactly() -> None:
    made = group("layers", drop=0.0)
    for observer in made.observers:
        observer.matcher.global_target = observer.watcher(made.start)[1].detach()
    found = exactly(synthesis_loss(made), made.start)(torch.ones_like(made.start))
    assert found.isfinite().all()


def test_iterates_are_those_of_the_synthesis() -> None:
    made = group(carry=True)
    plain = without_regulariser(made.row)
    kept = {row.regularise.method: iterates(made, row, [0, 2, 7]) for row in (made.row, plain)}
    assert list(kept["logits"]) == list(kept["none"]) == [0, 2, 7]
    assert torch.equal(kept["logits"][0], made.start)
    assert not torch.equal(kept["logits"][7], kept["none"][7])
    again = group(carry=True)  # fresh observers, that remember nothing of another run
    everything = [torch.arange(6)]
    end = synthesize(
        again.start, again.labels, everything, again.observers, plain, again.normaliser, Progress(), lambda _: None
    )
    assert torch.equal(kept["none"][7], end)


# Landscapes and gradients


def small(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, CLASSES))


def batch(count: int, soft: bool = False) -> tuple[Tensor, Tensor | None, Tensor]:
    random = torch.Generator().manual_seed(count)
    targets = torch.randn(count, CLASSES, generator=random) if soft else None
    return torch.randn(count, *SHAPE, generator=random), targets, torch.arange(count) % CLASSES


def test_directions_have_the_lengths_of_the_filters() -> None:
    model = small()
    found = direction(model, np.random.default_rng(0))
    for weight, way in zip(model.parameters(), found, strict=True):
        if weight.dim() < 2:
            assert not way.any()
        else:
            lengths = [w.detach().flatten(1).norm(dim=1) for w in (weight, way)]
            torch.testing.assert_close(lengths[0], lengths[1])
    doubled = small()
    with torch.no_grad():
        for weight in doubled.parameters():
            weight *= 2
    for way, longer in zip(directions(model, 3, 2)[1], directions(doubled, 3, 2)[1], strict=True):
        torch.testing.assert_close(longer, 2 * way)


def test_weights_are_their_own_again_after_a_look() -> None:
    model = small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    along = direction(model, np.random.default_rng(0))
    with moved(model, along, 0.5):
        torch.testing.assert_close(model[0].weight, before["0.weight"] + 0.5 * along[0])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_curve_of_a_quadratic() -> None:
    model = nn.Linear(3, 2, bias=False)

    def loss() -> float:
        return float(model.weight.detach().square().sum())

    way = [torch.ones(2, 3)]
    values = curve(way, [-1.0, 0.0, 2.0], model, loss)
    w = model.weight.detach()
    assert values == pytest.approx([float((w + d).square().sum()) for d in (-1, 0, 2)], rel=1e-5)


def test_mean_loss_weighs_images_not_batches() -> None:
    model, loss = small().eval(), Loss(name="mse_ce", ce_weight=0.1)
    whole = batch(7, soft=True)
    pieces = [part(whole, slice(0, 5)), part(whole, slice(5, 7))]
    assert mean_loss(model, pieces, loss) == pytest.approx(mean_loss(model, [whole], loss), rel=1e-5)
    x, _, labels = whole
    assert mean_loss(model, pieces, None) == pytest.approx(F.cross_entropy(model(x), labels).item(), rel=1e-5)


@pytest.mark.parametrize("name", ["mse_ce", "kl"])
def test_gradient_of_all_is_the_mean_of_its_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, loss, whole = small(), Loss(name=name), batch(12, soft=True)
    expected = gradient(model, whole, loss)
    parts = torch.stack([gradient(model, part(whole, slice(i, i + 3)), loss) for i in (0, 3, 6, 9)])
    torch.testing.assert_close(parts.mean(0), expected, rtol=1e-4, atol=1e-6)
    monkeypatch.setattr("edc.training.landscape.CHUNK", 5)
    torch.testing.assert_close(gradient(model, whole, loss), expected, rtol=1e-4, atol=1e-6)
    assert expected.numel() == sum(weight.numel() for weight in model.parameters())
    assert not model.training


def test_cosines_grow_to_one_with_the_batch() -> None:
    whole, found = local_cosines(small(), batch(24), Loss(), [2, 8, 24, 50], 8, generator(0, "test"))
    assert list(found) == [2, 8, 24]
    means = [np.mean(values) for values in found.values()]
    assert means[0] < means[1] < means[2]
    assert found[24] == pytest.approx([1.0] * 8, abs=1e-5)
    assert cosine(whole, -2 * whole) == pytest.approx(-1)
    again = local_cosines(small(), batch(24), Loss(), [2, 8], 8, generator(0, "test"))[1]
    assert again[8] == found[8]


def test_sharpness_is_the_rise_on_both_sides() -> None:
    rows = []
    for seed, steep in itertools.product((0, 1), (1.0, 3.0)):
        rows += [["s", seed, int(steep), d, 2 + steep * d * d + d, 10 * d * d] for d in (-0.5, 0.0, 0.5, 1.0)]
    found = analysis.sharpness(rows, 0.5, "_x")
    assert found["holdout_loss_x"] == pytest.approx(2)
    assert found["holdout_rise_x"] == pytest.approx((0.25 + 0.75) / 2)
    assert found["holdout_rise_std_x"] == pytest.approx(np.std([0.25, 0.75] * 2, ddof=1))
    assert found["training_rise_x"] == pytest.approx(2.5)
    assert found["training_rise_std_x"] == pytest.approx(0)


# The stage

ANALYSIS: dict[str, Any] = {
    "recipes": ["edc"],
    "ipc": [1],
    "protocols": ["edc"],
    "students": ["convnet_d2"],
    "mixture": {"steps": 30},
    "landscape": {"looks": 5, "directions": 2},
    "hessian": {"looks": 3, "probes": 2},
    "gradients": {"batches": [2, 5], "draws": 3, "images": 40},
}
KEY = "tiny-edc-ipc1-convnet_d2-edc"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the workflow, a few digits and a study with one analysis; the test works in it."""
    folder = tmp_path_factory.mktemp("analysis")
    shutil.copytree(REPOSITORY / "workflow", folder / "workflow")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("EDC_")]:
            patch.delenv(name)
        patch.setenv("EDC_TRACKING", "off")
        patch.syspath_prepend(str(REPOSITORY / "tests" / "system"))
        patch.chdir(folder)
        from samples import DATASET, STUDY

        quick = {"observers": ["convnet_d1", "convnet_d2"], "networks": {}}
        write(folder / "workflow/datasets/tiny.yaml", DATASET | quick)
        overrides = {kind: {"edc": STUDY["overrides"][kind]["edc"]} for kind in ("recipes", "protocols")}
        own = {"recipes": ["edc"], "protocols": ["edc"], "variants": {}, "grids": [], "overrides": overrides}
        write(folder / "workflow/studies/tiny.yaml", STUDY | own | {"analysis": [ANALYSIS]})
        yield folder


def write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(values), encoding="utf-8")


def study(folder: Path, part: dict[str, Any], **changes: Any) -> Any:
    """The plan of a study with another analysis."""
    values = yaml.safe_load((folder / "workflow/studies/tiny.yaml").read_text())
    write(folder / "workflow/studies/other.yaml", values | changes | {"analysis": [ANALYSIS | part]})
    return make_plan("other")


def test_the_plan_has_its_row_and_what_it_reads(workshop: Path) -> None:
    plan = make_plan("tiny")
    row = plan.analysis[KEY]
    assert (row.images, row.labels) == ("tiny-edc-ipc1", "tiny-edc-ipc1-edc")
    assert (row.hessian.looks, row.epochs, row.schedule.zeta) == (3, 6, 2.0)
    assert plan.tables["tiny"].analysis == [KEY]
    task = next(task for task in dag.tasks(plan) if task.stage == "analysis")
    made = next(task for task in dag.tasks(plan) if task.stage == "synthesize")
    assert set(made.inputs) < set(task.inputs)
    assert "results/relabel/tiny-edc-ipc1-edc/logits.npy" in task.inputs
    # What decides the iterates by name: the observers' network, the start, the regulariser.
    assert set(made.code) <= set(task.code)
    for module in ("hessian", "landscape", "mixtures", "panels", "nets/convnet", "regularise", "initialise"):
        assert f"src/edc/{module}.py" in task.code
    assert not {"src/edc/analysis_choices.py", "src/edc/params.py", "src/edc/__init__.py"} & set(task.code)
    tables = next(task for task in dag.tasks(plan) if task.stage == "tables")
    assert f"results/analysis/{KEY}/manifest.json" in tables.inputs


def test_code_of_another_regulariser_counts(workshop: Path) -> None:
    dense = {"edc": {"synthesize": {"regularise": {"method": "densification"}, "optimise": {"iterations": 2}}}}
    plan = study(workshop, {}, overrides={"recipes": dense})
    task = next(task for task in dag.tasks(plan) if task.stage == "analysis")
    assert "src/edc/densify.py" in task.code


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"recipes": ["random"]}, "expected images synthesised with a regulariser; theirs is 'none', after 0 iter"),
        ({"recipes": ["full"]}, "recipe 'full' has no condensed images to look into"),
        ({"gradients": {"batches": [5, 11]}}, "gradients.batches = .*: expected at most 10 each"),
        ({"hessian": {"probes": 1}}, "hessian.probes = 1: .*greater than or equal to 2"),
        ({"hessian": {"probe": 3}}, "unknown key 'analysis.0.hessian.probe'.*probes"),
    ],
    ids=str,
)
def test_bad_rows_are_refused_in_one_line(workshop: Path, part: dict[str, Any], says: str) -> None:
    with pytest.raises(EdcError, match=says) as caught:
        study(workshop, part)
    assert "\n" not in str(caught.value)


def test_nothing_to_compare_is_refused(workshop: Path) -> None:
    changes = yaml.safe_load((workshop / "workflow/studies/tiny.yaml").read_text())["overrides"]
    changes["protocols"]["edc"]["student"] = {"schedule": {"name": "smoothing", "zeta": 1.0}}
    with pytest.raises(EdcError, match=r"schedule: expected another than the cosine to 0"):
        study(workshop, {}, overrides=changes)


@pytest.mark.slow
@pytest.mark.early(9)
def test_stage(workshop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Files, numbers, the same bytes again, and the same bytes after a kill between any two parts."""
    write_plan(make_plan("tiny"))
    plan = load_plan()
    for stage in ("pretrain", "statistics", "synthesize", "relabel"):
        for key in getattr(plan, stage):
            execute(stage, key)
    execute("analysis", KEY)
    folder = Path("results/analysis", KEY)
    first = contents(folder)
    task = next(task for task in dag.tasks(plan) if task.stage == "analysis")
    assert {Path(output.path).name for output in task.outputs} == set(first)
    check(folder, json.loads(first["manifest.json"]))

    for name in ("hessian", "landscape", "gradients"):
        shutil.rmtree(folder)
        with monkeypatch.context() as patch:
            patch.setattr(analysis.Bench, name, interrupt)
            with pytest.raises(KeyboardInterrupt):
                execute("analysis", KEY)
        assert not folder.exists()
        capsys.readouterr()
        execute("analysis", KEY)
        assert "goes on from its checkpoint" in capsys.readouterr().err
        assert contents(folder) == first
    assert not list(Path(".edc/checkpoints/analysis").glob("*"))


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "run.json"}


def check(folder: Path, manifest: dict[str, Any]) -> None:
    """The tables hold what they should, and the manifest sums them up."""
    tables = {}
    for name, columns in analysis.TABLES.items():
        lines = (folder / f"{name}.csv").read_text().splitlines()
        assert lines[0] == ",".join(columns)
        tables[name] = [dict(zip(columns, line.split(","), strict=True)) for line in lines[1:]]
    scores = manifest["scores"]
    assert [row["alpha"] for row in tables["matching"]] == ["1", "0", "0.5"]
    assert [(row["regularise"], row["iteration"]) for row in tables["hessian"]] == [
        (name, k) for name in ("logits", "none") for k in ("0", "3", "6")
    ]
    assert tables["hessian"][0]["norm"] == tables["hessian"][3]["norm"]
    assert all(float(row["norm"]) > 0 and float(row["step_norm"]) > 0 for row in tables["hessian"])
    assert scores["hessian_norm"] == pytest.approx(float(tables["hessian"][2]["norm"]), rel=1e-5)
    assert scores["hessian_norm_without"] == pytest.approx(float(tables["hessian"][5]["norm"]), rel=1e-5)
    # Two schedules, two directions, five distances of which 0 and both radii are part.
    assert len(tables["landscape"]) == 2 * 2 * 5
    assert {row["schedule"] for row in tables["landscape"]} == {"smoothing zeta=2", "cosine to 0"}
    assert scores["holdout_loss"] != scores["holdout_loss_cosine"]
    assert scores["sharpness_radius"] == 0.5
    # Epochs 0, 1 (a tenth, rounded), 3, 6; three sets; two batch sizes.
    assert list(dict.fromkeys(row["epoch"] for row in tables["gradients"])) == ["0", "1", "3", "6"]
    assert len(tables["gradients"]) == 4 * 3 * 2
    assert all(-1 <= float(row["cosine_mean"]) <= 1 for row in tables["gradients"])
    assert len(scores["condensed_to_real"]) == 4
    assert set(manifest["files"]) == {f"{name}.csv" for name in analysis.TABLES}
    for picture in folder.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
