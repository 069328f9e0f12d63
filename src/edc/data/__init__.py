"""Datasets: one reader module per kind of source, folders (`roots`), splits (`sets`), labelled images in memory or
decoded on demand (`images`, `streamed`), batches for networks (`feed`), augmentation.

Nothing is imported here, so that a root or a class hash is available without loading torch.
"""
