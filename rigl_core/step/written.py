"""Plain data as an array of bytes, which goes wherever arrays go: through optimizers' states and into any file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_PAGE = 4096
"""Tools load arrays in place, into those of a new training: most data then has the same length."""


def to_bytes(data: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
    """Plain data, such as `rigl_core.Recipe.to_dict`, as JSON in UTF-8; zeros fill the last page up.

    Equal data gives equal bytes, in whatever order its keys are.
    """
    text = json.dumps(data, sort_keys=True).encode()
    return np.frombuffer(text.ljust(-(-len(text) // _PAGE) * _PAGE, b"\0"), np.uint8)


def from_bytes(array: npt.ArrayLike) -> dict[str, Any]:
    """The data that `to_bytes` wrote, also if its numbers were cast on the way."""
    data: dict[str, Any] = json.loads(np.asarray(array).astype(np.uint8).tobytes().rstrip(b"\0"))
    return data
