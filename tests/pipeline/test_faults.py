"""Killed and stopped runs resume, and end with the same bytes as if nothing had happened."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from checkout import RUNNERS, Checkout, until

RUNS = {
    "pretrain": "tiny-convnet_w32",
    "statistics": "tiny-p4",
    "synthesize": "tiny-edc-ipc1",
    "relabel": "tiny-edc-ipc1-edc",
    "evaluate": "tiny-edc-ipc1-convnet_d2-edc",
    "continual": "tiny-edc-ipc1-convnet_d2-edc",
    "slimming": "tiny-random-ipc1-vgg11_bn-edc",
}
LONGER = {
    "pretrain": {"epochs": 60},
    "statistics": {"batch": 2},
    "synthesize": {"optimise": {"iterations": 150}},
    "relabel": {"epochs": 600},
    "evaluate": {"epochs": 6, "seeds": list(range(8))},
    "continual": {"epochs": 6, "seeds": list(range(8))},
    "slimming": {"finetune": 6, "seeds": [0, 1, 2]},
}
"""Values that give a run of each stage enough to do to be interrupted."""


def interrupted(checkout: Checkout, stage: str, number: int) -> bool:
    """Start a run, and end it by a signal once it has saved a checkpoint; whether it was caught before its end."""
    shutil.rmtree(checkout.path("runs", stage, RUNS[stage]), ignore_errors=True)
    saved = checkout.path(".edc/checkpoints", stage, f"{RUNS[stage]}.pt")
    process = checkout.start("edc", stage, "--run", RUNS[stage], EDC_CHECKPOINT_SECONDS="0")
    until(lambda: saved.exists() or process.poll() is not None)
    process.send_signal(number)
    begun = time.monotonic()
    process.communicate()
    assert time.monotonic() - begun < 60
    return process.returncode != 0 and saved.exists()


@pytest.mark.slow
@pytest.mark.parametrize("stage", RUNS)
def test_a_killed_run_resumes_and_ends_with_the_same_bytes(finished, tmp_path, stage):
    finished.edit({f"{stage}.{RUNS[stage]}.{name}": value for name, value in LONGER[stage].items()})
    whole = finished.copy(tmp_path / "whole")
    whole.ok("edc", stage, "--run", RUNS[stage])
    caught = any(interrupted(finished, stage, signal.SIGKILL) for _ in range(5))
    assert caught, "the run always ended before it could be killed"
    assert not finished.path("runs", stage, RUNS[stage], "manifest.json").exists()
    assert "resumes from its checkpoint" in finished.ok("edc", stage, "--run", RUNS[stage])
    assert finished.outputs() == whole.outputs()
    assert not list(finished.path(".edc/checkpoints", stage).iterdir())


STOPPED = {
    "stage": (("edc", "relabel", "--run", RUNS["relabel"]), 2),
    "edc": (RUNNERS["edc"], 2),
    "dvc": (RUNNERS["dvc"], 10),
    "snakemake": (RUNNERS["snakemake"], 10),
}
"""Commands, and the seconds within which a signal ends them; DVC and Snakemake take some of their own."""


@pytest.mark.parametrize(
    ("command", "number", "group"),
    [
        ("stage", signal.SIGTERM, False),
        *(
            pytest.param(command, number, number == signal.SIGINT, marks=pytest.mark.slow)
            for command in STOPPED
            for number in (signal.SIGINT, signal.SIGTERM)
            if (command, number) != ("stage", signal.SIGTERM)
        ),
    ],
)
def test_a_signal_ends_a_command_and_all_it_started_and_keeps_the_checkpoint(finished, command, number, group):
    """SIGINT as from a terminal, which sends it to the whole group."""
    finished.edit({f"relabel.{RUNS['relabel']}.epochs": 200_000})
    words, seconds = STOPPED[command]
    process = finished.start(*words, EDC_CHECKPOINT_SECONDS="0", SHELL="")  # DVC takes /bin/sh, which stays in between
    saved = finished.path(".edc/checkpoints/relabel", f"{RUNS['relabel']}.pt")
    assert until(lambda: saved.exists() or process.poll() is not None)
    (os.killpg if group else os.kill)(process.pid, number)
    begun = time.monotonic()
    _, err = process.communicate(timeout=30)
    assert until(lambda: not members(process.pid), seconds=30), "a process is left behind"
    assert time.monotonic() - begun < seconds
    assert process.returncode == 128 + number if words[0] == "edc" else process.returncode
    assert command == "snakemake" or "finished runs are kept, the others resume" in err
    assert "Traceback" not in err
    assert saved.exists()


def members(group: int) -> list[int]:
    """Living processes of a process group."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                fields = Path(entry, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                found.append(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["dvc", "snakemake"])
def test_a_runner_killed_in_the_middle_is_called_again_and_ends_with_the_same_bytes(project, by, runner):
    process = project.start(*RUNNERS[runner])
    assert until(lambda: list(project.path("runs").glob("evaluate/*/manifest.json")) or process.poll() is not None)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert until(lambda: not members(process.pid), seconds=30)
    if runner == "snakemake":
        project.run("snakemake", "--unlock")
    project.ok(*RUNNERS[runner])
    assert project.outputs() == by("edc").outputs()


@pytest.mark.slow
def test_a_second_process_that_waits_and_is_interrupted_loses_nothing_of_the_first(finished, tmp_path):
    stage, key = "relabel", RUNS["relabel"]
    finished.edit({f"{stage}.{key}.epochs": 4000})
    whole = finished.copy(tmp_path / "whole")
    whole.ok("edc", stage, "--run", key)
    command = ("edc", stage, "--run", key, "--force")
    first = finished.start(*command, EDC_CHECKPOINT_SECONDS="0")
    assert until(lambda: finished.path(".edc/checkpoints", stage, f"{key}.pt").exists())
    second = finished.start(*command)
    assert second.stderr is not None
    assert until(lambda: "is being made by another process" in second.stderr.readline() or second.poll() is not None)
    assert finished.run("edc", "plan", "digits").stderr.startswith("edc: params.yaml: runs of it are being made")
    second.send_signal(signal.SIGINT)
    second.communicate(timeout=30)
    first.communicate()
    assert (first.returncode, second.returncode) == (0, 130)
    assert finished.outputs() == whole.outputs()


@pytest.mark.slow
def test_dvc_and_snakemake_at_once_make_every_run_once(project, by):
    processes = [project.start(*RUNNERS[name]) for name in ("dvc", "snakemake")]
    results = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert "Traceback" not in str(results)
    assert 'Snakefile"' not in str(results)
    assert project.outputs() == by("edc").outputs()


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["edc", "snakemake"])
def test_a_folder_without_a_repository_ends_well(finished, runner):
    shutil.rmtree(finished.path(".git"))
    finished.path("runs/evaluate", RUNS["evaluate"], "manifest.json").unlink()
    output = finished.ok(*RUNNERS[runner])
    logs = "".join(path.read_text() for path in finished.path().glob("logs/evaluate/*.log"))
    assert (output + logs).count("edc: the commit is unknown, runs are made without it (") == 1
    assert not [line for line in output.splitlines() if "Traceback" in line or "EdcError" in line]


@pytest.mark.slow
def test_a_closed_standard_error_breaks_nothing(finished):
    command = f"edc evaluate --force --run {RUNS['evaluate']} 2>&-"
    assert "took" in finished.ok("sh", "-c", command)


@pytest.mark.slow
def test_two_processes_do_not_make_the_same_run_twice(project):
    first = project.start("edc", "pretrain")
    second = project.start("edc", "pretrain")
    results = [process.communicate()[1] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], results
    lines = [line for text in results for line in text.splitlines() if " took " in line]
    assert len(lines) == 2, results  # one line per observer, from either process


@pytest.mark.slow
def test_a_failed_run_stops_what_builds_on_it_and_nothing_else(project):
    project.edit({"pretrain.tiny-convnet_w32.optimiser": {"name": "sgd", "lr": 1e30}})
    result = project.run("edc", "run")
    assert result.returncode == 2
    assert "pretrain.tiny-convnet_w32: diverged" in result.stderr
    assert "statistics tiny-p4 failed: it builds on pretrain tiny-convnet_w32" in result.stderr
    assert project.path("runs/synthesize/tiny-random-ipc1/manifest.json").exists()
