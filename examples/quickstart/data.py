"""Real images to learn from: scikit-learn's digits, or any data set in MNIST's file format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from idx import DataError, read_idx

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Batch = tuple[Images, Labels]

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""The folder of the files of Debian's package dataset-fashion-mnist."""

HOW_TO_GET_IT = (
    "Fashion-MNIST is in Debian's package dataset-fashion-mnist (apt-get install dataset-fashion-mnist); "
    "or point at your own folder of four IDX files, named as MNIST's: --data fashion-mnist --data-path DIR."
)


@dataclass(frozen=True)
class Dataset:
    """Images, one flat row each, split into training and test images.

    Attributes:
        name: the name, for titles.
        train_images: float32, (images, pixels), from 0 to 1.
        train_labels: int64, (images,).
        test_images: as ``train_images``.
        test_labels: as ``train_labels``.
        picture_shape: height and width of one image, in pixels.
    """

    name: str
    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels
    picture_shape: tuple[int, int]

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return int(self.train_labels.max()) + 1


def load(name: str, folder: Path | None = None) -> Dataset:
    """The data set of this name.

    Args:
        name: ``"digits"``, ``"fashion-mnist"``, or the path of a folder of IDX files.
        folder: the folder of the IDX files of ``fashion-mnist``; None for the one where Debian puts them.

    Raises:
        DataError: if the data set is missing or broken; the message says how to get it.
    """
    if name == "digits":
        return load_digits()
    if name == "fashion-mnist":
        return load_idx("Fashion-MNIST", folder or FASHION_MNIST)
    if not Path(name).is_dir():
        raise DataError(
            f"--data {name} is neither digits nor fashion-mnist, nor a folder of IDX files: use one of them."
        )
    return load_idx(Path(name).resolve().name, Path(name))


def load_digits() -> Dataset:
    """Scikit-learn's 1,797 handwritten digits of 8 x 8 pixels; a fixed quarter of them is the test set."""
    from sklearn import datasets, model_selection  # slow to import, and the other data sets do not need it

    images, labels = datasets.load_digits(return_X_y=True)
    images, labels = (images / 16).astype(np.float32), labels.astype(np.int64)
    parts = model_selection.train_test_split(images, labels, test_size=0.25, random_state=0)
    train_images, test_images, train_labels, test_labels = parts
    return Dataset("scikit-learn digits", train_images, train_labels, test_images, test_labels, picture_shape=(8, 8))


def load_idx(name: str, folder: Path) -> Dataset:
    """A data set in four IDX files with the names of MNIST's, gzipped or not. It has its own test set."""
    train_pictures, train_labels = _read_pair(folder, "train")
    test_pictures, test_labels = _read_pair(folder, "t10k")
    if train_pictures.shape[1:] != test_pictures.shape[1:]:
        raise DataError(f"{folder} has training and test images of different sizes: give one data set.")
    return Dataset(
        name,
        _flat(train_pictures),
        train_labels.astype(np.int64),
        _flat(test_pictures),
        test_labels.astype(np.int64),
        picture_shape=train_pictures.shape[1:],
    )


def _read_pair(folder: Path, part: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    pictures = read_idx(_find(folder, f"{part}-images-idx3-ubyte"))
    labels = read_idx(_find(folder, f"{part}-labels-idx1-ubyte"))
    if pictures.ndim != 3 or labels.shape != (len(pictures),) or not len(pictures):
        raise DataError(
            f"{folder} has {part} images of shape {pictures.shape} and labels of shape {labels.shape}: "
            "they must be (n, height, width) and (n,)."
        )
    return pictures, labels


def _find(folder: Path, file: str) -> Path:
    for path in (folder / f"{file}.gz", folder / file):
        if path.is_file():
            return path
    raise DataError(f"{folder} has no {file}, gzipped or not. {HOW_TO_GET_IT}")


def _flat(pictures: npt.NDArray[np.uint8]) -> Images:
    return pictures.reshape(len(pictures), -1).astype(np.float32) / np.float32(255)
