"""The quickstart's data: digits, IDX files, and the errors for missing or broken files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from data import load
from idx import DataError, read_idx
from tests.examples.idx_files import idx_bytes, write_dataset

COUNTING = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def test_digits_are_split_scaled_and_always_the_same() -> None:
    dataset = load("digits")
    assert dataset.train_images.shape == (1347, 64)
    assert dataset.test_images.shape == (450, 64)
    assert dataset.train_images.dtype == np.float32
    assert (dataset.train_images.min(), dataset.train_images.max()) == (0, 1)
    assert dataset.n_classes == 10
    assert dataset.picture_shape == (8, 8)
    assert np.array_equal(dataset.test_images, load("digits").test_images)


@pytest.mark.parametrize("packed", [False, True])
def test_idx_gives_the_array_that_was_written(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / ("file.gz" if packed else "file")
    path.write_bytes(gzip.compress(idx_bytes(COUNTING)) if packed else idx_bytes(COUNTING))
    assert np.array_equal(read_idx(path), COUNTING)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no IDX file"),
        (b"\x89PNG....", "no IDX file"),
        (b"\0\0\x0d\1\0\0\0\1\0\0\0\0", "no IDX file of unsigned bytes"),
        (idx_bytes(COUNTING)[:-1], "holds 39 bytes, but its header promises 40: fetch it again"),
        (idx_bytes(COUNTING) + b"\0", "holds 41 bytes, but its header promises 40"),
        (b"\0\0\x08\3\0\0", "but its header promises"),
    ],
)
def test_a_broken_idx_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"not gzip", gzip.compress(idx_bytes(COUNTING), mtime=0)[:-9], b""])
def test_a_broken_gzip_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"file\.gz"):
        read_idx(path)


@pytest.mark.parametrize("gzipped", [False, True])
@pytest.mark.parametrize("as_name", [False, True])
def test_a_folder_of_idx_files_is_a_data_set(tmp_path: Path, gzipped: bool, as_name: bool) -> None:
    arrays = write_dataset(tmp_path, gzipped=gzipped)
    dataset = load(str(tmp_path)) if as_name else load("fashion-mnist", tmp_path)
    assert dataset.name == (tmp_path.name if as_name else "Fashion-MNIST")
    assert dataset.picture_shape == (3, 5)
    assert dataset.n_classes == 4
    assert dataset.train_images.dtype == np.float32
    assert np.array_equal(np.rint(255 * dataset.train_images), arrays["train-images-idx3-ubyte"].reshape(40, 15))
    assert np.array_equal(dataset.test_labels, arrays["t10k-labels-idx1-ubyte"])


def test_a_missing_file_is_named_with_the_ways_to_get_it(tmp_path: Path) -> None:
    write_dataset(tmp_path, gzipped=True)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError) as caught:
        load("fashion-mnist", tmp_path)
    for part in (str(tmp_path), "t10k-labels-idx1-ubyte", "apt-get install dataset-fashion-mnist", "--data-path DIR"):
        assert part in str(caught.value)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(DataError, match="--data cifar is neither digits nor fashion-mnist, nor a folder"):
        load("cifar")


def test_images_and_labels_must_be_as_many(tmp_path: Path) -> None:
    write_dataset(tmp_path, gzipped=False)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(39, np.uint8)))
    with pytest.raises(DataError, match=r"train images of shape \(40, 3, 5\) and labels of shape \(39,\)"):
        load(str(tmp_path))


def test_training_and_test_images_must_be_of_one_size(tmp_path: Path) -> None:
    write_dataset(tmp_path, gzipped=False)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((10, 3, 4), np.uint8)))
    with pytest.raises(DataError, match="different sizes"):
        load(str(tmp_path))
