"""Datasets: readers, splits, images in memory or decoded on demand, batches, augmentation. Nothing here loads torch."""
