"""The dataset files of the paper: their values are allowed, and are those of the paper where it gives them."""

import pytest

from edc.config.files import DatasetFile, names, read
from edc.config.rows import Dataset
from edc.training.schedules import multiplier


def file(name: str) -> tuple[DatasetFile, Dataset]:
    found: DatasetFile = read("datasets", name)
    return found, Dataset.model_validate({"name": name, "family": name} | found.data)


@pytest.mark.parametrize(
    ("name", "classes", "size", "observers", "epochs", "patch", "batch"),
    [
        ("cifar10", 10, 32, 8, 30, 4, 64),
        ("cifar100", 100, 32, 8, 50, 4, 64),
        ("tiny_imagenet", 200, 64, 5, 50, 4, 64),
        ("imagenet10", 10, 224, 4, 20, 16, 256),
        ("imagenet1k", 1000, 224, 5, 0, 16, 256),
        ("imagenet21k", 10450, 224, 1, 80, 16, 256),
    ],
)
def test_the_paper_s_datasets(
    name: str, classes: int, size: int, observers: int, epochs: int, patch: int, batch: int
) -> None:
    found, dataset = file(name)
    assert name in names("datasets")
    assert (dataset.family, dataset.classes, dataset.image_size) == (name, classes, size)
    assert (len(found.observers), found.pretrain.epochs) == (observers, epochs)
    assert (found.statistics.patch, found.statistics.batch) == (patch, batch)
    cifar = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
    imagenet = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert (tuple(dataset.mean), tuple(dataset.std)) == (cifar if name.startswith("cifar") else imagenet)
    large = size == 224
    assert dataset.streamed == large
    assert dataset.resize == (256 if large else None)
    assert dataset.crop_scale == ((0.08, 1.0) if large else None)
    assert found.pretrain.weights == ("default" if name == "imagenet1k" else None)


def test_imagenet10_has_the_label_order_of_the_published_code() -> None:
    found, dataset = file("imagenet10")
    assert dataset.class_names is not None
    assert " ".join(dataset.class_names) == (
        "n02869837 n01749939 n02488291 n02107142 n13037406 n02091831 n04517823 n04589890 n03062245 n01773797"
    )
    row = found.pretrain
    rate = row.optimiser.lr * multiplier(row.schedule, 19, row.epochs, [])
    assert rate == pytest.approx(0.00772, abs=1e-5)  # of the last epoch: 0.01 (1 + cos(19 pi / 60)) / 2
