"""Weights from files: what fits is loaded, what does not is refused in one line."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edc import nets
from edc.errors import EdcError


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
    expected = {
        "absent.pth": "not found",
        "text.safetensors": "not a readable state dict",
        "text.pth": "not a readable state dict",
        "empty.pth": "not a readable state dict",
        "weights.bin": "expected a name ending in",
        "code.pth": "not a readable state dict",
        "checkpoint.pth": "expected a plain state dict",
    }
    for name, text in expected.items():
        with pytest.raises(EdcError, match=f"{name}.*{text}") as caught:
            nets.build("convnet_d1", classes=2, image_size=8, weights=str(tmp_path / name))
        assert "\n" not in str(caught.value)
    assert "code was executed" not in capsys.readouterr().out


def test_the_zoo_has_no_default_weights() -> None:
    with pytest.raises(EdcError, match="resnet18: weights 'default' exist for torchvision and timm"):
        nets.build("resnet18", classes=2, image_size=8, weights="default")
