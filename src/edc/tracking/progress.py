"""How far a spool has been sent: `<run>.sent.json` beside it, replaced atomically after each batch."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edc.tracking.files import SPOOL, read

SENT = ".sent.json"


@dataclass
class Progress:
    """Where the sender stands with one spool."""

    spool: str
    """Execution id in the spool's first line. A spool that was removed and begun again has another one, and
    what is known about the old file must not be applied to the new."""
    uri: str
    """Tracking store (without credentials) that `offset` and `run_id` belong to."""
    offset: int = 0
    run_id: str = ""
    owner: dict[str, Any] = field(default_factory=dict)
    """Process of the last execution."""
    artifacts: list[str] = field(default_factory=list)
    """Files named so far, to be sent at the end."""
    ended: bool = False

    @classmethod
    def load(cls, spool: Path, uri: str) -> Progress:
        """What is known about a spool; a fresh start when that belongs to another spool or another store."""
        first = next((event for event, _ in read(spool)), {})
        fresh = cls(str(first.get("execution", "")), uri)
        try:
            known = cls(**json.loads(sent_file(spool).read_text()))
        except (OSError, ValueError, TypeError):
            return fresh
        same = known.spool == fresh.spool and known.uri == uri and known.offset <= spool.stat().st_size
        return known if same else fresh

    def save(self, spool: Path) -> None:
        """Writes it under a temporary name and renames."""
        path = sent_file(spool)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(self)))
        os.replace(temporary, path)


def sent_file(spool: Path) -> Path:
    """`<run>.sent.json` of `<run>.jsonl`."""
    return spool.with_name(spool.name.removesuffix(SPOOL) + SENT)
