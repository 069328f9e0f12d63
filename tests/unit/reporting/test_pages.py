"""Tables as pages: grids, footnotes, and where the figures come from."""

import re

import pytest
from support.record import Row, evaluation, every_table, frame, ran, text

from edc.reporting.evaluations import evaluations
from edc.reporting.pages import HEADINGS, page, signed
from edc.reporting.paper import REMARKS, Footnotes
from edc.reporting.quality import quality
from edc.reporting.record import ENVIRONMENT


def test_every_table_is_a_page_with_straight_grids() -> None:
    runs = [evaluation(recipe, protocol=p) for recipe in ("edc", "random", "rded") for p in ("edc", "rded")]
    runs += [
        evaluation("edc", source="earlier", dataset="cifar10"),
        evaluation("full", ipc=0, regime="hard", protocol="real_data"),
    ]
    made, cells = every_table(*runs), evaluations(frame(*runs))
    assert tuple(made) == tuple(HEADINGS)
    pages = {name: page(name, table, cells) for name, table in made.items()}
    for name, written in pages.items():
        assert written.startswith(f"# {HEADINGS[name]}\n")
        empty = ("table4", "table5", "table22", "variants", "continual", "slimming")
        empty += ("equal_bytes", "equal_steps", "quality", "figure2")
        assert ("Nothing ran here." in written) == (name in empty)
        for block in written.split("\n\n"):
            if block.startswith("|"):
                assert len({line.count("|") for line in block.splitlines()}) == 1
    assert "| 50.0 ± 1.0 | (+0.0) | 12 | 0123456 |" in pages["table1"]
    assert "| 12 | 0123456\\* |" in pages["table1"]
    assert "Seconds of all seeds, on CPU, 1 thread." in pages["table1"]
    unknown = dict.fromkeys(ENVIRONMENT)
    written = text("table1", evaluation("edc", **unknown), evaluation("random", 40, **unknown))
    assert "| 40.0 | (+10.0) |  |  |" in written


def test_footnotes_are_numbered_in_order_and_all_used() -> None:
    cell: Row = {"dataset": "cifar10", "ipc": 50, "protocol": "gvbsm"}
    written = text("table1", evaluation("gvbsm", 59.0, **cell), evaluation("random", 59.0, **cell))
    assert "| 59.2 ± 0.4[^1] | -0.2 |" in written
    assert "[^1]: 59.2 in print; a user measured 80.47 with the authors' own images and 77.51 from scratch" in written
    numbers = [int(number) for number in re.findall(r"^\[\^(\d+)\]: ", written, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert set(map(int, re.findall(r"\[\^(\d+)\](?!:)", written))) == set(numbers)


@pytest.mark.parametrize("name", [name for name in HEADINGS if name.startswith("table")])
def test_every_remark_has_its_figure(name: str) -> None:
    """Where nothing ran, all of the paper's figures are listed, and so every remark must come up."""
    written = text(name, evaluation("edc"))
    remarks = Footnotes(name).remarks
    assert remarks or REMARKS.exists()
    assert [remark.text for remark in remarks if remark.text not in written] == []


def test_figures_of_other_sources_stand_beside_their_method_with_a_footnote() -> None:
    runs = [evaluation("rded", 40, 41, dataset="tiny_imagenet", ipc=10, protocol="gift")]
    runs += [evaluation("fadrm_plus", 50, 51, dataset="tiny_imagenet", ipc=10, protocol="f", own_protocol="f")]
    figures = {line["recipe"]: (line["reported"], line["difference"]) for line in ran("table1", *runs)}
    assert figures == {"fadrm_plus": (52.8, -2.3), "rded": (49.2, -8.7)}
    page = text("table1", *runs)
    assert "| 52.8[^1] |" in page
    assert "\n[^1]: Source: Jiacheng8/FADRM, img/exp.png.\n" in page
    assert "**rded_gift**[^" in page, "its other cells did not run"


def test_quality_has_a_line_for_every_set_and_observer() -> None:
    values: Row = {"stage": "analysis", "dataset": "digits", "ipc": 10, "student": "convnet_d1", "source": "run"}
    values |= {"density": 0.25, "coverage": 0.123456, "nearest": 1.5}
    runs = [[values | {"run": f"{recipe}{again}", "recipe": recipe}] for recipe in ("rded", "edc") for again in "ab"]
    lines = quality(frame(*runs, evaluation("edc")))
    assert lines["recipe"].tolist() == ["edc", "rded"]
    assert lines.loc[0, ["observer", "coverage"]].tolist() == ["convnet_d1", 0.1235]
    assert "| digits | 10 | convnet_d1 | rded |  | 0.25 | 0.1235 | 1.5 |" in page("quality", lines, lines)


@pytest.mark.parametrize(("value", "text"), [(1.25, "+1.2"), (-0.04, "+0.0"), (0.0, "+0.0"), (-0.06, "-0.1")])
def test_a_difference_has_its_sign_and_zero_has_one(value: float, text: str) -> None:
    assert signed(value) == text
