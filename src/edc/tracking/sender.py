"""Brings the spools into MLflow: one sender at a time, each event exactly once, a dead server costs nothing.

Only the holder of `sender.lock` opens the tracking store, because MLflow fails when several processes open a
fresh sqlite file at once. `sender.log` has one line per error; the spools stay until everything in them was
sent.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from edc.tracking.delivery import Delivery, one_line
from edc.tracking.files import DEFAULT_ROOT, only_one

DEFAULT_URI = "sqlite:///mlflow.db"
BACKGROUND_WATCH = 15.0
"""Seconds a background sender stays after the last run: the next stage of a pipeline finds it warm."""
LONGEST_PAUSE = 60.0
"""Seconds between attempts at most, while the tracking server does not answer."""
PROBE = 0.2
"""Seconds to try for the lock at least: a starting run holds it for an instant to see whether it is free."""
ROUNDS = 5
"""A sender that let go of the lock looks again: a run that ended just before found it held and left."""

_started: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Summary:
    """What a drain did.

    Attributes:
        sent_runs: runs of which something was sent.
        pending_runs: spools that still hold something to send.
        error: one line on what went wrong last, or None.
    """

    sent_runs: int
    pending_runs: int
    error: str | None

    def __str__(self) -> str:
        text = f"tracking: {self.sent_runs} runs sent, {self.pending_runs} pending"
        return f"{text}; {self.error}" if self.error else text


def drain(root: Path = DEFAULT_ROOT, uri: str | None = None, watch: float = 0.0, wait: float = 0.0) -> Summary:
    """Sends what the spools hold.

    Args:
        root: folder of the spools.
        uri: tracking store; default `MLFLOW_TRACKING_URI`, else `mlflow.db` in the working directory.
        watch: if positive, go on once a second until no run is open and nothing was sent for so many seconds.
        wait: seconds to wait while another sender is at work and something is pending.

    Returns:
        The summary. Errors are told there and in `sender.log`, never raised.
    """
    root = Path(root).absolute()
    if not root.is_dir():
        return Summary(0, 0, None)
    delivery = Delivery(root, uri or store_uri())
    deadline = time.monotonic() + wait
    rounds = 0
    while rounds < ROUNDS:
        try:
            with only_one(root / "sender.lock", PROBE) as held:
                if held:
                    _follow(delivery, watch)
                    rounds += 1
        except OSError as error:
            delivery.error = one_line(error)
        pending = delivery.pending()
        if delivery.error or not pending:
            break
        if not held and time.monotonic() >= deadline:
            delivery.error = "another sender is at work (see sender.log)"
            break
    return Summary(len(delivery.sent), delivery.pending(), delivery.error)


def store_uri() -> str:
    """The tracking store: `MLFLOW_TRACKING_URI`, else `mlflow.db` in the working directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def ensure_sender(root: Path = DEFAULT_ROOT) -> None:
    """Starts a background sender unless one is at work or `EDC_TRACKING` is "off" or "spool". Never fails."""
    try:
        _started[:] = [process for process in _started if process.poll() is None]  # no zombies in a long run
        if os.environ.get("EDC_TRACKING") in ("off", "spool"):
            return
        root = Path(root).absolute()
        with only_one(root / "sender.lock") as free:
            pass
        if not free:
            return
        command = [
            sys.executable,
            "-m",
            "edc.tracking",
            "--root",
            str(root),
            "--watch",
            str(BACKGROUND_WATCH),
        ]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # not ours, or who reads our output to its end waits for the sender
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        )
        _started.append(process)
    except Exception:
        return  # the spool is on disk; the next run or `edc track` sends it


def _follow(delivery: Delivery, watch: float) -> None:
    """Sweeps once, or with `watch` until all has been quiet for so long."""
    quiet_since = time.monotonic()
    pause = 1.0
    while True:
        sent, open_runs = delivery.sweep()
        now = time.monotonic()
        if sent or open_runs:
            quiet_since = now
        if watch <= 0 or now - quiet_since >= watch:
            return
        pause = min(pause * 2, LONGEST_PAUSE) if delivery.error else 1.0
        time.sleep(pause if open_runs else min(pause, watch))
