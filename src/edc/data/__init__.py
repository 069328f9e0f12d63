"""Datasets: one module reads each kind of source, `roots` finds where it lies, `sets` cuts it into splits, `images` and
`streamed` hold labelled images, `feed` brings them to networks.

Nothing is imported here, so that asking for a root or a class hash does not load torch.
"""

READERS: dict[str, str] = {
    "digits": "edc.data.digits:read",
    "folder": "edc.data.folder:read",
    "parquet": "edc.data.parquet:read",
    "tiny_imagenet": "edc.data.tiny_imagenet:read",
    "torchvision": "edc.data.torchvision_sets:read",
}
"""The reader of each kind, imported when it is first used."""
