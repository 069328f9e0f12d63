"""The record of runs: the committed tables come out of it, how it is merged, and what is refused."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support import REPOSITORY, one_line
from support.record import evaluation, frame

from edc.config.plan import make_plan
from edc.config.references import load_plan
from edc.config.rows import Plan
from edc.errors import EdcError
from edc.reporting import correctness, record
from edc.reporting.collect import chosen, collect, rows_of
from edc.stages import tables
from edc.storage import MADE_FROM, digest

NOTHING = Plan(studies={}, datasets={})


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty checkout with the repository's recipes and datasets."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "workflow").symlink_to(REPOSITORY / "workflow")
    return tmp_path


def same(left: pd.DataFrame, right: pd.DataFrame) -> bool:
    return bool(left.astype(object).fillna("").equals(right.astype(object).fillna("")))


# The committed results


def test_committed_tables_come_out_of_the_committed_record(place: Path) -> None:
    """Byte for byte, without any run."""
    shutil.copytree(REPOSITORY / "results/histories", place / "results/histories")
    for name in ("results/runs.csv", "results/correct.csv", "params.yaml"):
        shutil.copyfile(REPOSITORY / name, place / name)
    tables.run(load_plan())
    made = {path.relative_to(place) for path in (place / "results").rglob("*") if path.is_file()}
    folder = REPOSITORY / "results/tables"
    of_tables = {path.name for path in made if path.parent.name == "tables"}
    assert of_tables | {MADE_FROM.name} == {path.name for path in folder.iterdir()}  # that note is of runs
    for path in made:
        if path.suffix != ".png":  # whose bytes depend on the version of matplotlib
            assert (place / path).read_bytes() == (REPOSITORY / path).read_bytes(), path
        else:
            assert (REPOSITORY / path).exists()


# Reading and writing


def test_equal_rows_give_equal_bytes_in_whatever_order() -> None:
    whole = frame(evaluation("edc"), evaluation("random", 1 / 3, 2 / 3))
    record.write(whole)
    first = record.PATH.read_bytes()
    record.write(whole.iloc[::-1])
    assert record.PATH.read_bytes() == first
    assert same(record.read(), whole)
    assert b",0.333333,1.333333," in first


def test_an_empty_record_is_a_header() -> None:
    assert record.read().empty
    record.write(record.read())
    assert record.PATH.read_text() == ",".join(record.COLUMNS) + "\n"
    assert record.read().empty
    assert record.seconds() == {}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (",50.0,51.0,", ",150.0,51.0,", r"line 3: accuracy = '150\.0': expected a number from 0 to 100"),
        (",50.0,51.0,", ",much,51.0,", r"line 3: accuracy = 'much': expected a number from 0 to 100"),
        (",50.0,51.0,", ",nan,51.0,", r"line 3: accuracy = 'nan': expected a number from 0 to 100"),
        (",soft,10,", ",mild,10,", r"line 2: regime = 'mild': expected one of: soft, static, hard"),
        (",soft,10,", ",soft,1.5,", r"line 2: ipc = '1\.5': expected a whole number from 0 on"),
        (",soft,10,", ",soft,-1,", r"line 2: ipc = '-1': expected a whole number from 0 on"),
        ("evaluate,", "evaluated,", r"line 2: stage = 'evaluated': expected one of: pretrain, "),
        (",False,edc", ",no,edc", r"line 2: subset = 'no': expected True or False"),
        ("best_accuracy", "best", r"no column 'best_accuracy'; repair it, or .* `git checkout results/runs\.csv`"),
        (",test,1,", ",test,0,", r"evaluate .*: two rows for seed 0; delete one"),
        ("\nevaluate", "\nevaluate,", r"line 2: 61 values for 60 columns; repair it"),
    ],
)
def test_a_damaged_row_is_refused_in_one_line(old: str, new: str, words: str) -> None:
    record.write(frame(evaluation("edc")))
    text = record.PATH.read_text()
    assert old in text
    record.PATH.write_text(text.replace(old, new, 1) if "column" not in words else text.replace(old, new))
    with one_line(start="results/runs.csv: ", match=words):
        record.read()


def test_a_record_that_tables_were_made_from_is_not_begun_anew() -> None:
    MADE_FROM.parent.mkdir(parents=True)
    MADE_FROM.write_text("fingerprint\n")
    for read, path in ((record.read, record.PATH), (correctness.read, correctness.PATH)):
        with one_line("no such file", f"git checkout {path}", f"delete {MADE_FROM}", start=f"{path}: "):
            read()


# Merging


def test_merging_nothing_or_the_same_changes_nothing() -> None:
    whole, nothing = frame(evaluation("edc"), evaluation("random")), frame()
    for old, new in ((whole, nothing), (nothing, whole), (whole, whole)):
        assert same(record.merge(old, new), whole)
    halves = frame(evaluation("edc")), frame(evaluation("random"))
    assert same(record.merge(*halves), record.merge(*reversed(halves)))
    # A run that is here replaces all its rows.
    old = frame(evaluation("edc", 1, 2, 3), evaluation("random", 4, 5, 6))
    merged = record.merge(old, frame(evaluation("edc", 7, 8)))
    assert merged["accuracy"].tolist() == [7, 8, 4, 5, 6]


def test_without_run_json_the_records_provenance_stays_where_the_files_are_the_same() -> None:
    unknown = dict.fromkeys(record.ENVIRONMENT)
    old = frame(evaluation("edc", digest="a", training="t"), evaluation("random", digest="a"))
    new = frame(evaluation("edc", digest="a", training="", **unknown), evaluation("random", digest="b", **unknown))
    edc, random = (part for _, part in record.merge(old, new).groupby("recipe"))
    assert (set(edc["commit"]), set(edc["seconds"]), set(edc["training"])) == ({"0123456789abcdef"}, {12.4}, {"t"})
    assert (set(random["commit"]), random["seconds"].notna().any()) == ({""}, False)


def test_rows_of_an_earlier_version_are_marked() -> None:
    old = frame(evaluation("edc", version=1), evaluation("random", version=2))
    merged = record.merge(old, frame(), {"evaluate": 2})
    assert merged.groupby("recipe")["source"].first().tolist() == ["earlier", "run"]
    left_over = frame(evaluation("edc", 10, version=1), evaluation("random", 10, version=1))
    merged = record.merge(frame(evaluation("edc", 90, version=2)), left_over, {"evaluate": 2})
    assert merged[["accuracy", "source"]].to_numpy().tolist() == [[90, "run"], [10, "earlier"]]


def test_images_of_two_versions_of_a_dataset_never_mix(capsys: pytest.CaptureFixture[str]) -> None:
    old = frame(*(evaluation(recipe, dataset_digest="a", test_digest="t") for recipe in ("edc", "random")))
    merged = record.merge(old, frame(evaluation("edc", dataset_digest="b", test_digest="t")))
    assert merged.groupby("recipe")["source"].first().to_dict() == {"edc": "run", "random": "other data"}
    assert set(record.comparable(merged)["recipe"]) == {"edc"}
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "1 run(s) of other images of dataset 'digits'" in line
    back = record.merge(merged, frame(evaluation("edc", dataset_digest="a", test_digest="t")))
    assert back.groupby("recipe")["source"].first().to_dict() == {"edc": "run", "random": "earlier"}
    other_test = record.merge(old, frame(evaluation("edc", dataset_digest="a", test_digest="u")))
    assert set(record.comparable(other_test)["recipe"]) == {"edc"}
    val = evaluation("rded", dataset_digest="a", test_digest="v", split="val")
    assert len(record.comparable(record.merge(old, frame(val)))) == 9, "the splits have images of their own"


# Finished runs


def finish(stage: str, key: str, scores: dict[str, Any] | None = None, labels: str = "", **row: Any) -> Path:
    """Write the manifest and ``run.json`` of a run."""
    values = {"dataset": "digits", "seed": 0, "precision": "float32"} | row
    if stage in ("evaluate", "continual", "slimming"):
        values |= {"recipe": "edc", "protocol": "edc", "regime": "soft", "ipc": 10, "student": "vgg11_bn"} | row
        values |= {"labels": labels or None, "epochs": 3}
    data = {"family": "digits", "train_per_class": None, "test_per_class": None}
    manifest = {"stage": stage, "run": key, "version": 1, "params": {stage: values, "dataset": data}, "inputs": {}}
    manifest |= {"dataset_digest": "d", "classes": ["0", "1"], "files": {"file": {"bytes": 1, "sha256": key}}}
    if scores is not None:
        manifest |= {"scores": scores, "test_digest": "t", "test_images": 9, "image_bytes": 64, "label_bytes": 8}
    path = Path("runs", stage, key, "manifest.json")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(manifest))
    path.with_name("run.json").write_text(json.dumps({"seconds": 1.5, "device": "CPU", "threads": 2, "dirty": False}))
    return path


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def plan(**runs: list[str]) -> Any:
    """As much of a plan as is read."""
    return type("Plan", (), {stage: runs.get(stage, []) for stage in record.STAGES})()


def test_rows_of_an_evaluation() -> None:
    path = finish("evaluate", "a", {"final": [90.0, 91.5], "best": [92.0, 93.0]}, seeds=[0, 4])
    rows = collect(plan(evaluate=["a", "not finished"]))
    columns = ["seed", "accuracy", "best_accuracy", "seconds", "threads", "test_images", "image_bytes", "split"]
    same_for_both = [1.5, 2, 9, 64, "test"]
    assert rows[columns].to_numpy().tolist() == [[0, 90.0, 92.0, *same_for_both], [4, 91.5, 93.0, *same_for_both]]
    assert set(rows["digest"]) == {digest(json.loads(path.read_text()))}
    assert set(rows["own_protocol"]) == {"edc"}
    path.with_name("run.json").unlink()
    assert collect(plan(evaluate=["a"]))["seconds"].isna().all()


def test_rows_of_the_applications_and_of_other_stages() -> None:
    scores = {"classes": [5, 10], "accuracy": [[90.0, 80.0], [91.0, 81.0]]}
    scores |= {"average": [85.0, 86.0], "forgetting": [1.0, -2.0]}
    finish("continual", "c", scores, orders=[0, 3], seeds=[7], steps=2)
    scores = {name: [[8.0, 4.0]] for name in ("channels", "parameters", "macs")}
    scores |= {"ratios": [0.0, 0.5], "before": [[90.0, 20.0]], "after": [[90.0, 80.0]]}
    finish("slimming", "s", scores, seeds=[7])
    change(finish("pretrain", "p", network="vgg11_bn"), val_accuracy=99.0, parameters=12)
    rows = collect(plan(continual=["c"], slimming=["s"], pretrain=["p"])).set_index("stage")
    columns = ["order", "seed", "step", "classes", "accuracy", "average_accuracy", "forgetting"]
    assert rows.loc["continual", columns].to_numpy().tolist() == [
        [0, 7, 1, 5, 90.0, 85.0, 1.0], [0, 7, 2, 10, 80.0, 85.0, 1.0],
        [3, 7, 1, 5, 91.0, 86.0, -2.0], [3, 7, 2, 10, 81.0, 86.0, -2.0],
    ]  # fmt: skip
    columns = ["ratio", "channels", "accuracy_before", "accuracy"]
    assert rows.loc["slimming", columns].to_numpy().tolist() == [[0.0, 8, 90.0, 90.0], [0.5, 4, 20.0, 80.0]]
    assert rows.loc["pretrain", ["student", "val_accuracy", "parameters"]].tolist() == ["vgg11_bn", 99.0, 12]


def test_training_is_equal_where_only_the_images_differ() -> None:
    def trained(key: str, weights: str = "w", epochs: int = 3, **choices: Any) -> str:
        relabel = finish("relabel", key, images=key, observers=["a"], mix=choices.pop("mix", "cutmix"))
        change(relabel, inputs={f"synthesize/{key}": key, "pretrain/a": weights})
        path = finish("evaluate", key, {"final": [1.0], "best": [1.0]}, key, seeds=[0], **choices)
        made = json.loads(path.read_text())
        made["params"]["evaluate"]["epochs"] = epochs
        change(path, params=made["params"], inputs={f"relabel/{key}": digest(json.loads(relabel.read_text()))})
        return str(rows_of(path)[0]["training"])

    first = trained("one")
    assert trained("two", recipe="rded", protocol="own", ipc=1, student="resnet18") == first
    others = {trained("v", weights="v"), trained("short", epochs=2), trained("m", mix="none")}
    assert len({first, *others, trained("b", precision="bfloat16")}) == 5
    change(Path("runs/relabel/one/manifest.json"), files={"made": "again"})
    assert rows_of(Path("runs/evaluate/one/manifest.json"))[0]["training"] is None


def test_an_option_that_is_newer_than_a_run_is_no_difference_in_training() -> None:
    row = make_plan("digits").evaluate["digits-edc-ipc10-convnet_d2-edc"].model_dump(mode="json")
    older = {name: value for name, value in row.items() if name not in ("parts", "phases")}
    assert len(older) == len(row) - 2
    assert chosen("evaluate", older) == chosen("evaluate", row) != chosen("evaluate", row | {"parts": 2})
    assert chosen("evaluate", older | {"regime": "unknown"})["regime"] == "unknown"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"scores": {"final": [101.0], "best": [1.0]}}, r"evaluate a: accuracy = 101\.0: expected a number from 0 to"),
        ({"scores": {"final": [], "best": []}}, r"damaged \(list index out of range\)"),
        ({"scores": {"best": [1.0]}}, r"damaged \(no 'final'\)"),
        ({"params": {"evaluate": []}}, r"damaged \("),
        ({"label_bytes": -1}, r"label_bytes = -1: expected a whole number from 0 on"),
        ({"files": None, "inputs": None}, r"damaged \("),
    ],
)
def test_a_damaged_manifest_is_refused_in_one_line(values: dict[str, Any], words: str) -> None:
    path = finish("evaluate", "a", {"final": [1.0], "best": [1.0]}, seeds=[0])
    change(path, **values)
    with one_line(start=f"{path}: ", match=words):
        collect(plan(evaluate=["a"]))


def contents() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path("results").rglob("*") if path.is_file()}


def test_bad_input_overwrites_nothing() -> None:
    record.write(frame(evaluation("edc")))
    tables.run(NOTHING)
    before = contents()
    record.write(frame(evaluation("edc"), evaluation("edc", 7, run="twice")))
    text = record.PATH.read_bytes()
    with pytest.raises(EdcError, match=r"^results/runs.csv: run 'twice' is the same cell as 'digits-edc-10-"):
        tables.run(NOTHING)
    record.PATH.write_bytes(before[record.PATH])
    assert text != before[record.PATH]
    assert contents() == before


@pytest.mark.parametrize("times", [(1, 2), (2, 1)])
@pytest.mark.parametrize("newest", ["a", "b"])
def test_a_run_made_since_the_record_was_written_decides_which_images_a_dataset_has(
    newest: str, times: tuple[int, int]
) -> None:
    """Times of files don't: a checkout may give them in any order."""

    def merged(old: pd.DataFrame) -> pd.DataFrame:
        for key, time in zip("ab", times, strict=True):
            os.utime(f"runs/evaluate/{key}/manifest.json", (time, time))
        return record.merge(old, collect(plan(evaluate=["a", "b"])))

    def sources(merged: pd.DataFrame) -> dict[str, str]:
        return dict(zip(merged["run"], merged["source"], strict=True))

    paths = {key: finish("evaluate", key, {"final": [1.0], "best": [1.0]}, seeds=[0], protocol=key) for key in "ab"}
    before = merged(frame())
    assert sources(before) == {"a": "run", "b": "run"}
    change(paths[newest], dataset_digest="changed")
    after = merged(before)
    assert sources(after) == {"a": "other data", "b": "other data"} | {newest: "run"}
    assert same(merged(after), after), "nothing new: the record stays"
    assert same(record.merge(after, frame()), after), "without any run, too"
    assert sources(merged(frame())) == {"a": "run", "b": "other data"}, "no record: the first in the pipeline"
