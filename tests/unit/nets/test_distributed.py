"""Processes that share a run: two of them, over gloo on the CPU, come to the gradient and statistics of one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from edc.config.choices import Optimiser
from edc.nets import build
from edc.nets.distributed import process_group
from edc.nets.processes import processes, rank
from edc.training.trainer import Trainer

CASES = [("convnet_w32", 1), ("resnet18", 1), ("resnet18", 2)]
"""Networks without and with batch norm; parts of a batch, over which it normalises."""
BATCHES = (9, 8, 1)
"""Images of each step; the parts of an odd batch differ in size, and one image is one process's too few."""


def trained(name: str, parts: int) -> dict[str, torch.Tensor]:
    """Every gradient of the first step, and the network after three steps of SGD."""
    network = build(name, classes=10, image_size=16, seed=0).double()
    trainer = Trainer(network, Optimiser(name="sgd", lr=0.01, momentum=0.0), torch.device("cpu"), parts=parts)
    rng = torch.Generator().manual_seed(0)
    trainer.start_epoch()
    found = {}
    for step, count in enumerate(BATCHES if name == "convnet_w32" else BATCHES[:2]):
        x = torch.randn(count, 3, 16, 16, generator=rng, dtype=torch.float64)
        trainer.step(x, None, torch.randint(10, (count,), generator=rng))
        if not step:
            found = {f"gradient of {name}": p.grad.clone() for name, p in network.named_parameters()}
    return found | trainer.model.state_dict() | {"loss": torch.tensor(trainer.end_epoch())}


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    command = ["torchrun", "--standalone", "--nproc-per-node", "2", __file__, str(folder)]
    subprocess.run([sys.executable, "-m", "torch.distributed.run", *command[1:]], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize(("name", "parts"), CASES)
def test_two_processes_train_as_one_does(shared: Path, name: str, parts: int) -> None:
    alone, first, second = trained(name, parts), *(torch.load(shared / f"{name}-{parts}-{i}.pt") for i in range(2))
    assert alone.keys() == first.keys() == second.keys()
    for key, value in alone.items():
        assert torch.equal(first[key], second[key]), key
        assert torch.allclose(first[key].to(value.dtype), value, rtol=1e-6, atol=1e-6), key


if __name__ == "__main__":
    with process_group("cpu"):
        assert processes() == 2
        for name, parts in CASES:
            torch.save(trained(name, parts), Path(sys.argv[1]) / f"{name}-{parts}-{rank()}.pt")
