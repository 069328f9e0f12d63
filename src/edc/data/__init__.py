"""Datasets: `sets` loads labelled images, `roots` finds where they lie, one module reads each kind of source.

Nothing is imported here, so that asking for a root or a class hash does not load torch.
"""

READERS: dict[str, str] = {
    "digits": "edc.data.digits:read",
    "folder": "edc.data.folder:read",
    "parquet": "edc.data.parquet:read",
    "torchvision": "edc.data.torchvision_sets:read",
}
"""The reader of each kind, imported when it is first used."""
