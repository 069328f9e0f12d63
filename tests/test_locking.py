"""What is locked of runs: those of the active plan in dvc.lock, the rest beside it, nothing lost, no byte changed."""

from __future__ import annotations

import copy
import random
from pathlib import Path

from support import laboratory
import pytest
from dvc.lock import make_lock
from dvc.utils.serialize import load_yaml, modify_yaml

from edc.pipeline import locking
from edc.pipeline.dag import tasks
from edc.errors import EdcError
from edc.pipeline.locking import HEAD, LOCK, OTHERS, entries, exchanged
from edc.config.rows import Plan

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


def make_room(plan: Plan) -> None:
    with exchanged(plan):
        pass


def own(plan: Plan) -> list[str]:
    return [task.name for task in tasks(plan)]


def test_runs_of_others_are_put_by_and_come_back_as_they_were(plan: Plan) -> None:
    mine = [entry(name) for name in own(plan)]
    write(LOCK, entry("tables-other"), mine[0], entry("evaluate-other", "0.1"), *mine[1:-1])
    write(OTHERS, mine[-1], entry("pretrain-third"))
    whole = {**load_yaml(LOCK)["stages"], **load_yaml(OTHERS)["stages"]}
    make_room(plan)
    assert read(LOCK) == HEAD + "".join(mine)
    assert read(OTHERS) == HEAD + entry("evaluate-other", "0.1") + entry("pretrain-third") + entry("tables-other")
    assert {**load_yaml(LOCK)["stages"], **load_yaml(OTHERS)["stages"]} == whole
    before = read(LOCK), read(OTHERS)
    make_room(plan)
    assert (read(LOCK), read(OTHERS)) == before


def test_whatever_dvc_writes_is_understood(plan: Plan) -> None:
    """Names of runs, short and long, and values that DVC breaks into several lines."""
    long = "statistics-" + "torchvision_resnet18-" * 6
    runs = {}
    for name in ("a-b_c-1", long):
        params = {"params.yaml": {"a.b": copy.deepcopy(VALUES)}}
        runs[name] = {"cmd": f"edc x --run {name}", "params": params}
    with modify_yaml(str(LOCK)) as data:
        data.update(
            {"schema": "2.0", "stages": {**runs, "empty-outs": {"cmd": "x", "deps": [], "outs": [{"path": "p"}]}}}
        )
    before, values = entries(LOCK), load_yaml(LOCK)
    make_room(plan)
    assert read(LOCK) == ""
    assert entries(OTHERS) == before
    assert load_yaml(OTHERS) == values
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
    assert {**entries(OTHERS), **entries(LOCK)}.keys() == set(names)
    make_room(plan)
    assert entries(LOCK).keys() == set(own(plan))
    assert entries(OTHERS).keys() == {"tables-other", "evaluate-other"}


def test_going_to_another_plan_and_back_changes_no_byte(plan: Plan) -> None:
    other = plan.model_copy(update={"evaluate": {}, "tables": {}})
    write(LOCK, *(entry(name) for name in own(plan)))
    write(OTHERS, entry("evaluate-third"), entry("tables-third"))
    before = read(LOCK), read(OTHERS)
    make_room(other)
    assert (read(LOCK), read(OTHERS)) != before
    make_room(plan)
    assert (read(LOCK), read(OTHERS)) == before


def test_a_plan_that_cannot_be_written_leaves_the_lock_as_it_was(plan: Plan) -> None:
    write(LOCK, entry("tables-other"))
    with pytest.raises(OSError, match="full"), exchanged(plan):
        raise OSError("disk full")
    assert (read(LOCK), read(OTHERS)) == (HEAD + entry("tables-other"), "")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"garbage\n", "not as DVC writes it"),
        ((HEAD + "<<<<<<< ours\n" + entry("a") + "=======\n").encode(), "not as DVC writes it"),
        ((HEAD + entry("a") + ">>>>>>> theirs\n" + entry("b")).encode(), "not as DVC writes it"),
        ((HEAD + "  a: &x\n    cmd: y\n").encode(), "not as DVC writes it"),
        ((HEAD + "  a:\n    cmd: y\n    deps: &id001\n").encode(), "not as DVC writes it"),  # another run may use it
        (b"\xff\xfe\x00", "cannot be read (not UTF-8 text)"),
        (None, "cannot be read (Is a directory)"),
    ],
)
@pytest.mark.parametrize("path", [LOCK, OTHERS])
def test_a_damaged_file_is_refused_before_anything_is_written(
    plan: Plan, path: Path, content: bytes | None, expected: str
) -> None:
    for other in {LOCK, OTHERS} - {path}:
        write(other, entry("tables-other"))
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(EdcError) as caught, exchanged(plan):
        raise AssertionError("the block was entered")
    assert str(caught.value).startswith(f"{path}: {expected}")
    assert "\n" not in str(caught.value)
    assert content is None or path.read_bytes() == content


@pytest.mark.parametrize("text", ["", "schema: '2.0'\n", "schema: '2.0'\nstages: {}\n"])
def test_an_empty_file_has_no_runs(plan: Plan, text: str) -> None:
    LOCK.write_text(text)
    write(OTHERS, entry(own(plan)[0]))
    make_room(plan)
    assert (read(LOCK), read(OTHERS)) == (HEAD + entry(own(plan)[0]), "")
