"""Runners killed at random moments, again and again, end with the bytes of an undisturbed run.

EDC_TEST_KILLS says how often; 50 take about a quarter of an hour on two cores.
"""

import json
import os
import random
import signal
import subprocess

import pytest
from checkout import RUNNERS, Checkout, until
from test_faults import members

KILLS = int(os.environ.get("EDC_TEST_KILLS", "6"))


def half_written(checkout: Checkout) -> list[str]:
    """Files of finished runs that are missing or not as long as their manifests say."""
    wrong = []
    for path in checkout.path("runs").rglob("manifest.json"):
        files = json.loads(path.read_text())["files"]
        wrong += [
            f"{path.parent}/{name}" for name in files if (path.parent / name).stat().st_size != files[name]["bytes"]
        ]
    return wrong


@pytest.mark.slow
def test_runners_killed_at_random_moments_end_with_the_same_bytes(planned, by, tmp_path):
    rng, undisturbed = random.Random(0), by("edc").outputs()
    project, rounds, kills = planned.copy(tmp_path / "0"), 0, 0
    while kills < KILLS:
        runner, number = rng.choice(list(RUNNERS)), rng.choice([signal.SIGKILL, signal.SIGTERM])
        process = project.start(*RUNNERS[runner], EDC_CHECKPOINT_SECONDS="0")
        try:
            _, err = process.communicate(timeout=rng.uniform(1, 20))
        except subprocess.TimeoutExpired:
            rng.choice([os.kill, os.killpg])(process.pid, number)
            process.communicate()
            kills += 1
        else:
            assert process.returncode == 0, err
            assert project.outputs() == undisturbed
            rounds += 1
            project = planned.copy(tmp_path / str(rounds))
        assert until(lambda pid=process.pid: not members(pid)), f"{runner} leaves processes behind"
        assert not half_written(project)
        # What docs/running.md advises after a runner was killed.
        if runner == "snakemake":
            project.run("snakemake", "--unlock")
        lock = project.path(".dvc/tmp/rwlock")
        if lock.exists() and not lock.read_text():
            lock.unlink()
    project.ok("edc", "run")
    assert project.outputs() == undisturbed
