"""edc: a laboratory for dataset condensation."""

__version__ = "0.1.0"
