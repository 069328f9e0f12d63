"""Checkpoints of long runs."""

from __future__ import annotations

import io
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edc.errors import EdcError
from edc.storage.files import replacing

SPARING, LONGEST = 20, 300.0
"""So many times as long as it took to keep a checkpoint pass before the next one, so that a large state costs a small
share of the time, but no more than so many seconds, so that a run in pieces of some minutes gets on."""


class Checkpoint:
    """Where a long run stands, kept outside its outputs, so that a killed run goes on instead of starting over.

    A checkpoint belongs to the exact parameters and inputs it was made with (its identity); any other is ignored.

    Args:
        path: where it is kept.
        identity: fingerprint of everything the state depends on.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path, self.identity = path, identity
        # EDC_CHECKPOINT_SECONDS=0 keeps one at every opportunity; the fault tests use it.
        said = os.environ.get("EDC_CHECKPOINT_SECONDS") or "30"
        try:
            self.interval = float(said)
        except ValueError:
            self.interval = -1.0
        if not 0 <= self.interval < math.inf:
            raise EdcError(f"EDC_CHECKPOINT_SECONDS={said}: expected a number of seconds, at least 0")
        self._last, self._cost = time.monotonic(), 0.0

    def load(self) -> dict[str, Any] | None:
        """The kept state, or None when there is none, it is damaged, or it belongs to other inputs."""
        import torch

        if not self.path.exists():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception:
            return None
        if not isinstance(state, dict) or state.get("identity") != self.identity:
            return None
        kept = state.get("state")
        return kept if isinstance(kept, dict) else None

    def due(self) -> bool:
        """Whether the interval since the last one has passed, and long enough for it to take a small share of time."""
        wait = max(self.interval, min(SPARING * self._cost, LONGEST)) if self.interval else 0.0
        return time.monotonic() - self._last >= wait

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep a state of tensors, numbers, strings, lists and dictionaries."""
        import torch

        begun = time.monotonic()
        buffer = io.BytesIO()  # torch has no clear word for a full disk
        torch.save({"identity": self.identity, "state": dict(state)}, buffer)
        with replacing(self.path) as temporary:
            temporary.write_bytes(buffer.getbuffer())
        self._last = time.monotonic()
        self._cost = self._last - begun

    def clear(self) -> None:
        """Forget the state: the run is finished."""
        self.path.unlink(missing_ok=True)
