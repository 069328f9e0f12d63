"""Networks of torchvision and timm, with their caches stood in for: no test asks the network."""

import re
from pathlib import Path
from typing import Any
from urllib.error import URLError

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edc import nets
from edc.errors import EdcError
from edc.nets import external

SHUFFLE = "torchvision:shufflenet_v2_x0_5"
SHUFFLE_FILE = "shufflenetv2_x0.5-f707e7126e.pth"


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches and no network."""

    def refuse(*_: Any, **__: Any) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("torch.hub.urlopen", refuse)
    return tmp_path


@pytest.mark.parametrize(
    ("network", "image_size", "channels"),
    [
        (SHUFFLE, 32, 3),
        ("torchvision:googlenet", 64, 3),
        ("torchvision:squeezenet1_1", 64, 3),
        ("timm:resnet10t", 32, 3),
        ("timm:resnet10t", 28, 1),
        ("timm:test_vit", 32, 1),
        ("timm:test_convnext", 64, 3),
    ],
)
def test_builds(network: str, image_size: int, channels: int) -> None:
    model = nets.build(network, classes=6, image_size=image_size, channels=channels)
    assert model.training
    assert not any(buffer.grad_fn for buffer in model.buffers())
    for layer in model.modules():  # the trial image has left no trace
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.num_batches_tracked == 0
            assert layer.running_mean.abs().sum() == 0
    with torch.no_grad():
        assert model.eval()(torch.zeros(2, channels, image_size, image_size)).shape == (2, 6)


@pytest.mark.parametrize(
    ("network", "image_size", "channels", "text"),
    [
        (SHUFFLE, 32, 1, "channels is 1, torchvision's networks take 3"),
        ("torchvision:alexnet", 8, 3, "cannot take 3 x 8 x 8 px"),
        ("timm:test_vit", 17, 3, "cannot take 3 x 17 x 17 px"),
    ],
)
def test_images_that_do_not_fit(network: str, image_size: int, channels: int, text: str) -> None:
    with pytest.raises(EdcError, match=f"^{network}: {text}") as caught:
        nets.build(network, classes=2, image_size=image_size, channels=channels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("network", "file"),
    [(SHUFFLE, SHUFFLE_FILE), ("timm:resnet10t", "models--timm--resnet10t.c3_in1k/model.safetensors")],
)
def test_absent_weights_are_named(network: str, file: str, caches: Path) -> None:
    with pytest.raises(EdcError, match=rf"{re.escape(file)} not found, and not downloaded .*no network"):
        nets.build(network, classes=10, image_size=32, weights="default")


def test_no_weights_exist(caches: Path) -> None:
    with pytest.raises(EdcError, match="no pretrained weights exist"):
        nets.build("timm:convnext_atto_rms", classes=2, image_size=32, weights="default")


@pytest.mark.parametrize("classes", [10, 1000])
def test_torchvision_weights_from_the_cache(classes: int, caches: Path) -> None:
    source = nets.build(SHUFFLE, classes=1000, image_size=32, seed=0).state_dict()
    file = caches / "hub" / "checkpoints" / SHUFFLE_FILE
    file.parent.mkdir(parents=True)
    torch.save(source, file)
    model = nets.build(SHUFFLE, classes=classes, image_size=32, seed=1, weights="default")
    for name, tensor in model.state_dict().items():
        loaded = classes == 1000 or not name.startswith("fc.")
        assert (tensor.shape == source[name].shape and torch.equal(tensor, source[name])) == loaded, name


def test_timm_weights_from_the_cache(caches: Path) -> None:
    source = nets.build("timm:resnet10t", classes=1000, image_size=32, seed=0).state_dict()
    repository = caches / "hub" / "models--timm--resnet10t.c3_in1k"
    for folder in ("refs", "snapshots/0"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs" / "main").write_text("0")
    save_file(source, repository / "snapshots" / "0" / "model.safetensors")
    model = nets.build("timm:resnet10t", classes=10, image_size=32, seed=1, weights="default")
    for name, tensor in model.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(tensor, source[name]), name


def test_names_of_old_files() -> None:
    old = {"features.denseblock1.denselayer2.norm.1.weight": torch.zeros(1), "aux1.fc2.bias": torch.zeros(1)}
    assert set(external._current_names("densenet121", old)) == {
        "features.denseblock1.denselayer2.norm1.weight",
        "aux1.fc2.bias",
    }
    assert "aux1.fc2.bias" not in external._current_names("googlenet", old)
