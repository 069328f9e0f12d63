"""Datasets: one module reads each kind of source, `roots` finds where it lies, `sets` cuts it into splits, `images` and
`streamed` hold labelled images, `feed` brings them to networks.

Nothing is imported here, so that asking for a root or a class hash does not load torch.
"""
