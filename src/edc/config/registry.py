"""The names of methods and data readers, with functions that are imported when first used."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

READERS: dict[str, str] = {
    "digits": "edc.data.digits:read",
    "folder": "edc.data.folder:read",
    "list": "edc.data.listing:read",
    "parquet": "edc.data.parquet:read",
    "tiny_imagenet": "edc.data.tiny_imagenet:read",
    "torchvision": "edc.data.torchvision_sets:read",
}
"""Kinds of datasets and their readers: function of a dataset and a part."""

INITIALISE: dict[str, str] = {
    "real": "edc.condense.initialise:real_images",
    "noise": "edc.condense.initialise:noise",
    "composites": "edc.condense.composites:composites",
    "mosaics": "edc.condense.anchors:mosaics",
    "herding": "edc.condense.coreset:herding",
    "kmeans": "edc.condense.coreset:kmeans",
    "ranked": "edc.condense.ranked:ranked",
    "imported": "edc.exchange.imported:imported",
}
"""Where pixels start: function of :class:`edc.condense.initialise.InitialisationInputs`."""

SCORED = ("composites", "mosaics", "herding", "kmeans", "ranked")
"""Those of them that use observers, for scores of crops or for features."""

REGULARISE: dict[str, str] = {
    "none": "edc.condense.regularise:nothing",
    "logits": "edc.condense.regularise:logit_flatness",
    "statistics": "edc.condense.regularise:statistic_flatness",
    "sam": "edc.condense.regularise:sharpness",
    "densification": "edc.condense.densify:densification",
}
"""The third term of the synthesis loss: function of :class:`edc.condense.regularise.RegulariserInputs`."""

CURRICULUM: dict[str, str] = {
    "none": "edc.training.schedules:no_curriculum",
    "step": "edc.training.schedules:step_curriculum",
    "linear": "edc.training.schedules:linear_curriculum",
    "cosine": "edc.training.schedules:cosine_curriculum",
}
"""How the smallest crop shrinks during synthesis: function of the share of the way to the milestone."""

SCHEDULE: dict[str, str] = {
    "constant": "edc.training.schedules:constant",
    "smoothing": "edc.training.schedules:smoothing_of",
    "ssrs": "edc.training.schedules:ssrs_of",
    "multistep": "edc.training.schedules:multistep_of",
    "linear_zeta": "edc.training.schedules:linear_zeta_of",
    "alrs": "edc.training.schedules:alrs_of",
}
"""The learning rate's factor per epoch: function of :class:`edc.training.schedules.Moment`."""

LOSS: dict[str, str] = {
    "mse_ce": "edc.training.losses:mse_ce",
    "kl": "edc.training.losses:kl",
    "gift": "edc.training.losses:gift",
}
"""What a student minimises: function of its logits, the soft labels, the classes and :class:`Loss`."""

LABELS: dict[str, str] = {"observers": "edc.stages.relabel:label", "imported": "edc.exchange.imported:adopt_labels"}
"""Where labels come from: function of the job."""

ENSEMBLE: dict[str, str] = {"mean": "edc.training.ensembles:plain_mean", "norm": "edc.training.ensembles:norm_mean"}
"""How the logits of several observers become one label."""


def implementation(registry: dict[str, str], name: str) -> Any:
    """The function behind a name of a registry."""
    return resolve_name(registry[name])
