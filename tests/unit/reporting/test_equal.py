"""Tables at equal bytes of labels and at equal steps, from hand-made rows."""

from typing import Any

from support.record import Row, evaluation, every_table, ran, text

from edc.reporting.figures import accuracy_over_bytes

HARD: dict[str, Any] = {"protocol": "hard_label", "regime": "hard", "label_bytes": 100}
FEWER: dict[str, Any] = {"variant": "views=8", "label_bytes": 24_000, "training": "eight"}


def upstream(**parameters: int) -> list[list[Row]]:
    """Teachers, and the labels they gave."""
    known = {"dataset": "digits", "source": "run"}
    teachers = [[known | {"stage": "pretrain", "run": name, "parameters": n}] for name, n in parameters.items()]
    inputs = " ".join(f"pretrain/{name}=0" for name in parameters)
    return [*teachers, [known | {"stage": "relabel", "run": "labels", "inputs": f"{inputs} synthesize/images=0"}]]


def of_two_recipes() -> list[list[Row]]:
    inputs = "relabel/labels=0 synthesize/images=0"
    runs = [evaluation("edc", 70, 71, inputs=inputs), evaluation("edc", 60, 61, inputs=inputs, **FEWER)]
    runs += [evaluation("random", 50, 51, **FEWER), evaluation("random", 60, 61)]
    return [*runs, evaluation("edc", 40, 41, inputs=inputs, **HARD)]


def test_a_line_for_every_store_of_the_same_labels() -> None:
    others = [evaluation("edc", 1, variant="zeta=3"), evaluation("edc", 1, variant="longer", steps=960, label_bytes=9)]
    others += [evaluation("rded", 1), evaluation("edc", 1, protocol="static_soft", regime="static", steps=960)]
    lines = ran("equal_bytes", *of_two_recipes(), *others, *upstream(a=1000, b=500))
    shares = [(line["recipe"], line["share"]) for line in lines]
    assert shares == [("edc", 0.000417), ("edc", 0.1), ("random", 0.1), ("edc", 1.0), ("random", 1.0)]
    hard, fewer, _, whole, _ = lines
    assert (whole["teacher_bytes"], fewer["teacher_bytes"]) == (3000, 3000), "two bytes a parameter of two teachers"
    assert "teacher_bytes" not in hard
    assert (fewer["change"], fewer["change_clear"]) == (-10.0, "yes")
    assert (fewer["improvement"], whole["improvement"]) == (10.0, 10.0)
    assert (hard["change"], "change_clear" in whole) == (-30.0, False)


def test_hard_labels_are_those_of_as_many_steps() -> None:
    brief = evaluation("edc", 40, 41, inputs="relabel/labels=0 synthesize/images=0", **HARD | {"protocol": "brief"})
    standard = evaluation("edc", 1, steps=960, **HARD)
    lines = ran("equal_bytes", *of_two_recipes()[:-1], brief, standard, *upstream(a=1000))
    assert [(line["protocol"], line["final_mean"]) for line in lines if line["regime"] == "hard"] == [("brief", 40.5)]


def test_the_page_and_the_plot_of_equal_bytes() -> None:
    runs = [*of_two_recipes(), *upstream(a=1000)]
    cells = "| edc | edc | views=8 | 1/10 | 24.0 | 2.0 | 6.4 | 480 | 2 | **60.5 ± 0.7** | -10.0 | 50.5 ± 0.7 | +10.0 |"
    assert cells in text("equal_bytes", *runs)
    (axes,) = accuracy_over_bytes(every_table(*runs)["equal_bytes"]).axes
    points = {bars.get_label(): bars.lines[0].get_xydata().tolist() for bars in axes.containers}
    assert points["edc soft"] == [[24_000, 60.5], [240_000, 70.5]]
    assert points["edc hard"] == [[100, 40.5]]
    assert {line.get_label(): line.get_xdata()[0] for line in axes.lines}["teachers' weights"] == 2000


def test_sets_of_several_sizes_that_trained_for_as_many_steps() -> None:
    long: Row = {"ipc": 1, "variant": "epochs=4x", "training": "long"}
    runs = [evaluation("edc", 70, 71), evaluation("edc", 30, 31, ipc=1, steps=120), evaluation("edc", 40, 41, **long)]
    runs += [evaluation("random", 45, 46, **long), evaluation("random", 60, 61), evaluation("rded", 50)]
    runs += [evaluation("edc", 1, variant="views=8", label_bytes=9), evaluation("edc", 1, ipc=50, steps=960)]
    lines = ran("equal_steps", *runs)
    keys = [(line["recipe"], line["ipc"], line.get("variant"), line["steps"]) for line in lines]
    assert keys == [(r, ipc, v, 480) for r in ("edc", "random") for ipc, v in ((1, "epochs=4x"), (10, None))]
    assert [(line.get("improvement"), line.get("clear")) for line in lines[:2]] == [(-5.0, "no"), (10.0, "yes")]
