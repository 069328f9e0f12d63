"""The layout of DD-Ranking 0.2: images normalised by its own constants, soft labels, a configuration of its metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from edc.config.rows import Dataset
from edc.data.images import ImageSet
from edc.errors import EdcError
from edc.storage import write_text

IMAGES, SOFT_LABELS, CONFIG = "images.pt", "soft_labels.pt", "config.yaml"
CIFAR = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DATASETS = {
    "cifar10": ("CIFAR10", "ConvNet-3", CIFAR),
    "cifar100": ("CIFAR100", "ConvNet-3", CIFAR),
    "tiny_imagenet": ("TinyImageNet", "ResNet-18-BN", IMAGENET),
    "imagenet1k": ("ImageNet1K", "ResNet-18-BN", IMAGENET),
}
"""By a dataset's family: DD-Ranking's name, a network it has settings for, mean and deviation."""


def write(folder: Path, images: ImageSet, dataset: Dataset, names: str) -> list[str]:
    """Images float32 (N, 3, S, S), class after class, and a configuration to edit."""
    if dataset.family not in DATASETS:
        raise EdcError(
            f"--format ddranking: dataset {dataset.name!r} is of the family {dataset.family!r}; expected one that "
            f"DD-Ranking has: {', '.join(DATASETS)}"
        )
    name, network, _ = DATASETS[dataset.family]
    mean, std = constants(dataset)
    torch.save((images.images.to(torch.float32) / 255 - mean) / std, folder / IMAGES)
    values: dict[str, Any] = {
        "dataset": name,
        "real_data_path": "./dataset",
        "ipc": len(images) // dataset.classes,
        "im_size": [dataset.image_size] * 2,
        "model_name": network,
        "stu_use_torchvision": False,
        "use_torchvision": False,
        "soft_label_mode": "S",
        "soft_label_criterion": "kl",
        "loss_fn_kwargs": {"temperature": 1.0, "scale_loss": False},
        "data_aug_func": None,
        "aug_params": None,
        "use_aug_for_hard": False,
        "optimizer": "adamw",
        "lr_scheduler": "cosine",
        "weight_decay": 0.01,
        "momentum": 0.9,
        "num_eval": 5,
        "num_epochs": 300,
        "use_zca": False,
        "random_data_format": "tensor",
        "real_batch_size": 256,
        "syn_batch_size": 256,
        "num_workers": 4,
        "eval_full_data": network != "ResNet-18-BN",  # DD-Ranking has that network's accuracies of all images
        "tea_use_torchvision": False,
        "teacher_dir": "./teacher_models",
        "teacher_model_names": [],
        "custom_train_trans": None,
        "custom_val_trans": None,
        "device": "cuda",
        "dist": False,
    }
    write_text(folder / CONFIG, yaml.safe_dump(values, sort_keys=False))
    return [IMAGES, CONFIG]


def write_labels(folder: Path, labels: np.ndarray) -> str:
    """Soft labels (N, K): logits, in the order of the images. Returns the file's name."""
    torch.save(torch.tensor(labels, dtype=torch.float32), folder / SOFT_LABELS)
    return SOFT_LABELS


def read(folder: Path, classes: tuple[str, ...], dataset: Dataset, names: str) -> ImageSet:
    """What :func:`write` wrote."""
    normalised = torch.load(folder / IMAGES, weights_only=True)
    mean, std = constants(dataset)
    images = ((normalised * std + mean) * 255).round().to(torch.uint8)
    return ImageSet(images, torch.arange(len(classes)).repeat_interleave(len(images) // len(classes)), classes)


def constants(dataset: Dataset) -> tuple[Tensor, Tensor]:
    """DD-Ranking's mean and deviation for a dataset, (3, 1, 1) each."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in DATASETS[dataset.family][2])
    return mean, std
