"""A folder with an observer, statistics, images and labels of a few digits."""

import shutil

import pytest
import torch
from support import laboratory
from torch import nn

from edc.nets.vgg import VGG
from edc.stages import slimming


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """Made once; only to be copied."""
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        laboratory.prepare()
    return folder


@pytest.fixture
def project(prepared, tmp_path, monkeypatch):
    """A copy to work in, the current directory; VGG-11 is a small one."""
    folder = tmp_path / "project"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(slimming, "build_for", small_vgg)
    return folder


def small_vgg(dataset, name, seed):
    """VGG-11 with few channels; scales spread so that pruning removes no layer."""
    torch.manual_seed(seed)
    model = VGG(dataset.classes, dataset.image_size, dataset.channels, widths=(8, 8, 10, 10, 12, 12, 12, 12))
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.2, 1.5)
            layer.momentum = 0.5  # statistics follow within a few steps
    return model
