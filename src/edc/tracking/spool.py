"""What a stage says about its run: parameters, metrics per step, artifacts, datasets and how it ended.

`EDC_TRACKING` in the environment: "off" writes nothing, "spool" writes but starts no sender, anything else
does both.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from edc.tracking.files import DEFAULT_ROOT, SPOOL, Event, append, encode, owner, read
from edc.tracking.provenance import provenance
from edc.tracking.sender import ensure_sender

VALUE_LENGTH = 500
KEY_LENGTH = 250
KEPT_LINES = 100_000
"""Lines kept in memory while the spool cannot be written; older ones are given up first."""
RETRY = 5.0
"""Seconds between attempts to write a spool that could not be written."""
ASK_AGAIN = 60.0
"""Seconds after which a long run looks whether its sender still lives."""

log = logging.getLogger("edc.tracking")


class Run:
    """One execution of a stage, as a context manager.

    Example:
        with Run(stage="evaluate", row="digits-edc-ipc10", params={"ipc": 10}, study="digits", seed=0) as run:
            run.metrics({"accuracy": 61.2}, step=epoch)

    An execution that is killed or fails and is started again with the same stage, row, seed and parameters
    goes on in the same MLflow run, and steps which that run has are not written twice. One that finished and
    is started again gets a run of its own (see `store.Store.open_run`).

    No method raises because of tracking: what cannot be written is kept in memory, tried again, and told
    once.
    """

    def __init__(
        self,
        *,
        stage: str,
        row: str,
        params: Mapping[str, object],
        study: str,
        seed: int | None = None,
        root: Path = DEFAULT_ROOT,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Describes the run; nothing is written before the `with` block is entered.

        Args:
            stage: name of the stage.
            row: name of its row in the plan.
            params: what to show as parameters, short names; nested mappings are flattened with dots.
            study: name of the study, the MLflow experiment.
            seed: seed of the run, where a row has several.
            root: folder of the spools.
            tags: further tags.
        """
        self.key = run_key(stage, row, params, seed)
        self.root = Path(root).absolute()
        self.path = self.root / f"{_file_name(self.key)}{SPOOL}"
        shown = _flatten(params)
        if seed is not None:
            shown.setdefault("seed", str(seed))
        self._about: Event = {
            "event": "start",
            "key": self.key,
            "study": study,
            "name": f"{stage} {row}" + (f" seed {seed}" if seed is not None else ""),
            "params": shown,
            "tags": {**(tags or {}), "edc.run_key": self.key, "edc.stage": stage, "edc.row": row},
        }
        self._on = False
        self._warned = False
        self._opening = b""
        self._waiting: list[bytes] = []
        self._last: dict[str, int] = {}
        self._asked = 0.0
        self._retry = 0.0

    def __enter__(self) -> Self:
        self._on = os.environ.get("EDC_TRACKING") != "off"
        if self._on:
            self._last = _last_steps(self.path)
            tags = {**provenance(), **self._about["tags"]}
            about = {
                **self._about,
                "tags": tags,
                "execution": uuid.uuid4().hex[:12],
                "owner": owner(),
                "t": _now(),
            }
            self._opening = encode(about)
            self._write(self._opening)
            self._ask_for_sender()
        return self

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Records values of one step, normally once per epoch.

        Values of a step at or below the metric's last one are skipped, so that work done again after a kill
        leaves no step twice. Every call is written at once (some 50 microseconds): a process killed later
        loses none of it.
        """
        fresh: dict[str, float] = {}
        for name, value in values.items():
            name = _safe_key(name)
            if step <= self._last.get(name, step - 1):
                continue
            try:
                fresh[name] = float(value)
            except (TypeError, ValueError) as error:
                self._warn(f"metric {name!r} at step {step}: {error}")
                continue
            self._last[name] = int(step)
        if fresh:
            self._put({"event": "metrics", "t": _now(), "step": int(step), "values": fresh})
        if self._on and time.monotonic() - self._asked > ASK_AGAIN:
            self._ask_for_sender()

    def artifact(self, path: Path) -> None:
        """Names a finished file, sent under its own name, as it is then, when the run has ended."""
        self._put({"event": "artifact", "path": str(Path(path).absolute())})

    def dataset(self, name: str, digest: str) -> None:
        """Records a dataset the run reads, with the digest of its content."""
        self._put({"event": "dataset", "name": name, "digest": digest})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status, reason = "FINISHED", ""
        if isinstance(error, KeyboardInterrupt):
            status, reason = "KILLED", "interrupted"
        elif error is not None and not (isinstance(error, SystemExit) and error.code in (None, 0)):
            text = " ".join(str(error).split())
            status, reason = "FAILED", f"{type(error).__name__}: {text}"[:VALUE_LENGTH]
        self._put({"event": "end", "t": _now(), "status": status, "error": reason}, now=True)
        if self._on:
            self._ask_for_sender()

    def _ask_for_sender(self) -> None:
        self._asked = time.monotonic()
        ensure_sender(self.root)

    def _put(self, event: Event, now: bool = False) -> None:
        if self._on:
            self._write(encode(event), now)

    def _write(self, line: bytes, now: bool = False) -> None:
        self._waiting.append(line)
        del self._waiting[:-KEPT_LINES]
        if time.monotonic() < self._retry and not now:
            return
        try:
            append(self.path, b"".join(self._waiting), self._opening)
        except OSError as error:
            self._retry = time.monotonic() + RETRY
            self._warn(f"{self.path}: {error.strerror or error}; kept in memory")
        else:
            self._waiting.clear()

    def _warn(self, text: str) -> None:
        if not self._warned:
            log.warning("tracking: %s", text)
        self._warned = True


def run_key(stage: str, row: str, params: Mapping[str, object], seed: int | None = None) -> str:
    """The name under which a run is found again: stage, row, seed and a hash of the parameters."""
    text = json.dumps(params, sort_keys=True, separators=(",", ":"), default=str)
    parts = [stage, row, *([f"seed{seed}"] if seed is not None else [])]
    return "/".join([*parts, hashlib.sha256(text.encode()).hexdigest()[:12]]).replace("'", "_")


def _file_name(key: str) -> str:
    """A file name for a run key: readable, short, and unique even where file names ignore case."""
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', key)[:120]}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def _flatten(params: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[_safe_key(f"{prefix}{key}")] = str(value)[:VALUE_LENGTH]
    return flat


def _safe_key(name: str) -> str:
    """A name MLflow takes: it refuses other characters, and names that read like a path out of a folder."""
    name = re.sub(r"[^\w.\-: /]", "_", str(name))
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    return "/".join(parts)[:KEY_LENGTH] or "_"


def _last_steps(path: Path) -> dict[str, int]:
    """The last step of each metric in a spool whose last execution did not finish; empty if there is none."""
    last: dict[str, int] = {}
    finished = False
    try:
        for event, _ in read(path):
            if event.get("event") == "start" and finished:
                last, finished = {}, False
            elif event.get("event") == "end":
                finished = event.get("status") == "FINISHED"
            elif event.get("event") == "metrics":
                last |= dict.fromkeys(event["values"], event["step"])
    except OSError:
        return {}
    return {} if finished else last


def _now() -> int:
    return time.time_ns() // 1_000_000
