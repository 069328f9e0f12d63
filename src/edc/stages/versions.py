"""The version of each stage's numerics: raised when the numbers of a stage change, so that its runs become stale.

A module without PyTorch, for what is up to date is decided without it. ``tests/pipeline/test_numerics.py`` fails when a
stage's numbers change and its version does not.
"""

from __future__ import annotations

VERSIONS = {
    "pretrain": 1,
    "statistics": 1,
    "synthesize": 1,
    "relabel": 1,
    "evaluate": 2,
    "continual": 1,
    "slimming": 1,
    "analysis": 2,
    "tables": 5,
}
