"""edc: a laboratory for dataset condensation."""

from typing import Any

__version__ = "0.1.0"

# The stages, in the order the data flows: name of module, command, section, rule file and results folder alike.
STAGES = {
    "pretrain": "Train an observer on the dataset.",
    "statistics": "Collect the observers' layer statistics over the dataset.",
    "synthesize": "Make the images of a condensed set.",
    "relabel": "Store the observers' soft labels of a condensed set.",
    "evaluate": "Train students on a condensed set and test them on real images.",
    "continual": "Learn classes portion by portion from condensed images alone.",
    "slimming": "Prune a network with a condensed set as its only data.",
    "analysis": "Look into why the choices work: matching, flatness, smoothing, small batches.",
    "tables": "Write the tables of a study from its results.",
}


def __getattr__(name: str) -> Any:
    """``edc.load``, which needs torch: imported when it is first asked for."""
    if name == "load":
        from pkgutil import resolve_name

        return resolve_name("edc.exchange.load:load")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
