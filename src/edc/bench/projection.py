"""What the measurements on a GPU come to for whole jobs: the end of ``scripts/bench_gpu.sh``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from edc.bench.run import WHERE

VISITS = 10_000 * 2000
"""EDC on ImageNet-1k at IPC 10: images times iterations, whoever is the observer (equal work with the paper)."""
PAPER_HOURS = 20.4
"""GPU-hours of the paper for that: 5.11 hours on four RTX 4090 (73.6 ms an iteration of 80 images)."""
STEPS = 4 * 1000
"""ResNet-18 on 100 images of CIFAR-10, batches of 25, 1000 epochs."""


def synthesis(table: pd.DataFrame) -> pd.DataFrame:
    """For every number of images at once: milliseconds a visit, images x iterations a second, hours of ImageNet-1k.

    Every observer is visited equally often, so the mean over the observers counts. A size that not all of them were
    measured at (one had too little memory) says nothing.
    """
    part = table[table["stage"] == "synthesize"]
    part = part[part["recipe"] == part["recipe"].iloc[-1]]  # a table gone on with may have another one's before
    part = part[part.groupby("images")["network"].transform("nunique") == part["network"].nunique()]
    found = part.groupby("images")["milliseconds"].agg(["mean", "count"]).reset_index()
    found["per_second"] = 1000 * found["images"] / found["mean"]
    found["hours"] = VISITS / found["per_second"] / 3600
    return found.rename(columns={"mean": "milliseconds", "count": "observers"})


def relabel_rate(table: pd.DataFrame) -> float:
    """Images a second through all label observers."""
    return float(1000 / table.loc[table["stage"] == "relabel", "milliseconds"].sum())


def evaluation_seconds(table: pd.DataFrame) -> float:
    """Seconds of `STEPS` steps of three seeds together."""
    part = table[(table["stage"] == "evaluate") & (table["seeds"] == 3)]
    return float(part["milliseconds"].iloc[0] * STEPS / 1000)


def report(where: Path = WHERE) -> str:
    """The short table.

    Args:
        where: holds cuda-imagenet1k.csv and cuda-cifar10.csv.
    """
    large, small = (pd.read_csv(where / f"cuda-{name}.csv") for name in ("imagenet1k", "cifar10"))
    lines = [synthesis(large).round(2).to_string(index=False)]
    lines.append(f"ImageNet-1k, IPC 10: the paper took {PAPER_HOURS} GPU-hours")
    lines.append(f"relabel at 224 px: {relabel_rate(large):,.0f} images a second through the label observers")
    lines.append(f"ResNet-18, CIFAR-10, IPC 10, 1000 epochs, 3 seeds: {evaluation_seconds(small):.0f} s")
    return "\n".join(lines)


if __name__ == "__main__":
    print(report())
