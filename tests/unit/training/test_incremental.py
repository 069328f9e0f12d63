"""Class-incremental learning: which images and labels a step has, accuracies of steps, average and forgetting."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import laboratory as lab
from torch import nn

from edc.config.rows import Dataset, RelabelRow
from edc.data.augment import Normaliser
from edc.data.feed import Feed
from edc.data.images import ImageSet
from edc.training.incremental import ALL, CondensedMemory, RealMemory, class_steps, incremental_scores, step_accuracies
from edc.training.students import Student

NORMALISER = Normaliser((0.306,), (0.342,))
CLASSES = torch.arange(10).repeat_interleave(2)


def grey(values):
    """Images (N, 1, 8, 8), each of one grey that identifies it."""
    return values.to(torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8).contiguous()


def no_labels(x):
    raise AssertionError("hard labels need no teacher")


def memory(images, regime="hard", label=no_labels, **choices):
    row = RelabelRow.model_validate(lab.LABELS | choices)
    return CondensedMemory(images, CLASSES[: len(images)], 10, row, regime, 5, label, NORMALISER)


def greys(x):
    """The grey values of normalised images: (B, 64)."""
    return NORMALISER.decode(x + 1e-4).flatten(1)


@given(st.integers(2, 60), st.integers(2, 60), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_steps_are_a_partition_of_almost_equal_parts(classes, steps, order):
    steps = min(classes, steps)
    parts = class_steps(classes, steps, order)
    sizes = [len(part) for part in parts]
    assert len(parts) == steps
    assert max(sizes) - min(sizes) <= 1 <= min(sizes)
    assert sorted(np.concatenate(parts)) == list(range(classes))
    ascending = np.concatenate(parts).tolist() == list(range(classes))
    assert ascending == (order == 0) or classes < 9
    assert all(map(np.array_equal, parts, class_steps(classes, steps, order)))


@pytest.mark.parametrize("mix", ["cutmix", "mixup"])
def test_no_image_of_a_later_class_is_mixed_in(mix):
    """The grey of an image identifies its class, so the classes in a view can be read off it."""
    condensed = memory(grey(20 * CLASSES + 10), "soft", lambda x: torch.zeros(len(x), 10), mix=mix, mixup_alpha=1.0)
    mixed = 0
    for order in (0, 3):
        for step in range(3):
            seen = np.concatenate(class_steps(10, 3, order)[: step + 1])
            allowed = {20 * int(c) + 10 for c in seen}
            for epoch in range(4):
                for x, _, _ in condensed.epoch(epoch, seen):
                    for view in greys(x):
                        values = {int(value) for value in view.unique()}
                        mixed += len(values) > 1 or not values <= allowed
                        assert mix == "mixup" or (values <= allowed and len(values) <= 2)
                        assert min(allowed) <= min(values) <= max(values) <= max(allowed)
    assert mixed > 20


@pytest.mark.parametrize("order", [0, 2])
def test_an_epoch_has_every_image_of_the_classes_seen_once_and_no_other(order):
    seen = np.concatenate(class_steps(10, 3, order)[:2])
    shown = []
    for x, targets, labels in memory(grey(5 * torch.arange(20))).epoch(0, seen):
        assert targets is None
        shown += zip((greys(x).amax(1) // 5).tolist(), seen[labels].tolist(), strict=True)
    assert sorted(shown) == [(i, int(CLASSES[i])) for i in range(20) if int(CLASSES[i]) in seen]


def test_soft_labels_are_the_teachers_logits_of_the_view_for_the_classes_seen():
    def label(x):
        return x.mean((1, 2, 3))[:, None] * torch.arange(1, 11)

    condensed = memory(grey(5 * torch.arange(20)), "soft", label)
    for order, step in ((0, 0), (5, 1), (5, 2)):
        seen = np.concatenate(class_steps(10, 3, order)[: step + 1])
        for x, targets, labels in condensed.epoch(1, seen):
            assert targets is not None
            assert torch.equal(targets, label(x)[:, seen])
            assert int(labels.max()) < len(seen)


def test_static_labels_are_the_teachers_logits_of_the_plain_images():
    images = grey(5 * torch.arange(20))

    def label(x):
        return (greys(x).amax(1) // 5).float()[:, None] + torch.arange(10) / 100

    seen = np.array([8, 1, 3])
    for x, targets, _ in memory(images, "static", label).epoch(0, seen):
        assert targets is not None
        assert torch.equal(targets, label(x)[:, seen])


def test_a_single_image_comes_twice_for_batch_norm():
    condensed = memory(grey(torch.arange(1)))
    ((x, _, labels),) = condensed.epoch(0, np.array([0]))
    assert (len(x), labels.tolist()) == (2, [0, 0])


def test_the_upper_bound_has_the_real_images_of_the_classes_seen():
    train = ImageSet(grey(torch.arange(20)), CLASSES, tuple("abcdefghij"))
    real = RealMemory(train, Dataset.model_validate(lab.DATA), 4, NORMALISER, torch.device("cpu"))
    batches = list(real.epoch(0, np.array([9, 2, 5])))
    assert all(targets is None for _, targets, _ in batches)
    assert torch.bincount(torch.cat([labels for _, _, labels in batches])).tolist() == [2, 2, 2]


class ReadsGrey(nn.Module):
    """Predicts the output an image's grey names."""

    def forward(self, x):
        return nn.functional.one_hot(greys(x)[:, 0].long(), 3).float()


def test_accuracy_per_step_and_over_all_classes_seen():
    """Classes 3, 1 | 0 are seen, 2 is not; the outputs are 3 -> 0, 1 -> 1, 0 -> 2."""
    predictions = [(3, 0), (3, 0), (3, 1), (1, 1), (1, 0), (1, 2), (1, 1), (0, 2), (0, 0), (2, 0)]
    labels, outputs = (torch.tensor(column) for column in zip(*predictions, strict=True))
    dataset = Dataset.model_validate(lab.DATA | {"classes": 4})
    feed = Feed(ImageSet(grey(outputs), labels, tuple("abcd")), dataset, NORMALISER, "cpu")
    row = lab.plan("evaluate", ema=None).evaluate["row"]
    student = Student(0, row, dataset, torch.device("cpu"), model=nn.Linear(1, 1))
    student.model = ReadsGrey()
    found = step_accuracies(student, feed, 4, [np.array([3, 1]), np.array([0])])
    assert found == {0: pytest.approx(100 * 4 / 7), 1: pytest.approx(50.0), ALL: pytest.approx(100 * 5 / 9)}


def history(order, seed, matrix):
    """Rows of one order and seed; the last value of every step is the accuracy on all classes."""
    rows = []
    for step, values in enumerate(matrix):
        names = [*range(len(values) - 1), ALL]
        rows += [[order, seed, step, 2 * step + 2, name, value] for name, value in zip(names, values, strict=True)]
    return rows


def test_average_accuracy_and_forgetting_by_hand():
    first = history(0, 0, [[90, 90], [70, 80, 75], [60, 85, 40, 62]])
    # average (90 + 75 + 62) / 3; forgetting ((90 - 60) + (80 - 85)) / 2
    scores = incremental_scores(first, 3)
    assert scores["classes"] == [2, 4, 6]
    assert scores["accuracy_mean"] == [90, 75, 62]
    assert scores["accuracy_std"] == [None, None, None]
    assert (scores["average_mean"], scores["average_std"]) == (pytest.approx(227 / 3), None)
    assert (scores["forgetting_mean"], scores["forgetting_std"]) == (pytest.approx(12.5), None)
    both = first + history(1, 0, [[80, 80], [80, 60, 70], [90, 70, 80, 80]])
    # average 230 / 3; forgetting ((80 - 90) + (60 - 70)) / 2 = -10
    scores = incremental_scores(both, 3)
    assert scores["accuracy_mean"] == [85, 72.5, 71]
    assert scores["accuracy_std"] == pytest.approx([50**0.5, 12.5**0.5, 162**0.5])
    assert (scores["average_mean"], scores["average_std"]) == (pytest.approx(457 / 6), pytest.approx(0.5**0.5))
    assert (scores["forgetting_mean"], scores["forgetting_std"]) == (1.25, pytest.approx(22.5 / 2**0.5))
    assert scores["forgetting"] == [12.5, -10]
