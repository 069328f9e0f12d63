"""The table and the figures of Figure 2's measurements."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support import one_line

from edc.reporting import figure2, record
from edc.reporting.figure2 import HISTORIES
from edc.reporting.pages import page

RUN = {"dataset": "digits", "recipe": "edc", "ipc": 10, "student": "convnet_d2", "protocol": "edc", "run": "a"}


def histories(seeds: int = 3) -> dict[str, pd.DataFrame]:
    """Losses are parabolas, steeper under the cosine; the Hessian is as large with the regulariser as without."""
    landscape, hessian = [], []
    for (schedule, steep), seed, direction in itertools.product(
        (("smoothing", 1), ("cosine", 2)), range(seeds), (0, 1)
    ):
        for distance in (-1.0, -0.5, 0.0, 0.5, 1.0):
            loss = 1 + (steep + 0.1 * seed) * distance**2 + (direction - 0.5) * distance
            landscape.append([schedule, seed, direction, distance, loss, 3.0])
    for draw, method, iteration in itertools.product(range(seeds), ("logits", "none"), (0, 10)):
        hessian.append([draw, method, iteration, 5.0 + draw * (method == "none") - (draw == 2), 0.5, 2.0, 0.2])
    gradients = [
        [epoch, name, size, 0.5, 0.1] for epoch in (0, 8) for name in ("condensed", "real") for size in (5, 50)
    ]
    rows = {"landscape": landscape, "hessian": hessian, "gradients": gradients}
    frames = {name: pd.DataFrame(rows[name], columns=list(figure2.MEASURED[name])) for name in HISTORIES}
    settings = {"landscape": {"radius": 0.5}, "hessian": {"step": 0.05}, "gradients": {}}
    return {name: record.typed(frames[name].assign(**RUN, **settings[name]), HISTORIES[name], name) for name in frames}


def test_sharpness_is_the_mean_rise_to_both_sides() -> None:
    rows = []
    for seed, steep in itertools.product((0, 1), (1.0, 3.0)):
        rows += [["s", seed, int(steep), d, 2 + steep * d * d + d + seed, 10 * d * d] for d in (-0.5, 0.0, 0.5, 1.0)]
    frame = pd.DataFrame(rows, columns=list(figure2.MEASURED["landscape"])).assign(radius=0.5)
    values = figure2.sharpness(frame).loc["s"]
    assert list(values["val_loss"]) == [2, 3]
    assert list(values["val_rise"]) == pytest.approx([(0.25 + 0.75) / 2] * 2)
    assert list(values["training_rise"]) == pytest.approx([2.5, 2.5])


def test_lines_compare_a_choice_with_the_same_seeds_without_it() -> None:
    table = figure2.figure2(histories()).set_index("measure")
    assert len(table) == 6
    rise = table.loc["cross-entropy, held-out real images: rise at 0.5"]
    chosen, plain = (np.array([steep + 0.1 * seed for seed in range(3)]) / 4 for steep in (1, 2))
    assert (rise["choice"], rise["draws"], rise["with_choice"]) == ("smoothing", 3, pytest.approx(chosen.mean()))
    assert rise["with_choice_std"] == pytest.approx(chosen.std(ddof=1), abs=1e-4)
    assert rise["relative"] == pytest.approx(-0.25 / plain.mean() * 100, abs=1e-3)
    assert rise["relative_clear"] == "yes"
    norm = table.loc["Hessian, exact"]
    relative = np.array([0, -1, -2]) / 5.6667 * 100
    interval = stats.ttest_1samp(relative, 0).confidence_interval()
    assert (norm["relative_low"], norm["relative_high"]) == pytest.approx(tuple(interval), rel=1e-3)
    assert norm["relative_clear"] == "no"
    assert table.loc["Hessian, differences over 0.05", "relative"] == 0
    text = page("figure2", table.reset_index()[list(figure2.COLUMNS)], table)
    assert "| smoothing | 3 | 0.275 ± 0.025 | 0.525 ± 0.025 | -47.6 |" in text
    assert "(-17.6)" in text


def test_one_seed_gives_no_verdict() -> None:
    table = figure2.figure2(histories(1))
    assert set(table["relative_clear"]) == {""}
    assert table["relative"].notna().sum() == 5, "all but a rise of 0 in percent of 0"


def test_a_negative_rise_does_not_turn_the_sign() -> None:
    flat = histories()
    flat["landscape"]["val_loss"] = 10 - 2 * flat["landscape"]["distance"] ** 2 * (
        1 + (flat["landscape"]["schedule"] == "cosine")
    )
    table = figure2.figure2(flat).set_index("measure")
    rise = table.loc["cross-entropy, held-out real images: rise at 0.5"]
    assert (rise["with_choice"], rise["without_choice"], rise["relative"]) == (-0.5, -1.0, 50.0)


def test_two_analyses_of_one_cell_have_panels_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(figure2, "save_figure", lambda path, shown: drawn.setdefault(path.stem, shown))
    both = {name: pd.concat([frame, frame.assign(run="b")]) for name, frame in histories().items()}
    figure2.draw_figure2(tmp_path, both)
    assert [len(drawn[name].axes) for name in ("hessian", "landscape", "gradients")] == [4, 4, 4]


@pytest.mark.parametrize("name", list(HISTORIES))
def test_a_damaged_history_is_refused_in_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frame = histories()[name]
    path = Path("results/histories") / f"{name}.csv"
    path.parent.mkdir(parents=True)
    frame.to_csv(path, index=False)
    assert figure2.kept(name).equals(record.typed(frame, HISTORIES[name], name))
    values = [column for column in HISTORIES[name] if not column.endswith("_error")]
    empty = [frame.assign(**{column: frame[column].where(frame.index != 3)}) for column in values]
    for damaged in (pd.concat([frame, frame[:1]]), frame.drop(index=2), *empty):
        damaged.to_csv(path, index=False)
        with one_line("damaged", "git checkout", start=f"{path}: "):
            figure2.kept(name)


def test_figures_are_made_of_the_histories_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, Any] = {}
    save = figure2.save_figure
    monkeypatch.setattr(figure2, "save_figure", lambda path, shown: drawn.setdefault(path, shown) and save(path, shown))
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        figure2.draw_figure2(tmp_path / folder, histories())
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()}
    assert set(pictures) == {"hessian.png", "landscape.png", "gradients.png"}
    assert pictures == {path.name: path.read_bytes() for path in (tmp_path / "second").iterdir()}
    smoothing, cosine = drawn[tmp_path / "first" / "landscape.png"].axes[0].get_lines()
    assert list(smoothing.get_ydata()) == pytest.approx([1 + 1.1 * d * d for d in (-1, -0.5, 0, 0.5, 1)])
    assert cosine.get_ydata()[0] > smoothing.get_ydata()[0]
    assert len(drawn[tmp_path / "first" / "gradients.png"].axes) == 2, "a panel for every moment of the training"
    figure2.draw_figure2(tmp_path / "first", {name: frame[:0] for name, frame in histories().items()})
