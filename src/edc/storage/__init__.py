"""Files of runs: whole or absent, checked when they are read."""

from edc.storage.checkpoint import Checkpoint
from edc.storage.files import (
    fingerprint,
    partial_array,
    read_array,
    read_json,
    read_tensors,
    read_text,
    replacing,
    sha256,
    write_json,
    write_tensors,
    write_text,
)
from edc.storage.manifests import RESULTS, RUNS, STATE, digest, read_manifest, run_folder

__all__ = [
    "RESULTS",
    "RUNS",
    "STATE",
    "Checkpoint",
    "digest",
    "fingerprint",
    "partial_array",
    "read_array",
    "read_json",
    "read_manifest",
    "read_tensors",
    "read_text",
    "replacing",
    "run_folder",
    "sha256",
    "write_json",
    "write_tensors",
    "write_text",
]
