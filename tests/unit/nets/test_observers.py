"""Weights from files: observers come back as they were trained, what does not fit is refused in one line."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
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


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("network", ["shufflenet_v2_05", "torchvision:mnasnet0_5"])
def test_round_trip(network: str, suffix: str, tmp_path: Path) -> None:
    model = nets.build(network, classes=5, image_size=32, seed=0)
    model(torch.randn(4, 3, 32, 32))  # moves the running statistics, too
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(model.state_dict(), file)
    else:
        save_file(model.state_dict(), file)
    again = nets.build(network, classes=5, image_size=32, seed=1, weights=str(file))
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert again.training


@pytest.mark.parametrize(
    ("network", "head"), [("convnet_w32", "classifier."), ("resnet18", "fc."), ("timm:test_vit", "head.")]
)
def test_classifier_is_replaced_when_class_counts_differ(network: str, head: str, tmp_path: Path) -> None:
    source = nets.build(network, classes=5, image_size=32, seed=0)
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    file = str(tmp_path / "weights.safetensors")
    model = nets.build(network, classes=3, image_size=32, seed=1, weights=file)
    fresh = nets.build(network, classes=3, image_size=32, seed=1)
    for name, tensor in model.state_dict().items():
        origin = fresh if name.startswith(head) else source
        assert torch.equal(tensor, origin.state_dict()[name]), name


def test_another_image_size_is_not_another_class_count(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(nets.build("convnet_w32", classes=5, image_size=16).state_dict(), file)
    with pytest.raises(EdcError, match=r"classifier.weight has shape \(5, 128\), expected \(5, 512\)"):
        nets.build("convnet_w32", classes=5, image_size=32, weights=str(file))


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    state = nets.build("convnet_d1", classes=2, image_size=8).state_dict()
    file = tmp_path / "weights.safetensors"
    save_file({"other": torch.zeros(1)} | state, file)
    with pytest.raises(EdcError, match="do not fit the network: other is unknown"):
        nets.build("convnet_d1", classes=2, image_size=8, weights=str(file))
    del state["features.0.bias"]
    save_file(state, file)
    with pytest.raises(EdcError, match=r"do not fit the network: features\.0\.bias is missing"):
        nets.build("convnet_d1", classes=2, image_size=8, weights=str(file))


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code was executed",)


def test_files_that_are_no_state_dicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.safetensors").write_text("not tensors")
    (tmp_path / "text.pth").write_text("not tensors")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "weights.bin").touch()
    torch.save(Payload(), tmp_path / "code.pth")
    torch.save({"epoch": 3}, tmp_path / "checkpoint.pth")
    torch.save({"a": torch.ones(1), "best": np.float64(3)}, tmp_path / "numpy.pth")
    for value in ("nan", "inf"):
        torch.save({"a": torch.ones(1), "b": torch.tensor([float(value)])}, tmp_path / f"{value}.pth")
    save_file({"a": torch.tensor([float("nan")])}, tmp_path / "nan.safetensors")
    expected = {
        "absent.pth": "not found",
        "text.safetensors": "not a readable state dict",
        "text.pth": "not a readable state dict",
        "empty.pth": "not a readable state dict",
        "weights.bin": "expected a name ending in",
        "code.pth": "expected tensors alone, found .*print;",
        "numpy.pth": r"expected tensors alone, found numpy\.\S+;",
        "nan.pth": "b has numbers that are NaN or infinite",
        "inf.pth": "b has numbers that are NaN or infinite",
        "nan.safetensors": "a has numbers that are NaN or infinite",
        "checkpoint.pth": "expected a plain state dict",
    }
    for name, text in expected.items():
        with pytest.raises(EdcError, match=f"{name}.*{text}") as caught:
            nets.build("convnet_d1", classes=2, image_size=8, weights=str(tmp_path / name))
        assert str(caught.value).isprintable()
    assert "code was executed" not in capsys.readouterr().out


def test_the_zoo_has_no_default_weights() -> None:
    with pytest.raises(EdcError, match="resnet18: weights 'default' exist for torchvision and timm"):
        nets.build("resnet18", classes=2, image_size=8, weights="default")
