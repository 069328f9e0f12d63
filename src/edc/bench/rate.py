"""How fast this machine trains networks: arithmetic per second, measured for a moment."""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch

from edc.bench.cost import TRAINING
from edc.config.rows import Dataset, Machine, Plan
from edc.nets import build
from edc.nets.flops import arithmetic
from edc.pipeline.devices import slots

PIXELS = 50 * 32 * 32
"""Of the images of a step: fewer large ones, for a CPU needs seconds for each of them."""

SEVERAL = 4
"""Networks of a plan that are measured, at most."""


def machine_rate(plan: Plan) -> tuple[float, str]:
    """TFLOP/s that this machine reaches with the networks of a plan, all processes together, and its name."""
    name, dataset = next(iter(plan.datasets.items()))
    rows = [*plan.evaluate.values(), *plan.continual.values(), *plan.slimming.values()]
    networks = [row.network for row in plan.pretrain.values() if row.dataset == name]
    networks += [row.student for row in rows if row.dataset == name]
    machine = plan.machine
    count = slots(machine.device, machine.threads)
    rate = training_rate(list(dict.fromkeys(networks))[:SEVERAL], dataset, machine) * count / 1e12
    device = torch.cuda.get_device_name() if _device(machine) == "cuda" else "CPU"
    return rate, f"this machine ({count} processes, {device}), measured just now,"


def _device(machine: Machine) -> str:
    return "cuda" if machine.device != "cpu" and torch.cuda.is_available() else "cpu"


def training_rate(networks: Iterable[str], dataset: Dataset, machine: Machine, seconds: float = 0.3) -> float:
    """FLOP per second of one process over plain training steps of all these networks.

    Args:
        networks: each counts with the time of one step, as in a stage that visits them in turn.
        dataset: size of images and number of classes.
        machine: device and threads.
        seconds: spent on each network, at least two steps.
    """
    threads, batch = torch.get_num_threads(), min(50, max(2, PIXELS // dataset.image_size**2))
    torch.set_num_threads(machine.threads)
    try:
        work = spent = 0.0
        for name in networks:
            macs = arithmetic(name, dataset.classes, dataset.image_size, dataset.channels).macs
            work += 2 * TRAINING * macs * batch
            spent += _step(name, dataset, batch, _device(machine), seconds)
        return work / spent
    finally:
        torch.set_num_threads(threads)


def _step(name: str, dataset: Dataset, batch: int, device: str, seconds: float) -> float:
    """Seconds of a training step, the first one left out."""
    network = build(name, classes=dataset.classes, image_size=dataset.image_size, channels=dataset.channels, seed=0).to(
        device
    )
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-4)
    images = torch.randn(batch, dataset.channels, dataset.image_size, dataset.image_size, device=device)
    labels = torch.arange(batch, device=device) % dataset.classes
    steps, started = -1, time.perf_counter()
    while steps < 1 or time.perf_counter() - started < seconds:
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimiser.step()
        loss.item()  # waits for the device
        steps += 1
        if steps == 0:
            started = time.perf_counter()
    return (time.perf_counter() - started) / steps
