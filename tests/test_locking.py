"""What is locked of runs: those of the active plan in dvc.lock, the rest beside it, nothing lost, no byte changed."""

from __future__ import annotations

import random
from pathlib import Path

import laboratory
import pytest
from dvc.lock import make_lock
from dvc.utils.serialize import load_yaml, modify_yaml

from edc import locking
from edc.dag import tasks
from edc.errors import EdcError
from edc.locking import HEAD, LOCK, OTHERS, entries, make_room
from edc.params import Plan

VALUES = {
    "text": "word " * 60,
    "small": 1e-08,
    "none": None,
    "many": list(range(60)),
    "deep": {"x": ["a: b", "- c", ""]},
}


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    return laboratory.plan("evaluate")


def entry(name: str, rate: str = "1e-08") -> str:
    """One run as DVC writes it; its number is another value to a reader of YAML 1.1."""
    return (
        f"  {name}:\n    cmd: edc x --run {name}\n    params:\n      params.yaml:\n        a.b:\n          lr: {rate}\n"
    )


def write(path: Path, *texts: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(HEAD + "".join(texts))


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def own(plan: Plan) -> list[str]:
    return [task.name for task in tasks(plan)]


def test_runs_of_others_are_put_by_and_come_back_as_they_were(plan: Plan) -> None:
    mine = [entry(name) for name in own(plan)]
    write(LOCK, entry("tables-other"), mine[0], entry("evaluate-other", "0.1"), *mine[1:-1])
    write(OTHERS, mine[-1], entry("pretrain-third"))
    whole = {**load_yaml(LOCK)["stages"], **load_yaml(OTHERS)["stages"]}
    make_room(plan)
    assert read(LOCK) == HEAD + "".join([mine[-1], *mine[:-1]])
    assert read(OTHERS) == HEAD + entry("pretrain-third") + entry("tables-other") + entry("evaluate-other", "0.1")
    assert {**load_yaml(LOCK)["stages"], **load_yaml(OTHERS)["stages"]} == whole
    before = read(LOCK), read(OTHERS)
    make_room(plan)
    assert (read(LOCK), read(OTHERS)) == before


def test_whatever_dvc_writes_is_understood(plan: Plan) -> None:
    """Names of runs, short and long, and values that DVC breaks into several lines."""
    long = "statistics-" + "torchvision_resnet18-" * 6
    runs = {
        name: {"cmd": f"edc x --run {name}", "params": {"params.yaml": {"a.b": VALUES}}} for name in ("a-b_c-1", long)
    }
    with modify_yaml(str(LOCK)) as data:
        data.update(
            {"schema": "2.0", "stages": {**runs, "empty-outs": {"cmd": "x", "deps": [], "outs": [{"path": "p"}]}}}
        )
    text = read(LOCK)
    assert entries(LOCK) is not None
    make_room(plan)
    assert (read(LOCK), read(OTHERS)) == ("", text)
    assert load_yaml(OTHERS)["stages"].keys() == {*runs, "empty-outs"}


def test_a_command_of_dvc_that_is_at_work_is_not_disturbed(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dvc.lock.DEFAULT_TIMEOUT", 0)
    Path(".dvc/tmp").mkdir(parents=True)
    write(LOCK, entry("tables-other"))
    held = make_lock(".dvc/tmp/lock", tmp_dir=".dvc/tmp")
    with held, pytest.raises(EdcError, match=r"^dvc\.lock: a command of DVC is at work here"):
        make_room(plan)
    assert read(LOCK) == HEAD + entry("tables-other")
    make_room(plan)
    assert read(OTHERS) == HEAD + entry("tables-other")
    make_room(plan)  # nothing is left to do: no lock is asked for
    with held:
        make_room(plan)


def test_what_is_locked_anew_counts(plan: Plan) -> None:
    name = own(plan)[0]
    write(LOCK, entry(name, "2"), entry("tables-other", "2"))
    write(OTHERS, entry(name, "1"), entry("tables-other", "1"))
    make_room(plan)
    assert (read(LOCK), read(OTHERS)) == (HEAD + entry(name, "2"), HEAD + entry("tables-other", "2"))


def test_no_file_is_left_without_runs(plan: Plan) -> None:
    make_room(plan)
    assert not LOCK.exists()
    assert not OTHERS.exists()
    write(LOCK, entry("tables-other"))
    make_room(plan)
    assert not LOCK.exists()
    assert read(OTHERS) == HEAD + entry("tables-other")
    write(OTHERS, entry(own(plan)[0]))
    make_room(plan)
    assert not OTHERS.exists()
    assert read(LOCK) == HEAD + entry(own(plan)[0])


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_nothing_is_lost_when_it_stops_half_way(plan: Plan, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*own(plan), "tables-other", "evaluate-other"]
    random.Random(0).shuffle(names)
    write(LOCK, *(entry(name, "1") for name in names[:4]))
    write(OTHERS, *(entry(name, "1") for name in names[4:]))
    writes, really = [0], locking._write

    def stopping(*asked: object) -> None:
        if writes[0] == steps:
            raise KeyboardInterrupt
        writes[0] += 1
        really(*asked)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(locking, "_write", stopping)
        if steps < 3:
            with pytest.raises(KeyboardInterrupt):
                make_room(plan)
        else:
            make_room(plan)
    assert {**(entries(OTHERS) or {}), **(entries(LOCK) or {})}.keys() == set(names)
    make_room(plan)
    assert (entries(LOCK) or {}).keys() == set(own(plan))
    assert (entries(OTHERS) or {}).keys() == {"tables-other", "evaluate-other"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "stages: {}\n",
        HEAD + "<<<<<<< ours\n" + entry("a") + "=======\n",
        HEAD + entry("a") + ">>>>>>> theirs\n" + entry("b"),
        HEAD + "  a: &x\n    cmd: y\n",
    ],
)
def test_a_file_that_dvc_did_not_write_is_left_alone(plan: Plan, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    LOCK.write_text(text)
    write(OTHERS, entry(own(plan)[0]))
    before = read(OTHERS)
    make_room(plan)
    assert (read(LOCK), read(OTHERS)) == (text, before)
    assert "dvc.lock: not as DVC writes it" in capsys.readouterr().err
