"""Kinds of datasets and their readers, which are imported when first used."""

from __future__ import annotations

READERS: dict[str, str] = {
    "digits": "edc.data.digits:read",
    "folder": "edc.data.folder:read",
    "list": "edc.data.listing:read",
    "parquet": "edc.data.parquet:read",
    "tiny_imagenet": "edc.data.tiny_imagenet:read",
    "torchvision": "edc.data.torchvision_sets:read",
}
