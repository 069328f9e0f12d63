"""`edc verify` finds rows of the record that do not come out again, and changes nothing."""

import pandas as pd
import pytest

RANDOM = "tiny-random-ipc1-convnet_d2-hard_label"
CONTINUAL = "continual/tiny-edc-ipc1-convnet_d2-edc"


def changed(project, **values):
    """Other values in the record's rows of a run; numbers are added."""
    path = project.path("results/runs.csv")
    record = pd.read_csv(path, dtype=object)
    rows = record["run"] == RANDOM
    for name, value in values.items():
        record.loc[rows, name] = value if isinstance(value, str) else record.loc[rows, name].astype(float) + value
    record.to_csv(path, index=False)


def test_finished_runs_hold_and_nothing_changes(finished):
    before = finished.files()
    text = finished.ok("edc", "verify", "--run", RANDOM, "--run", CONTINUAL)
    assert text.count("bit for bit") == 2
    assert "2 of 2 hold" in text
    assert finished.files() == before
    assert not finished.path(".edc/verify").exists()


@pytest.mark.parametrize(
    ("values", "code", "words"),
    [
        ({"accuracy": 0.001}, 1, ["bit for bit", "no", "accuracy"]),
        ({"label_bytes": 1}, 1, ["bit for bit", "no", "label_bytes"]),
        ({"device": "CPU (another)", "digest": "0" * 16}, 0, ["within the spread", "yes"]),
        ({"device": "CPU (another)", "accuracy": -45}, 1, ["within the spread", "no", "accuracy"]),
        ({"torch": "1.0", "epochs": 1}, 1, ["within the spread", "no", "epochs"]),
    ],
)
def test_a_changed_number_in_the_record_is_found(finished, values, code, words):
    changed(finished, **values)
    done = finished.run("edc", "verify", "--run", RANDOM)
    assert done.returncode == code, done.stdout + done.stderr
    assert all(word in done.stdout for word in words), done.stdout


def test_missing_inputs_are_one_line(finished):
    finished.path("runs/synthesize/tiny-random-ipc1/manifest.json").unlink()
    done = finished.run("edc", "verify", "--run", RANDOM)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "edc: inputs of 1 of 1 runs are missing, synthesize/tiny-random-ipc1 first; bring them with `dvc pull`, or "
        "make them with `dvc repro synthesize`\n"
    )
    done = finished.run("edc", "verify", "--sample", "1")
    assert done.returncode == 0
    assert "1 of 1 hold" in done.stdout
    assert done.stderr.startswith("edc: inputs of ")
    done = finished.run("edc", "verify", "--run", "tiny")
    assert done.returncode == 2
    assert done.stderr.startswith("edc: params.yaml: unknown run 'tiny'; ")
