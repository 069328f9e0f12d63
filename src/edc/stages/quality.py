"""Quality of one condensed set, part of stage analysis: its images among the real ones, in an observer's features."""

from __future__ import annotations

from typing import Any

import torch

from edc.condense.coreset import features
from edc.condense.quality import COLUMNS, class_quality, summary
from edc.data.rng import generator
from edc.nets.passes import images_at_once
from edc.stages.context import Context
from edc.stages.observers import load_observer
from edc.stages.progress import ProgressLog
from edc.storage import read_tensors, run_folder


def run(context: Context) -> None:
    """Write ``quality.csv``, a line a class; means over the classes go into the record.

    The observer is the first teacher of the row's labels. Of a class with more real training images than the row
    allows, a seeded sample counts.
    """
    row, sizes = context.row, context.row.quality
    train = context.images("train")
    observer = context.plan.relabel[row.labels].observers[0]
    condensed = context.manifest("synthesize", row.images)
    stored = read_tensors(run_folder("synthesize", row.images) / "images.safetensors")
    network = load_observer(context, observer)
    at_once = images_at_once(context.dataset.image_size)

    def measured(pixels: torch.Tensor) -> torch.Tensor:
        parts = (context.normaliser.encode(part.to(context.device)) for part in pixels.split(at_once))
        return torch.cat([features(network, part) for part in parts])

    rows: list[Any] = (context.resume() or {"rows": []})["rows"]
    bar = ProgressLog(len(train.classes), f"analysis {context.key}", len(rows), "class")
    for c in range(len(rows), len(train.classes)):
        members = train.by_class(c)
        if len(members) > sizes.images:
            chosen = generator(sizes.seed, "quality", c).choice(len(members), sizes.images, replace=False)
            members = members[torch.from_numpy(chosen).sort().values]
        real = measured(train.read(members))
        rows.append(class_quality(real, measured(stored["images"][stored["labels"] == c]), sizes.neighbours))
        context.checkpoint(lambda: {"rows": rows})
        bar.update()
    context.write_table("quality.csv", ("label", *COLUMNS), ([c, *values] for c, values in enumerate(rows)))
    context.finish(
        ["quality.csv"],
        dataset_digest=condensed["dataset_digest"],
        observer=context.plan.pretrain[observer].network,
        scores=summary(rows),
    )
