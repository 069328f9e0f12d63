"""Experiment tracking that cannot fail a run.

A stage writes its events into a spool on disk (`spool.Run`); one sender process at a time brings all spools
into MLflow (`sender.drain`). Loading MLflow takes seconds, so nothing here imports it before there is
something to send.
"""

from edc.tracking.sender import Summary, drain, ensure_sender
from edc.tracking.spool import Run, run_key

__all__ = ["Run", "Summary", "drain", "ensure_sender", "run_key"]
