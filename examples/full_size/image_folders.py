"""CIFAR-10 and ImageNet from the folders in which they come, with the paper's augmentation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms
from torchvision.datasets import CIFAR10, ImageFolder

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's channels."""

RESIZED = 256 / 224
"""The shorter side of a test image, before its middle is cut out, in sides of the crop."""


class FolderError(Exception):
    """A folder of images is missing or broken; the message says how it must look."""


@dataclass(frozen=True)
class Images:
    """Training and test images; an item is an image, (3, pixels, pixels), and the number of its class."""

    train: Dataset[tuple[Tensor, int]]
    test: Dataset[tuple[Tensor, int]]
    n_train: int
    n_test: int
    classes: int

    def __str__(self) -> str:
        return f"{self.n_train:,} training images in {self.classes:,} classes"


def load(network: str, folder: Path, pixels: int) -> Images:
    """The images for a network.

    Args:
        network: a name of `experiments.EXPERIMENTS`.
        folder: where they are.
        pixels: width and height of an image from ImageNet.

    Raises:
        FolderError: if the folder does not hold what it must.
    """
    return load_cifar10(folder) if network == "wrn22-2" else load_imagenet(folder, pixels)


def load_cifar10(folder: Path) -> Images:
    """CIFAR-10 in Python's pickle format, in ``folder/cifar-10-batches-py``.

    The authors' code (cifar_resnet/data_helper.py) scales each image by its own mean and deviation, and pads it by its
    mirrored border.
    """
    if not (folder / CIFAR10.base_folder).is_dir():
        raise FolderError(
            f"--data {folder} has no folder {CIFAR10.base_folder}: unpack cifar-10-python.tar.gz there, and give the "
            "folder above it."
        )
    scaled = transforms.Compose([transforms.ToTensor(), standardized])
    crop = transforms.RandomCrop(32, padding=4, padding_mode="symmetric")
    augmented = transforms.Compose([scaled, crop, transforms.RandomHorizontalFlip()])
    try:
        train = CIFAR10(folder, train=True, transform=augmented, download=False)
        test = CIFAR10(folder, train=False, transform=scaled, download=False)
    except RuntimeError as error:  # torchvision compares checksums before it unpickles
        raise FolderError(
            f"--data {folder}: a file in {CIFAR10.base_folder} is missing or broken, {error} "
            "It must hold data_batch_1 to data_batch_5, test_batch and batches.meta: unpack the archive again."
        ) from None
    return _images(train, test)


def standardized(image: Tensor) -> Tensor:
    """The image with mean 0 and deviation 1, as TensorFlow's per_image_standardization."""
    least = 1 / (255 * image.numel() ** 0.5)
    return (image - image.mean()) / image.std(correction=0).clamp_min(least)


def load_imagenet(folder: Path, pixels: int) -> Images:
    """A folder for each class, in ``folder/train`` and ``folder/val``.

    The paper's augmentation is the standard one: random crops of random sizes, and flips.
    """
    scaled = [transforms.ToTensor(), transforms.Normalize(MEAN, DEVIATION)]
    augmented = [transforms.RandomResizedCrop(pixels), transforms.RandomHorizontalFlip()]
    middle = [transforms.Resize(round(RESIZED * pixels)), transforms.CenterCrop(pixels)]
    train = _image_folder(folder, "train", transforms.Compose([*augmented, *scaled]))
    test = _image_folder(folder, "val", transforms.Compose([*middle, *scaled]))
    if train.classes != test.classes:
        (differing, *_) = sorted(set(train.classes) ^ set(test.classes))
        raise FolderError(
            f"--data {folder}: the class {differing} is in only one of train and val: both need the same folders."
        )
    return _images(train, test)


def _image_folder(folder: Path, part: str, transform: Callable[[Any], Any]) -> Any:
    looks = f"it must look like {part}/n01440764/image.JPEG, with a folder for each class"
    if not (folder / part).is_dir():
        raise FolderError(f"--data {folder} has no folder {part}: {looks}, and so must train and val both.")
    try:
        return ImageFolder(str(folder / part), transform)
    except FileNotFoundError as error:
        raise FolderError(f"--data {folder}: {looks}. {str(error).splitlines()[0]}") from None


def _images(train: Any, test: Any) -> Images:
    return Images(train, test, len(train), len(test), len(train.classes))
