"""Condensed sets in the layouts of other tools."""
