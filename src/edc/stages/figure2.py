"""The measurements of EDC's Figure 2 on one condensed set: matching, curvature, sharpness, gradients of batches."""

from __future__ import annotations

import functools
import statistics as descriptive
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from edc.condense.engine import encoded
from edc.condense.hessian import (
    Group,
    difference_product,
    exact_product,
    frobenius,
    iterates,
    random_signs,
    synthesis_loss,
    without_regulariser,
)
from edc.condense.initialise import InitialisationInputs, groups_of, initial_images
from edc.condense.mixtures import (
    Matched,
    class_mixture,
    entropy,
    entropy_bracket,
    errors,
    gaussian_entropy,
    match_mixture,
)
from edc.config.choices import Schedule
from edc.data.rng import generator
from edc.errors import EdcError
from edc.reporting.figure2 import MEASURED, PANELS, as_measured, curvature, picture, sharpness
from edc.reporting.figures import save_figure
from edc.reporting.panels import iterate_sheet, matching_panels
from edc.stages.context import Context
from edc.stages.observers import load_observers, matched_observers
from edc.stages.sources import training_data
from edc.training.landscape import CHUNK, cosine, curve, directions, local_cosines, mean_loss
from edc.training.sources import Batch
from edc.training.students import Student, train_epoch
from edc.training.trainer import build_for
from edc.training.trainer_group import TrainerGroup

ALPHAS = (1.0, 0.0, 0.5)
COSINE = "cosine to 0"  # the schedule without smoothing
STRETCHED = ("smoothing", "ssrs", "linear_zeta")  # schedules with a zeta
TABLES = {
    "matching": ("alpha", "global_mean", "global_variance", "class_mean", "class_variance"),
    **{name: tuple(columns) for name, columns in MEASURED.items()},
}


class Measurements:
    """The four parts of Figure 2 (``TABLES``): each returns rows of its table, scores, and what later parts need."""

    def __init__(self, context: Context) -> None:
        self.context, self.row, self.dataset, self.device = context, context.row, context.dataset, context.device
        self.values = self.row.model_dump(mode="json")
        self.normaliser = context.normaliser
        self.train = context.images("train")
        self.val = context.images("val") if self.dataset.val_fraction else self.train
        data = training_data(context)
        self.source, self.digest = data.source, data.digest
        self.group = self._group(0)

    def _group(self, draw: int) -> Group:
        """The first group of images, where synthesis itself starts them, or would with another seed."""
        row, dataset, device = self.context.plan.synthesize[self.row.images], self.dataset, self.device
        row = row.model_copy(update={"seed": row.seed + draw})
        if row.match.target == "anchors":
            raise EdcError(
                f"analysis.{self.context.key}.images: run {self.row.images} has match.target = 'anchors'; the analysis "
                "measures images that match statistics; take another recipe"
            )
        scorers = list(load_observers(self.context, row.scorers).values())
        inputs = InitialisationInputs(self.train, row, dataset, self.normaliser, device, lambda: scorers)
        pixels, labels = initial_images(inputs)
        index = groups_of(dataset.classes, row.ipc, row.optimise.group, row.optimise.rounds)[0]
        start = encoded(pixels[index].to(device), self.normaliser)
        return Group(start, labels[index].to(device), matched_observers(self.context, row), row, self.normaliser)

    def matching(self, _: dict[str, Any]) -> dict[str, Any]:
        """Figure 2(a), and the entropies of Theorem 3.2 along both axes."""
        made = match_mixture(self.row.mixture, ALPHAS)
        rows = []
        for alpha, points in made.condensed.items():
            (mean, class_mean), (variance, class_variance) = errors(points, made.original)
            rows.append([alpha, *(float(error) for error in (mean, variance, class_mean, class_variance))])
        mixtures = [class_mixture(made.original, axis) for axis in (0, 1)]
        scores = {
            "entropy_gaussian": [gaussian_entropy(mixture.variance) for mixture in mixtures],
            "entropy_mixture": [entropy(mixture) for mixture in mixtures],
            "entropy_bracket": [entropy_bracket(mixture) for mixture in mixtures],
        }
        return {"rows": rows, "scores": scores, "points": vars(made)}

    def hessian(self, parts: dict[str, Any]) -> dict[str, Any]:
        """Figure 2(c), top, from several starts, and the images of the first over iterations."""
        draws, group = self.row.hessian.draws, functools.cache(self._group)
        if draws > 1 and torch.equal(group(1).start, self.group.start):
            raise EdcError(
                f"analysis.{self.context.key}.hessian.draws = {draws}: the recipe starts from the same images whatever "
                "its seed; set it to 1"
            )
        rows, pictures = parts.setdefault("hessian so far", ([], {}))
        for draw in range(len({row[0] for row in rows}), draws):
            measured, shown = self._curvature(group(draw) if draw else self.group)
            rows += [[draw, *values] for values in measured]
            pictures |= {} if draw else shown
            self.context.checkpoint(lambda: parts, now=True)
        del parts["hessian so far"]
        ends = curvature(as_measured("hessian", rows, self.values))
        scores: dict[str, float] = {}
        for column, name in (("norm", "hessian_norm"), ("step_norm", "hessian_step")):
            for method, suffix in zip(pictures, ("", "_without"), strict=False):  # without a regulariser: one
                scores |= mean_and_spread(f"{name}{suffix}", ends.loc[[method], column])
        return {"rows": rows, "scores": scores, "pictures": pictures}

    def _curvature(self, group: Group) -> tuple[list[list[Any]], dict[str, dict[int, Tensor]]]:
        """Of one start: the rows of the table but their draw, and the images; with and without the regulariser."""
        sizes = self.row.hessian
        wanted = sorted({round(k) for k in np.linspace(0, group.row.optimise.iterations, sizes.points)})
        probes = random_signs(sizes.probes, group.start, group.row.seed)
        choices = (group.row, without_regulariser(group.row))
        kept = {row.regularise.method: iterates(group, row, wanted) for row in choices}
        loss = synthesis_loss(group)

        def norms(images: Tensor) -> list[float]:
            """At one place: exact, its standard error, over a step, its standard error."""
            ways = (exact_product(loss, images), difference_product(loss, images, sizes.step))
            return [value for way in ways for value in frobenius(way, probes)]

        start = norms(group.start)
        rows = [[name, k, *(norms(x) if k else start)] for name, images in kept.items() for k, x in images.items()]
        decode = self.normaliser.decode
        return rows, {name: {k: decode(x).cpu() for k, x in images.items()} for name, images in kept.items()}

    def landscape(self, _: dict[str, Any]) -> dict[str, Any]:
        """Figure 2(b): the surroundings of students trained under the protocol's schedule and under a plain cosine."""
        row, sizes = self.row, self.row.landscape
        plain = Schedule(name="smoothing", zeta=1.0, warmup=row.schedule.warmup)
        named = {self.schedule: row, COSINE: row.model_copy(update={"schedule": plain})}
        common = (self.dataset, self.device, self.context.precision)
        students = {(name, seed): Student(seed, own, *common) for name, own in named.items() for seed in row.seeds}
        moments = self.train_all(list(students.values()))
        way, marks = np.linspace(-sizes.extent, sizes.extent, sizes.points), [-sizes.radius, 0.0, sizes.radius]
        line = sorted([*marks, *(float(d) for d in way if not np.isclose(d, marks, atol=1e-5).any())])
        sets = [(self.val_batches(), None), (list(self.source.epoch(row.epochs - 1)), row.loss)]
        rows: list[list[Any]] = []
        for (name, seed), student in students.items():
            with student.averaged_weights():
                for i, along in enumerate(directions(student.model, seed, sizes.directions)):
                    losses = [functools.partial(mean_loss, student.model, *images) for images in sets]
                    curves = [curve(along, line, student.model, loss) for loss in losses]
                    if not np.isfinite(curves).all():
                        raise EdcError(
                            f"analysis.{self.context.key}.landscape.extent = {sizes.extent:g}: the loss of the student "
                            f"of seed {seed} is not finite along the line; expected a shorter one"
                        )
                    rows += [[name, seed, i, *values] for values in zip(line, *curves, strict=True)]
        values = sharpness(as_measured("landscape", rows, self.values))
        scores = {"sharpness_radius": sizes.radius}
        for name, suffix in ((self.schedule, ""), (COSINE, "_cosine")):
            for column in map(str, values):
                scores |= mean_and_spread(f"{column}{suffix}", values.loc[[name], column])
        return {"rows": rows, "scores": scores, "moments": moments}

    @property
    def schedule(self) -> str:
        """How the protocol's schedule is called."""
        schedule = self.row.schedule
        return f"{schedule.name} zeta={schedule.zeta:g}" if schedule.name in STRETCHED else schedule.name

    def train_all(self, students: list[Student]) -> dict[int, dict[str, Tensor]]:
        """Train students side by side; weights of the first at the moments whose gradients are measured, by epoch."""
        row = self.row
        moments = {round(share * row.epochs) for share in row.gradients.moments}
        kept: dict[int, dict[str, Tensor]] = {}

        def keep(epochs: int) -> None:
            if epochs in moments:
                state = students[0].model.state_dict()
                kept[epochs] = {name: value.detach().cpu().clone() for name, value in state.items()}

        keep(0)
        cohort = TrainerGroup(students)
        for epoch in range(row.epochs):
            train_epoch(students, epoch, self.source.epoch(epoch), cohort, self.context.finite)
            keep(epoch + 1)
        return kept

    def val_batches(self) -> list[Batch]:
        """Real images no student was trained on."""
        chosen = torch.linspace(0, len(self.val) - 1, min(self.row.landscape.images, len(self.val))).long()
        feed = self.context.feed(self.val.select(chosen))
        return [(x, None, labels) for x, labels in feed.plain(CHUNK)]

    def gradients(self, parts: dict[str, Any]) -> dict[str, Any]:
        """Figure 2(c), bottom: batches as the student sees them, condensed, and real ones with hard labels.

        A batch that is half of all images agrees with them for that reason alone, so as few real images stand beside.
        """
        row, sizes = self.row, self.row.gradients
        model = build_for(self.dataset, row.student).to(self.device)
        rows, agreement = [], []
        for epoch, state in parts["landscape"]["moments"].items():
            model.load_state_dict(state)
            seen = min(epoch, row.epochs - 1)  # after the last epoch, its views once more
            wholes, many = [], min(sizes.images, len(self.train))
            sets = {"condensed": self.condensed(seen), "real": self.real(seen, many)}
            sets |= {"as few real": self.real(seen, self.source.images)}
            for name, images in sets.items():
                rng = generator(0, "gradients", epoch, name)
                whole, cosines = local_cosines(model, images, row.loss, sizes.batches, sizes.draws, rng)
                for batch, values in cosines.items():
                    rows.append([epoch, name, batch, descriptive.fmean(values), descriptive.stdev(values)])
                wholes.append(whole)
            agreement.append(cosine(*wholes[:2]))
        return {"rows": rows, "scores": {"condensed_to_real": agreement}}

    def condensed(self, epoch: int) -> Batch:
        """All condensed images in their views of one epoch."""
        x, targets, labels = zip(*self.source.epoch(epoch), strict=True)
        return torch.cat(x), None if targets[0] is None else torch.cat(targets), torch.cat(labels)

    def real(self, epoch: int, count: int) -> Batch:
        """Random real training images, augmented as when a student learns from them."""
        chosen = generator(0, "gradients").choice(len(self.train), count, replace=False)
        feed = self.context.feed(self.train.select(torch.from_numpy(chosen)))
        x, labels = zip(*feed.epoch(generator(0, "real", epoch), CHUNK), strict=True)
        return torch.cat(x), None, torch.cat(labels)

    def draw(self, parts: dict[str, Any]) -> None:
        path = self.context.path
        matching_panels(path("matching.png"), Matched(**parts["matching"]["points"]))
        iterate_sheet(path("iterates.png"), parts["hessian"]["pictures"], self.group.labels.cpu(), self.train.classes)
        for name, panels in PANELS.items():
            frame = as_measured(name, parts[name]["rows"], self.values)
            save_figure(path(f"{name}.png"), picture(name, panels(frame)))


def mean_and_spread(name: str, values: pd.Series) -> dict[str, float]:
    """Two scores: the mean over seeds or starts, and its standard deviation, 0 of a single one."""
    numbers = [float(value) for value in values]
    return {name: descriptive.fmean(numbers), f"{name}_std": descriptive.stdev(numbers) if len(numbers) > 1 else 0.0}
