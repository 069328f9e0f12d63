"""Stage statistics: the observers' layer statistics over the dataset, globally and per class."""

from __future__ import annotations

import functools
import math

from edc.condense.class_sums import ClassSums
from edc.condense.layer_statistics import StatisticsCollector, running_statistics
from edc.data.rng import generator
from edc.stages.context import Context
from edc.stages.observers import load_observers
from edc.stages.progress import ProgressLog
from edc.storage import write_tensors
from edc.training.cuda_graphs import RecordedFunction


def run(context: Context) -> None:
    """One epoch over the training images, all observers on the same augmented batches (EDC section 3.1).

    For every observer the global vector (D,) and the class table (K, D) of :mod:`edc.condense.matching`: globally the
    mean over mini-batches, weighted by their size, of batch statistics (BN layers: their own running statistics); per
    class the mean over images of each image's own statistics.
    """
    row, dataset, device = context.row, context.dataset, context.device
    train = context.images("train")
    observers = load_observers(context, row.observers)
    collectors = {key: StatisticsCollector(model, row.patch, train.shape) for key, model in observers.items()}
    moments = {key: RecordedFunction(collector.moments) for key, collector in collectors.items()}
    sums = {key: ClassSums(w.layout, dataset.classes, device) for key, w in collectors.items()}
    feed = context.feed(train)
    count = math.ceil(len(feed) / row.batch)

    start = 0
    if state := context.resume():
        start = state["batches"]
        for key, of_observer in sums.items():
            of_observer.load(state["sums"][key])
    bar = ProgressLog(count, f"statistics {context.key}", start, "batch")
    batches = feed.epoch(generator(row.seed, "statistics"), row.batch, join=False, start=start)
    for i, (x, labels) in enumerate(batches, start):
        for key, measure in moments.items():
            sums[key].add(*measure(x), labels)
        bar.update()
        context.checkpoint(functools.partial(position, i + 1, sums))
    files = []
    for key, of_observer in sums.items():
        everything, classes = of_observer.result(row.class_variance)
        everything = running_statistics(observers[key], collectors[key].hooks, everything)
        files.append(f"{key}.safetensors")
        write_tensors(context.path(files[-1]), {"global": everything, "classes": classes})
    sizes = {key: collector.size for key, collector in collectors.items()}
    context.finish(files, dataset_digest=train.digest, images=len(train), sizes=sizes)


def position(batches: int, sums: dict[str, ClassSums]) -> dict[str, object]:
    return {"batches": batches, "sums": {key: of_observer.state() for key, of_observer in sums.items()}}
