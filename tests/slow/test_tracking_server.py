"""Many checkouts record into one MLflow server on PostgreSQL, which is killed and comes back; and what refuses them.

4 checkouts with 1,000 metric values each, or as many as ``EDC_TEST_CHECKOUTS``; 16 take about three minutes on two
cores.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from support import free_ports
from support.tracking import server

PROGRAMS = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
psycopg2 = pytest.importorskip("psycopg2")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PROGRAMS or os.getuid() != 0, reason="no PostgreSQL (Debian: postgresql), or no root"),
]
CHECKOUTS = int(os.environ.get("EDC_TEST_CHECKOUTS", "4"))
SEEDS, EPOCHS = 5, 100
WHOLE = CHECKOUTS * SEEDS * EPOCHS * 2
PASSWORD = "se/c@r?t"
TRACK = f"""
import os, sys
import mlflow, pandas
import edc.config.references
from edc.cli import app
from edc.config.rows import EvaluateRow, StudyRuns
from support.tracking import STUDENT, finish, make_plan

def track(key):
    plan, row = make_plan(), STUDENT | {{"seeds": list(range({SEEDS}))}}
    plan.studies["digits"], plan.evaluate[key] = StudyRuns(evaluate=[key]), EvaluateRow.model_construct(**row)
    lines = [f"{{seed}},{{epoch}},0.1,{{epoch}},{{epoch}}\\n" for seed in row["seeds"] for epoch in range({EPOCHS})]
    scores = {{"final": row["seeds"], "best": row["seeds"], "final_mean": 2.0}}
    folder = finish("evaluate", key, row, "seed,epoch,lr,train_loss,accuracy\\n" + "".join(lines), scores=scores)
    (folder / "curves.png").write_bytes(b"p")
    edc.config.references.load_plan = lambda: plan
    app(["track"])

for number in range(int(sys.argv[1])):
    if os.fork() == 0:
        os.makedirs(f"checkout{{number}}", exist_ok=True)
        os.chdir(f"checkout{{number}}")
        output = os.open("output", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(output, 1), os.dup2(output, 2)
        track(f"run{{number}}")
print(sorted(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(int(sys.argv[1]))))
"""
"""`edc track` in checkouts with one finished evaluation each, at once; modules are imported once."""


@pytest.fixture
def database() -> Iterator[str]:
    """URI of a database of its own, whose cluster ends with the test."""
    # Not below pytest's folder, which the user postgres may not enter.
    folder, (port,) = Path(tempfile.mkdtemp(prefix="edc-postgres-")), free_ports(1)
    (folder / "password").write_text(PASSWORD)
    shutil.chown(folder, "postgres")
    shutil.chown(folder / "password", "postgres")

    def as_postgres(program: str, *options: str) -> None:
        command = ["runuser", "-u", "postgres", "--", f"{PROGRAMS}/{program}", "-D", f"{folder}/data", *options]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)

    as_postgres("initdb", "-U", "edc", "-A", "scram-sha-256", f"--pwfile={folder}/password")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    as_postgres("pg_ctl", "-l", f"{folder}/log", "-o", options, "-w", "start")
    try:
        yield f"postgresql://edc:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/postgres"
    finally:
        as_postgres("pg_ctl", "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder)


def start_checkouts(uri: str, folder: Path, count: int = CHECKOUTS) -> subprocess.Popen[str]:
    """All checkouts; prints their exit codes."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "EDC_TRACKING": "on"}
    environment["MLFLOW_TRACKING_URI"] = uri
    command = [sys.executable, "-c", TRACK, str(count)]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)


def outputs(folder: Path) -> list[str]:
    return [path.read_text() for path in folder.glob("checkout*/output")]


def counts(database: str) -> tuple[int, int, int]:
    """Values of the seeds' curves in runs that are not deleted, how many of them are different, and these runs."""
    with contextlib.closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "select count(*), count(distinct (name.value, metrics.key, step)), count(distinct run_uuid) from runs"
            " join tags name using (run_uuid) join tags seed using (run_uuid) join metrics using (run_uuid)"
            " where lifecycle_stage = 'active' and name.key = 'edc.run' and seed.key = 'edc.seed'"
            " and seed.value != 'all' and metrics.key in ('accuracy', 'train_loss')"
        )
        return cursor.fetchone()


def test_killed_server_loses_and_doubles_nothing(database, tmp_path):
    (port,) = free_ports(1)
    uri = f"http://me:{quote(PASSWORD, safe='')}@127.0.0.1:{port}"
    with server(database, port, tmp_path):
        checkouts = start_checkouts(uri, tmp_path)
        while counts(database)[0] < WHOLE / 4 and checkouts.poll() is None:
            time.sleep(0.01)
    interrupted, codes = counts(database)[0], json.loads(checkouts.communicate()[0])
    lines = outputs(tmp_path)
    assert 0 < interrupted < WHOLE
    assert 1 in codes
    assert set(codes) <= {0, 1}
    assert all(line.count("\n") == 1 and PASSWORD not in line and "duplicate" not in line for line in lines), lines
    with server(database, port, tmp_path):
        again = json.loads(start_checkouts(uri, tmp_path).communicate()[0])
    assert again == [0] * CHECKOUTS, outputs(tmp_path)
    assert counts(database) == (WHOLE, WHOLE, CHECKOUTS * SEEDS)
    assert len(list((tmp_path / "artifacts").rglob("curves.png"))) >= CHECKOUTS


def test_wrong_password_is_one_line_and_the_runs_are_recorded_later(database, tmp_path):
    for password in (quote("wrong/secr@et"), "wrong/secr@et?token=hidden"):
        uri = database.replace(quote(PASSWORD, safe=""), password)
        assert json.loads(start_checkouts(uri, tmp_path, 1).communicate()[0]) == [1]
        (line,) = outputs(tmp_path)
        assert line.count("\n") == 1
        assert not [secret for secret in ("wrong", "secr", "et@", "hidden") if secret in line]
    assert json.loads(start_checkouts(database, tmp_path, 1).communicate()[0]) == [0]
