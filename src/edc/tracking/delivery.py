"""One sweep over the spools: each event is sent exactly once, in order, in batches.

The position is recorded after each batch. A sender that dies between sending and recording leaves a batch to
be sent again: the next one asks the store for the last step of each metric and drops what is there already
(steps of a metric only grow within a spool, and a batch is written whole or not at all). Everything else can
be written twice unharmed.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

from edc.tracking.files import SPOOL, Event, is_alive, read, remove_if_read
from edc.tracking.progress import SENT, Progress, sent_file
from edc.tracking.store import METRICS_PER_BATCH, Store, Value

LOG_LINES = 200
NO_WORD = "the process ended without saying how"
REFUSALS = {"INVALID_PARAMETER_VALUE", "INVALID_STATE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST"}
"""Error codes that concern one run; with any other one the store is taken to be down for this sweep."""


DAMAGE = (KeyError, TypeError, ValueError)
"""What a spool that was edited by hand raises; it must not hold the others up."""


class Delivery:
    """Carries the spools of one folder to one store; what must outlive it stands in their `Progress`."""

    def __init__(self, root: Path, uri: str) -> None:
        """Nothing is opened before there is something to send.

        Args:
            root: folder of the spools.
            uri: tracking store.
        """
        if re.match(r"sqlite:///[^/]", uri):  # relative to the working directory; the record must not depend on it
            uri = "sqlite:///" + os.path.abspath(uri.removeprefix("sqlite:///"))
        self.root = root
        self.sent: set[str] = set()
        self.error: str | None = None
        self._uri = uri
        self._shown_uri = _without_credentials(uri)
        self._connection: Store | None = None
        self._steps: dict[Path, dict[str, int]] = {}
        self._logged = ""

    def sweep(self) -> tuple[bool, int]:
        """Sends what the spools hold now.

        Returns:
            Whether anything was sent, and how many runs are open (not ended, and their process lives).
        """
        self.error = None
        sent, open_runs, down = False, 0, False
        for spool in sorted(self.root.glob(f"*{SPOOL}")):
            try:
                progress = Progress.load(spool, self._shown_uri)
                before = progress.offset
                try:
                    if not down:
                        self._deliver(spool, progress)
                finally:
                    sent |= progress.offset != before
                    open_runs += self._is_open(spool, progress)
            except FileNotFoundError:
                continue  # removed by hand
            except Exception as error:
                self._steps.pop(spool, None)
                down |= not isinstance(error, DAMAGE) and getattr(error, "error_code", "") not in REFUSALS
                self._fail(f"{spool.name}: {one_line(error)}")
        for left in self.root.glob(f"*{SENT}"):
            if not left.with_name(left.name.removesuffix(SENT) + SPOOL).exists():
                left.unlink(missing_ok=True)
        return sent, open_runs

    def pending(self) -> int:
        """How many spools hold something to send."""
        count = 0
        for spool in self.root.glob(f"*{SPOOL}"):
            try:
                progress = Progress.load(spool, self._shown_uri)
                unread = any(True for _ in read(spool, progress.offset))
                count += unread or not (progress.ended or self._is_open(spool, progress))
            except FileNotFoundError:
                continue
        return count

    def _deliver(self, spool: Path, progress: Progress) -> None:
        """Sends what is new in a spool, and removes it when its run has ended."""
        if progress.run_id and spool not in self._steps:
            unread = any(True for _ in read(spool, progress.offset))
            if not unread and self._is_open(spool, progress):
                return
            steps = self._store.last_steps(progress.run_id)
            if steps is None:  # deleted by a user: begin again, in a new run
                progress.run_id, progress.offset = "", 0
            else:
                self._steps[spool] = steps
        self._send_new(spool, progress)
        if not progress.ended and not self._is_open(spool, progress):
            self._send_new(spool, progress)  # what the process wrote between our reading and its end
            if not progress.ended:
                if progress.run_id:  # else nothing in it could be read
                    self._end(progress, "KILLED", NO_WORD, int(spool.stat().st_mtime * 1000))
                    progress.save(spool)
                progress.ended = True
        if progress.ended and remove_if_read(spool, progress.offset):
            # First the spool, then what is known of it: a record without its spool is recognised and removed.
            sent_file(spool).unlink(missing_ok=True)
            self._steps.pop(spool, None)

    def _send_new(self, spool: Path, progress: Progress) -> None:
        batch: list[Value] = []
        behind = progress.offset
        for event, end in read(spool, progress.offset):
            values = self._new_values(spool, event)
            if batch and (len(batch) + len(values) > METRICS_PER_BATCH or event.get("event") != "metrics"):
                self._send_batch(spool, progress, batch, behind)
                batch = []
            behind = end
            batch += values
            if event.get("event") != "metrics":
                self._send_event(spool, progress, event)
                progress.offset = end
                progress.save(spool)
        if behind != progress.offset:
            self._send_batch(spool, progress, batch, behind)

    def _send_batch(self, spool: Path, progress: Progress, batch: list[Value], end: int) -> None:
        for begin in range(0, len(batch), METRICS_PER_BATCH):
            self._store.metrics(progress.run_id, batch[begin : begin + METRICS_PER_BATCH])
        progress.offset = end
        progress.save(spool)
        self.sent.add(progress.run_id)

    def _send_event(self, spool: Path, progress: Progress, event: Event) -> None:
        kind = event.get("event")
        if kind == "start":
            progress.run_id, self._steps[spool] = self._store.open_run(event)
            progress.owner, progress.ended, progress.artifacts = event["owner"], False, []
        elif not progress.run_id or kind not in ("dataset", "artifact", "end"):
            self._log(f"{spool.name}: a line that cannot be read was left out")
        elif kind == "dataset":
            self._store.dataset(progress.run_id, event["name"], event["digest"])
        elif kind == "artifact":
            if event["path"] not in progress.artifacts:
                progress.artifacts.append(event["path"])
        else:
            self._end(progress, event["status"], event["error"], event["t"])

    def _end(self, progress: Progress, status: str, reason: str, time_ms: int) -> None:
        for path in map(Path, progress.artifacts):
            if path.exists():
                self._store.artifact(progress.run_id, path)
            else:
                self._log(f"artifact {path} is gone and was not sent")
        self._store.end(progress.run_id, status, reason, time_ms)
        self.sent.add(progress.run_id)
        progress.ended, progress.artifacts = True, []

    def _new_values(self, spool: Path, event: Event) -> list[Value]:
        """The values of a metrics event that the run does not have yet."""
        if event.get("event") != "metrics":
            return []
        if spool not in self._steps:
            self._log(f"{spool.name}: metrics without a start were left out")
            return []
        last, step = self._steps[spool], event["step"]
        fresh = [name for name in event["values"] if step > last.get(name, step - 1)]
        last |= dict.fromkeys(fresh, step)
        return [(name, event["values"][name], event["t"], step) for name in fresh]

    @property
    def _store(self) -> Store:
        if self._connection is None:
            self._connection = Store(self._uri)
        return self._connection

    @staticmethod
    def _is_open(spool: Path, progress: Progress) -> bool:
        if progress.ended or not spool.exists():
            return False
        who = progress.owner or next(reversed(_owners(spool)), {})
        return bool(who) and is_alive(who, spool.stat().st_mtime)

    def _fail(self, text: str) -> None:
        self.error = self.error or text
        self._log(text)

    def _log(self, text: str) -> None:
        """Adds a line to `sender.log`; the same trouble, met again and again, stands there once."""
        if text == self._logged:
            return
        self._logged = text
        path = self.root / "sender.log"
        old = path.read_text().splitlines() if path.exists() else []
        lines = [*old[1 - LOG_LINES :], f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}"]
        path.write_text("\n".join(lines) + "\n")


def one_line(error: BaseException) -> str:
    """An error as one line without credentials."""
    text = " ".join(str(error).split())
    return _without_credentials(f"{type(error).__name__}: {text}"[:400])


def _without_credentials(text: str) -> str:
    return re.sub(r"//[^@/\s]*@", "//", text)


def _owners(spool: Path) -> list[dict[str, Any]]:
    return [event.get("owner", {}) for event, _ in read(spool) if event.get("event") == "start"]
