"""Small data sets in MNIST's file format, which the tests write themselves."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt


def idx_bytes(array: npt.NDArray[np.uint8]) -> bytes:
    header = bytes([0, 0, 0x08, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.tobytes()


def write_dataset(
    folder: Path, *, gzipped: bool, n_train: int = 40, n_test: int = 10, shape: tuple[int, int] = (3, 5)
) -> dict[str, npt.NDArray[np.uint8]]:
    """Write four files of random images, of 3 x 5 pixels if not told, in four classes. Returns the arrays by name."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", n_train), ("t10k", n_test)):
        arrays[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (n, *shape)).astype(np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = (np.arange(n) % 4).astype(np.uint8)
    for name, array in arrays.items():
        content = idx_bytes(array)
        (folder / (name + ".gz" * gzipped)).write_bytes(gzip.compress(content) if gzipped else content)
    return arrays
