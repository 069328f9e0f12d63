"""Observers come back from their files as they were trained, whichever library their network is of."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from edc import nets
from edc.errors import EdcError
from edc.nets.frozen import frozen
from edc.nets.placing import placed
from edc.stages.observers import load_observer
from edc.storage import write_tensors

SIZE = 64


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))  # no weights of any library


def job(network: str, weights: str | None = None, classes: int = 5) -> Any:
    """A run whose upstream is one trained observer."""
    return SimpleNamespace(
        device=torch.device("cpu"),
        precision=torch.float32,
        dataset=SimpleNamespace(classes=classes, image_size=SIZE, channels=3),
        manifest=lambda stage, key: {"params": {stage: {"network": network, "weights": weights}}},
    )


def trained(network: str, weights: str | None = None) -> nn.Module:
    """A network after a step or two, filed as pretrain does; the library's own weights are stood in for."""
    model = nets.build(network, classes=5, image_size=SIZE, seed=1, weights=weights, load=False)
    model(torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)))  # moves running statistics
    write_tensors(Path("runs/pretrain/o/weights.safetensors"), model.state_dict())
    return model.eval()


@pytest.mark.parametrize(
    ("network", "weights"),
    [
        ("convnet_w32", None),
        ("vgg11_bn", "some/file.pth"),  # long gone
        ("torchvision:shufflenet_v2_x0_5", "default"),
        ("torchvision:mnasnet0_5", "default"),  # wants a version number that files of tensors have not
        ("torchvision:googlenet", "default"),  # rescales its input
        ("torchvision:googlenet", None),  # does not
        ("timm:test_vit", "default"),
        ("timm:resnet10t", None),
    ],
)
def test_the_same_function_as_was_trained(network: str, weights: str | None) -> None:
    model = trained(network, weights)
    result = load_observer(job(network, weights), "o")
    assert not result.training
    assert not any(parameter.requires_grad for parameter in result.parameters())
    x = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(result(x), placed(frozen(model), torch.device("cpu"))(x))


@pytest.mark.parametrize("network", ["googlenet", "inception_v3"])
def test_pretrained_inceptions_rescale_their_input(network: str) -> None:
    for weights, rescales in (("default", True), (None, False), ("some/file.pth", False)):
        with torch.device("meta"):
            model = nets.build(f"torchvision:{network}", classes=2, image_size=96, weights=weights, load=False)
        assert model.transform_input is rescales


@pytest.mark.parametrize(("network", "name"), [("convnet_w32", "classifier.weight"), ("timm:resnet10t", "fc.weight")])
def test_weights_of_other_classes_are_refused(network: str, name: str) -> None:
    trained(network)
    with pytest.raises(EdcError, match=rf"runs/pretrain/o/weights.safetensors do not fit the network: {name} has") as e:
        load_observer(job(network, classes=6), "o")
    assert "\n" not in str(e.value)


def test_missing_weights_are_named() -> None:
    with pytest.raises(EdcError, match=r"runs/pretrain/o/weights.safetensors: no such file"):
        load_observer(job("convnet_w32"), "o")
