"""Condensed sets in the layouts of other tools: ``edc export``, ``edc import``, ``edc.load``."""
