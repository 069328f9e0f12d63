"""Where values come from: the file, the line and the layer, or an edit of the plan."""

import json
from pathlib import Path

import pytest
from support import one_line

from edc.config import explain as module
from edc.config.explain import explain
from edc.config.plan import make_plan, render

RUN = "evaluate/digits-edc-ipc10-convnet_d2-edc"


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The plan of two studies, to be edited."""
    path = tmp_path / "params.yaml"
    path.write_text(render(make_plan("cifar10_cpu", "digits")))
    monkeypatch.setattr(module, "PARAMS", path)
    return path


def line(where: str) -> str:
    """The text of the line that a source names."""
    path, _, rest = where.partition(":")
    return Path(path).read_text().splitlines()[int(rest.split()[0]) - 1]


@pytest.mark.parametrize(
    ("run", "key", "layer", "text"),
    [
        (RUN, "epochs", "families.digits.ipc.10.student", "10: {student: {epochs: 80}}"),
        (RUN, "loss.ce_weight", "base", "loss: {name: mse_ce, ce_weight: 0.025}"),
        (RUN, "regime", "base", "regime: soft"),
        ("digits-edc-ipc10-edc", "epochs", "families.digits.ipc.10.student", "epochs: 80"),
        ("digits-sre2l-ipc10", "observers", "families.digits.observers.match", "[wrn_16_2]"),
        ("pretrain/digits-convnet_d1", "optimiser.lr", "base", "optimiser: {name: sgd, lr: 0.05"),
        ("cifar10_light-convnet_w128", "epochs", "base", "pretrain: {epochs: 5}"),
        ("continual/digits-edc-ipc10-convnet_d2-edc", "steps", "base", "steps: 5"),
        ("cifar10_light-edc-ipc10-convnet_w32-edc-epochs_300", "epochs", "variant epochs=300", "epochs=300: "),
        ("cifar10_light-gvbsm-ipc10", "observers", "override, families.cifar10.observers.match", "match: all"),
    ],
)
def test_the_strongest_layer_that_gives_a_value(params: Path, run: str, key: str, layer: str, text: str) -> None:
    ((name, _, where),) = explain(run, key)
    assert name == key
    assert f"({layer}" in where
    assert text in line(where)


def test_values_that_no_file_gives(params: Path) -> None:
    sources = {key: (json.loads(value), where) for key, value, where in explain(RUN)}
    assert sources["optimiser.momentum"] == (0.9, "default")
    assert sources["images"] == ("digits-edc-ipc10", "computed")
    assert sources["student"] == ("convnet_d2", "workflow/studies/digits.yaml (study)")
    assert explain("digits-edc-ipc10", "augment.flip") == [("augment.flip", "false", "computed")]
    ((_, value, where),) = explain("digits-edc-ipc1-edc", "batch")
    assert value == "10"
    assert where.endswith("(families.digits.student, 25 there)")


def test_edits_of_the_plan(params: Path) -> None:
    text = params.read_text()
    text = text.replace("images: digits-edc-ipc10, epochs: 80,", "images: digits-edc-ipc10, epochs: 81,")
    params.write_text(text)
    ((_, value, where),) = explain("digits-edc-ipc10-edc", "epochs")
    assert value == "81"
    assert where.endswith("(edited)")
    assert "epochs: 81" in line(where)
    params.write_text(text.replace("zeta: 2.0", "zeta: 2.5"))
    module._document.cache_clear()
    ((_, value, where),) = explain(RUN, "schedule.zeta")
    assert value == "2.5"
    assert "zeta: 2.5" in line(where)


@pytest.mark.parametrize(
    ("run", "key", "words"),
    [
        ("evalute/x", "", "unknown stage 'evalute'; did you mean 'evaluate'?"),
        ("digits-edc-ipc11", "", "unknown run 'digits-edc-ipc11'; did you mean 'digits-edc-ipc1'?"),
        ("digits-edc-ipc10-convnet_d2-edc", "", "expected one of evaluate/digits-edc-ipc10-convnet_d2-edc, continual/"),
        (RUN, "epoch", "unknown value 'epoch'; did you mean 'epochs'?"),
    ],
)
def test_what_is_not_there(params: Path, run: str, key: str, words: str) -> None:
    with one_line(words):
        explain(run, key)
