"""Python runs the folders of these examples; their modules import each other by plain names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"

sys.path[:0] = [str(QUICKSTART), str(QUICKSTART.parent / "methods"), str(QUICKSTART.parent / "full_size")]


@pytest.fixture(scope="session")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-10's folder, with 20 and 10 made-up images."""
    from tests.examples.image_files import write_cifar10

    folder = tmp_path_factory.mktemp("cifar")
    write_cifar10(folder, n_train=20, n_test=10)
    return folder


@pytest.fixture(scope="session")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet's tree, with 12 and 6 made-up images in three classes."""
    from tests.examples.image_files import write_imagenet

    folder = tmp_path_factory.mktemp("imagenet")
    write_imagenet(folder)
    return folder
