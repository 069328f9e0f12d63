"""Running in pieces, packing and unpacking: what needs no process of its own."""

from __future__ import annotations

import io
import json
import random
import shutil
import subprocess
import tarfile
from pathlib import Path
from types import SimpleNamespace

from support import laboratory
import pytest
import torch
from filelock import FileLock

from edc.pipeline import dag
from edc.pipeline.devices import runs_per_gpu, share_of_memory
from edc.errors import EdcError
from edc.pipeline.packing import Index, digest, pack
from edc.config.rows import Plan
from edc.pipeline.pieces import matching, ordered, run, upstream
from edc.tracking import provenance
from edc.pipeline.unpacking import take_in, unpack


@pytest.fixture
def plan() -> Plan:
    return laboratory.plan("evaluate")


@pytest.fixture
def away(tmp_path, monkeypatch, plan) -> Plan:
    """A folder where the first run of the plan has finished, and one more file lies beside what it left."""
    monkeypatch.chdir(tmp_path)
    task = next(dag.tasks(plan))
    finish(plan, task)
    Path(dag.folder(task.stage, task.key), ".weights.tmp").write_bytes(b"half")
    for name in task.code:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return plan


def finish(plan: Plan, task: dag.Task, size: int = 2000) -> None:
    """What a run leaves, in short."""
    for output in task.outputs:
        Path(output.path).parent.mkdir(parents=True, exist_ok=True)
        Path(output.path).write_bytes(bytes(size))
    manifest = {"params": plan.resolved(task.stage, task.key), "inputs": {}, "files": {}}
    folder = Path(dag.folder(task.stage, task.key))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "run.json").write_text(json.dumps({"code": dag.code_digest(task)}))


def names(folder: Path = Path("results")) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def repack(path: Path, files: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> Path:
    """An archive of one's own."""
    with tarfile.open(path, "w:xz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.type, member.linkname = len(content), kind, "/etc/passwd"
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("text", ["", "0", "-1", "two", "1.5"])
def test_a_number_of_runs_per_gpu_that_is_none_is_refused(monkeypatch, text):
    monkeypatch.setenv("EDC_RUNS_PER_GPU", text)
    with pytest.raises(EdcError, match=rf"EDC_RUNS_PER_GPU={text}: expected a whole number, at least 1"):
        runs_per_gpu()


def test_runs_per_gpu_are_one_unless_said(monkeypatch):
    monkeypatch.delenv("EDC_RUNS_PER_GPU", raising=False)
    assert runs_per_gpu() == 1
    monkeypatch.setenv("EDC_RUNS_PER_GPU", "8")
    assert runs_per_gpu() == 8


def test_runs_that_share_a_gpu_share_what_they_plan_with(monkeypatch):
    card, cpu = torch.device("cuda"), torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=80e9))
    monkeypatch.setenv("EDC_RUNS_PER_GPU", "4")
    assert share_of_memory(None, card) == 10
    assert share_of_memory(3.0, card) == 3
    assert share_of_memory(None, cpu) is None
    monkeypatch.setenv("EDC_GPU_MEMORY", "2.5")
    assert share_of_memory(None, card) == share_of_memory(3.0, card) == 2.5


@pytest.mark.parametrize("text", ["0", "-1", "much", "nan", "inf"])
def test_memory_that_is_none_is_refused(monkeypatch, text):
    monkeypatch.setenv("EDC_GPU_MEMORY", text)
    with pytest.raises(EdcError, match=rf"EDC_GPU_MEMORY={text}: expected a number of GB above 0"):
        share_of_memory(None, torch.device("cuda"))


def test_every_run_comes_after_those_it_reads_from_and_brings_them_along(plan):
    tasks = list(dag.tasks(plan))
    needs = upstream(tasks)
    assert needs["evaluate-row"] == ("synthesize-images", "relabel-labels")
    assert [task.name for task in ordered(tasks, [])] == [task.name for task in tasks]
    whole = ["pretrain-observer", "synthesize-images", "relabel-labels", "evaluate-row"]
    assert [task.name for task in ordered(tasks, ["evaluate-*"])] == whole
    first = [task.name for task in ordered(tasks, ["synthesize-*", "relabel-l?bels"])]
    assert first == ["synthesize-images", "pretrain-observer", "relabel-labels"]
    assert [task.name for task in matching(tasks, ["evaluate-*", "*-row"])] == ["evaluate-row"]
    with pytest.raises(EdcError, match="--only evaluat-x: no run of the plan"):
        ordered(tasks, ["evaluat-x"])


def test_a_pack_holds_small_files_and_tells_of_the_large_ones(away, tmp_path):
    (path,) = pack(away, tmp_path / "out", [], 1, 0)
    with tarfile.open(path) as archive:
        small = [f"results/pretrain/observer/{name}" for name in ("history.csv", "manifest.json", "run.json")]
        assert sorted(archive.getnames()) == ["index.json", *small]
        index = Index.model_validate_json(archive.extractfile("index.json").read())
    weights = "results/pretrain/observer/weights.safetensors"
    assert index.files[weights] == digest(weights)
    assert index.files[weights].size == 2000
    (path,) = pack(away, tmp_path / "out", [], 1, 0.002)
    with tarfile.open(path) as archive:
        assert weights in archive.getnames()


def test_parts_are_no_larger_than_asked_and_an_earlier_pack_is_gone(away, tmp_path):
    for i in range(6):
        Path(f"results/pretrain/observer/{i}.png").write_bytes(random.Random(i).randbytes(40_000))
    paths = pack(away, tmp_path / "out", [], 0.1, 0)
    assert [path.name for path in paths] == [f"results-{i:02}.tar.xz" for i in range(1, len(paths) + 1)]
    assert len(paths) > 2
    assert max(path.stat().st_size for path in paths) <= 100_000
    with pytest.raises(EdcError, match=r"0\.0 MB do not fit into a part of 0\.03 MB"):
        pack(away, tmp_path / "out", [], 0.03, 0)
    Path("results/pretrain/observer/history.csv").unlink()
    with pytest.raises(EdcError, match="no finished runs to pack"):
        pack(away, tmp_path / "out", [], 1, 0)


def test_what_was_packed_comes_back_and_an_older_large_file_does_not_stay(away, tmp_path):
    paths = pack(away, tmp_path / "out", [], 1, 0)
    before = {name: Path("results", name).read_bytes() for name in names()}
    weights = Path("results/pretrain/observer/weights.safetensors")
    made = unpack(away, paths)
    assert (made.taken, made.refused) == (["pretrain-observer"], {})
    assert weights.exists(), "the same file, known by its hash, may stay"
    weights.write_bytes(b"of an older version")
    unpack(away, paths)
    assert {name: Path("results", name).read_bytes() for name in names()} == {
        name: content for name, content in before.items() if not name.endswith((".tmp", "weights.safetensors"))
    }
    assert not list(Path(".edc").glob("unpack-*"))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda row: row | {"code": "f" * 16}, "made by other code than is here"),
        (lambda row: "damaged", "its manifest.json or run.json is damaged"),
    ],
)
def test_a_run_of_other_code_is_refused_and_leaves_nothing(away, tmp_path, change, problem):
    path = Path("results/pretrain/observer/run.json")
    paths = pack(away, tmp_path / "out", [], 1, 0)
    with tarfile.open(paths[0]) as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}
    name, index = path.as_posix(), json.loads(files["index.json"])
    files[name] = json.dumps(change(json.loads(files[name]))).encode()
    Path("changed").write_bytes(files[name])
    index["files"][name] = digest("changed").model_dump()
    files["index.json"] = json.dumps(index).encode()
    before = {name: Path("results", name).read_bytes() for name in names()}
    made = unpack(away, [repack(tmp_path / "changed.tar.xz", files)])
    assert (made.taken, made.refused) == ([], {"pretrain-observer": problem})
    assert {name: Path("results", name).read_bytes() for name in names()} == before


def test_a_run_of_other_parameters_or_another_plan_is_refused(away, tmp_path):
    paths = pack(away, tmp_path / "out", [], 1, 0)
    other = away.model_dump(mode="json")
    other["pretrain"]["observer"]["epochs"] = 4
    assert unpack(Plan.model_validate(other), paths).refused == {
        "pretrain-observer": "made with other parameters than the active plan's"
    }
    other |= {"synthesize": {}, "relabel": {}, "evaluate": {}}
    other["pretrain"] = {"another": other["pretrain"]["observer"]}
    assert unpack(Plan.model_validate(other), paths).refused == {"pretrain-observer": "not in the active plan"}


def test_a_changed_or_missing_file_is_refused(away, tmp_path):
    (path,) = pack(away, tmp_path / "out", [], 1, 0)
    with tarfile.open(path) as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}
    name = "results/pretrain/observer/history.csv"
    changed = repack(tmp_path / "changed.tar.xz", files | {name: b"better"})
    assert unpack(away, [changed]).refused == {"pretrain-observer": f"{name} is not as it was packed"}
    del files[name]
    less = repack(tmp_path / "less.tar.xz", files)
    assert unpack(away, [less]).refused == {"pretrain-observer": f"{name} is missing; give all parts of the pack"}


@pytest.mark.parametrize(
    "name", ["/etc/edc", "../edc", "results/../edc", "src/edc/cli.py", "results", "results/pretrain/../../../edc"]
)
def test_an_archive_may_only_hold_results(away, tmp_path, name):
    before = names(tmp_path)
    path = repack(tmp_path / "bad.tar.xz", {name: b"x"})
    with pytest.raises(EdcError, match="is no result; expected plain files below results/"):
        unpack(away, [path])
    path.unlink()
    assert names(tmp_path) == before


def test_links_damaged_archives_and_strange_files_are_refused(away, tmp_path):
    link = repack(tmp_path / "link.tar.xz", {"results/pretrain/x": b""}, tarfile.SYMTYPE)
    with pytest.raises(EdcError, match="is no result"):
        unpack(away, [link])
    (path,) = pack(away, tmp_path / "out", [], 1, 0)
    with pytest.raises(EdcError, match="is in there twice"):
        unpack(away, [path, path])
    more = repack(tmp_path / "more.tar.xz", {"results/pretrain/observer/x": b""})
    with pytest.raises(EdcError, match="belongs to no run of the pack"):
        unpack(away, [path, more])
    with pytest.raises(EdcError, match=r"no index\.json inside"):
        unpack(away, [more])
    with pytest.raises(EdcError, match="no such file"):
        unpack(away, [tmp_path / "none.tar.xz"])
    content = path.read_bytes()
    for damaged in (content[:-100], b"", content[:50] + bytes(50) + content[100:]):
        path.write_bytes(damaged)
        with pytest.raises(EdcError, match="damaged, or no pack"):
            unpack(away, [path])


def test_without_a_repository_the_note_says_the_commit(tmp_path):
    ask = provenance._git.__wrapped__
    assert ask(str(tmp_path)) == ("none", "none")
    (tmp_path / provenance.NOTE).write_text("abc\ntrue\n")
    assert ask(str(tmp_path)) == ("abc", "true")
    (tmp_path / provenance.NOTE).write_text("abc\n")
    assert ask(str(tmp_path)) == ("none", "none")


def test_a_repository_knows_better_than_the_note(tmp_path):
    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "-m", "first")
    (tmp_path / ".gitignore").write_text(f"/{provenance.NOTE}\n")
    provenance.note(tmp_path)
    assert (tmp_path / provenance.NOTE).read_text() == f"{git('rev-parse', 'HEAD')}\ntrue\n"
    (tmp_path / provenance.NOTE).write_text("abc\nfalse\n")
    assert provenance._git.__wrapped__(str(tmp_path))[0] == git("rev-parse", "HEAD")


@pytest.mark.parametrize(
    "name",
    [
        "results/pretrain/observer/../../tables/table1.csv",
        "results/pretrain/observer/../../../../README.md",
        "/etc/edc",
        "src/edc/cli.py",
        "results/./pretrain/observer/history.csv",
    ],
)
def test_an_index_can_t_lead_out_of_the_results(away, tmp_path, name):
    (path,) = pack(away, tmp_path / "out", [], 1, 0)
    with tarfile.open(path) as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}
    index = json.loads(files["index.json"])
    index["runs"][0]["files"].append(name)
    files["index.json"] = json.dumps(index).encode()
    with pytest.raises(EdcError, match=r"runs.*expected the plain path of a file below results/"):
        unpack(away, [repack(tmp_path / "bad.tar.xz", files)])


def test_a_run_that_is_here_with_other_results_stays(away, tmp_path):
    (path,) = pack(away, tmp_path / "out", [], 1, 0)
    manifest = Path("results/pretrain/observer/manifest.json")
    here = json.loads(manifest.read_text())
    here["files"]["weights.safetensors"] = {"bytes": 2000, "sha256": "0" * 64}
    manifest.write_text(json.dumps(here))
    refused = unpack(away, [path]).refused["pretrain-observer"]
    assert refused.startswith("results/pretrain/observer was made here from the same values, with other results")
    assert json.loads(manifest.read_text()) == here


def test_without_dvc_or_with_another_plan_nothing_is_placed(away, tmp_path, monkeypatch):
    (path,) = pack(away, tmp_path / "out", [], 1, 0)
    monkeypatch.setattr("edc.pipeline.unpacking.load_plan", lambda: away)
    shutil.rmtree("results")
    Path("dvc.yaml").write_text("stages: {}\n")
    with pytest.raises(EdcError, match=r"dvc\.yaml does not belong to params\.yaml"):
        take_in([path])
    Path("dvc.yaml").write_text(dag.render(away))
    with pytest.raises(EdcError, match=r"^dvc: "):  # no repository
        take_in([path])
    assert not Path("results").exists()


def test_a_second_one_in_the_same_checkout_is_refused(away):
    Path(".edc").mkdir(exist_ok=True)
    with FileLock(".edc/run.lock"), pytest.raises(EdcError, match="another `edc run` is at work in this checkout"):
        run(away)
