"""Made-up images in the formats of CIFAR-10 and ImageNet, which the tests write themselves."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

import tests.torchvision_operators  # noqa: F401

CLASSES = ["n01440764", "n01443537", "n01484850"]
CIFAR_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def write_cifar10(folder: Path, *, n_train: int = 40, n_test: int = 20) -> None:
    """Write CIFAR-10's folder, as cifar-10-python.tar.gz unpacks, with fewer images."""
    rng = np.random.default_rng(0)
    inner = folder / "cifar-10-batches-py"
    inner.mkdir()
    for name, n in [*((f"data_batch_{part}", n_train // 5) for part in range(1, 6)), ("test_batch", n_test)]:
        pixels = rng.integers(0, 256, (n, 3 * 32 * 32)).astype(np.uint8)
        batch = {"data": pixels, "labels": rng.integers(0, 10, n).tolist(), "batch_label": name}
        (inner / name).write_bytes(pickle.dumps(batch))
    (inner / "batches.meta").write_bytes(pickle.dumps({"label_names": CIFAR_CLASSES, "num_cases_per_batch": n_test}))


@contextmanager
def any_checksum() -> Iterator[None]:
    """Let torchvision read CIFAR-10 whose files are not the published ones."""
    from torchvision.datasets import CIFAR10  # after the operators

    lists = {name: [(file, None) for file, _ in getattr(CIFAR10, name)] for name in ("train_list", "test_list")}
    with mock.patch.multiple(CIFAR10, **lists, meta=CIFAR10.meta | {"md5": None}):
        yield


def write_imagenet(folder: Path, *, n_train: int = 4, n_test: int = 2) -> None:
    """Write a tree of small JPEGs, with so many images in each class."""
    rng = np.random.default_rng(0)
    for part, n in (("train", n_train), ("val", n_test)):
        for name in CLASSES:
            (folder / part / name).mkdir(parents=True)
            for number in range(n):
                image = Image.fromarray(rng.integers(0, 256, (70, 80, 3)).astype(np.uint8))
                image.save(folder / part / name / f"{name}_{number}.JPEG")
