"""IDX, the file format of MNIST and similar data sets: a short header, then the values row by row."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

UNSIGNED_BYTES = 0x08


class DataError(Exception):
    """A data set that cannot be read; the message says what to do."""


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """The array of unsigned bytes in an IDX file, gzipped or not.

    The header has two zero bytes, the type of the values, the number of axes, and the size of each axis in
    four bytes, the highest byte first.

    Raises:
        DataError: if the file cannot be read, is not an IDX file of bytes, or ends too early.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}): fetch it again.") from error
    if len(content) < 4 or content[:3] != bytes([0, 0, UNSIGNED_BYTES]):
        raise DataError(f"{path} is no IDX file of unsigned bytes: give the files as their publisher packs them.")
    values_start = 4 + 4 * content[3]
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, values_start, 4))
    if len(content) != values_start + math.prod(shape):
        raise DataError(
            f"{path} holds {len(content):,} bytes, but its header promises {values_start + math.prod(shape):,}: "
            "fetch it again."
        )
    return np.frombuffer(content, np.uint8, offset=values_start).reshape(shape)
