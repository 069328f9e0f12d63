"""State dicts from files into networks, without executing code."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from edc.errors import EdcError


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a .safetensors, .pth or .pt file, on the CPU.

    Raises:
        EdcError: if the file is absent, broken, of another kind, or holds anything but tensors of finite values.
    """
    if not path.is_file():
        raise EdcError(f"weights file {path} not found")
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        raise EdcError(f"weights file {path}: expected a name ending in .safetensors, .pth or .pt")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError, SafetensorError) as error:
        if other := re.search(r"Unsupported global: GLOBAL (\S+)", str(error)):
            problem = f"expected tensors alone, found {other[1]}; save the state dict by itself"
            raise EdcError(f"weights file {path}: {problem}") from None
        raise EdcError(f"weights file {path}: not a readable state dict ({first_line(error)})") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise EdcError(f"weights file {path}: expected a plain state dict (a name and a tensor each)")
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise EdcError(f"weights file {path}: {name} has numbers that are NaN or infinite; train or fetch it again")
    return state


def load_weights(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Copy a state dict, which is changed, into a network; a classifier for another number of classes is left out.

    Raises:
        EdcError: if any other tensor is missing, left over or of another shape.
    """
    current = model.state_dict()
    for head in classifiers(model):
        names = [name for name in state if name.startswith(f"{head}.") and name in current]
        # The first dimension counts the classes; another one (the features) must agree where the classes do.
        if any(state[name].shape[:1] != current[name].shape[:1] for name in names):
            for name in names:
                state[name] = current[name]
    copy_weights(model, state, source)


def copy_weights(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Copy a state dict into a network it fits exactly; see :func:`load_weights`."""
    own = model.state_dict()
    for name in own:
        # Files written before PyTorch 0.4.1 lack the batch counter, which only a momentum of None reads.
        if name.endswith(".num_batches_tracked"):
            state.setdefault(name, own[name])
    problems = [f"{name} is missing" for name in own if name not in state]
    problems += [f"{name} is unknown" for name in state if name not in own]
    problems += [
        f"{name} has shape {tuple(state[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise EdcError(f"weights {source} do not fit the network: {problems[0]}{more}")
    # Not load_state_dict: some networks need the version number that only a pickled dict has.
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])


def classifiers(model: nn.Module) -> tuple[str, ...]:
    """Names of the layers that compute the logits: from timm's config, else the last linear or conv layer."""
    if named := getattr(model, "pretrained_cfg", {}).get("classifier"):
        return (named,) if isinstance(named, str) else tuple(named)
    return tuple([name for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1:])


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
