"""edc: a laboratory for dataset condensation."""

from typing import Any

__version__ = "0.1.0"

# The stages, in the order the data flows: module, command, section of params.yaml and folder of runs bear these names.
STAGES = {
    "pretrain": "Train the observers on the dataset.",
    "statistics": "Collect the observers' layer statistics over the dataset.",
    "synthesize": "Make the images of the condensed sets.",
    "relabel": "Store the teachers' soft labels of the condensed sets.",
    "evaluate": "Train students on condensed sets and test them on real images.",
    "continual": "Learn the classes step by step from condensed images.",
    "slimming": "Prune a network and fine-tune it on a condensed set alone.",
    "analysis": "Measure what the choices do (Figure 2 of the paper).",
    "tables": "Update the record of runs; make tables and figures of it.",
}


def __getattr__(name: str) -> Any:
    """``edc.load``, which needs torch: imported when first used."""
    if name == "load":
        from pkgutil import resolve_name

        return resolve_name("edc.exchange.load:load")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
