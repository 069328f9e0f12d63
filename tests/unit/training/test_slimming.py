"""The penalty of network slimming, and the scores of pruned networks."""

import numpy as np
import torch
from support import laboratory as lab
from torch import nn

from edc.config.rows import Dataset, SlimmingRow
from edc.nets.vgg import VGG
from edc.training.slimming import slimming_scores
from edc.training.students import Student

SGD = {"optimiser": {"name": "sgd", "lr": 0.1, "momentum": 0.0}, "schedule": {"name": "constant"}}
IMAGES, CLASSES = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(6)


def student(sparsity):
    torch.manual_seed(0)
    model = VGG(10, 8, 1, widths=(8, 8, 10, 10, 12, 12, 12, 12))
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.2, 1.5)
    first = next(layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d))
    first.weight.data[:3] = torch.tensor([-0.7, 0.0, 0.7])
    row = SlimmingRow.model_validate(lab.ROWS["slimming"] | SGD)
    return Student(0, row, Dataset.model_validate(lab.DATA), torch.device("cpu"), model=model, sparsity=sparsity)


def test_the_penalty_adds_its_subgradient_to_the_scales_alone():
    students = student(0.0), student(0.5)
    signs = [scale.detach().sign().clone() for scale in students[1].scales]
    assert signs[0][:3].tolist() == [-1, 0, 1]
    for one in students:
        one.begin_epoch(0)
        one.step(IMAGES, None, CLASSES)
    plain, sparse = (one.model.state_dict() for one in students)
    penalised = [
        name
        for name, value in plain.items()
        if name.startswith("features") and name.endswith("weight") and value.dim() == 1
    ]
    assert len(penalised) == len(signs) == 8
    for name, sign in zip(penalised, signs, strict=True):
        torch.testing.assert_close(sparse[name], plain[name] - 0.1 * 0.5 * sign)
    assert all(torch.equal(plain[name], sparse[name]) for name in plain.keys() - set(penalised))


def test_scores_by_hand():
    history = [
        [0, 0.0, 100, 1000, 5000, None, 90.0], [0, 0.5, 50, 400, 2000, 20.0, 80.0],
        [1, 0.0, 100, 1000, 5000, None, 94.0], [1, 0.5, 50, 300, 1000, 30.0, 70.0],
    ]  # fmt: skip
    scores = slimming_scores(history)
    assert scores["ratios"] == [0.0, 0.5]
    assert (scores["before_mean"], scores["after_mean"]) == ([92, 25], [92, 75])
    assert scores["parameters_mean"] == [1000, 350]
    assert scores["macs_mean"] == [5000, 1500]
    assert scores["channels_std"] == [0, 0]
    np.testing.assert_allclose(scores["after_std"], [8**0.5, 50**0.5])
    np.testing.assert_allclose(scores["before_std"], [8**0.5, 50**0.5])
    assert slimming_scores(history[:2])["after_std"] == [None, None]
