"""Names of readers, and where the code is that stands behind them; it is imported when it is first used.

A module of its own that decides no number: one more name makes no result stale.
"""

from __future__ import annotations

READERS: dict[str, str] = {
    "digits": "edc.data.digits:read",
    "folder": "edc.data.folder:read",
    "parquet": "edc.data.parquet:read",
    "tiny_imagenet": "edc.data.tiny_imagenet:read",
    "torchvision": "edc.data.torchvision_sets:read",
}
"""The reader of each kind of data."""
