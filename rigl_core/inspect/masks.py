"""Numbers about masks, and about the differences between masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_core.inspect.host import to_numpy
from rigl_core.model.table import share

Masks = Mapping[str, Any]
"""Bool arrays by layer name, as the ``masks`` of every adapter. `rigl_core.inspect.host.to_numpy` reads them."""


def moved(before: Masks, after: Masks) -> dict[str, float]:
    """The share of each layer's active connections that were not active before, by name: the churn of an update.

    Raises:
        ValueError: if ``before`` and ``after`` have different layers or shapes.
    """
    return {name: share(_count(new & ~old), _count(new)) for name, (old, new) in _pairs(before, after).items()}


def churn(before: Masks, after: Masks) -> float:
    """The share of the active connections of all layers together that were not active before.

    Raises:
        ValueError: if ``before`` and ``after`` have different layers or shapes.
    """
    pairs = _pairs(before, after).values()
    return share(sum(_count(new & ~old) for old, new in pairs), sum(_count(new) for _, new in pairs))


def ever_active(before: Masks, masks: Masks) -> dict[str, npt.NDArray[np.bool_]]:
    """Masks of the connections that are active now or were active before.

    Call it after each update, and give its last result as ``before``.

    Raises:
        ValueError: if ``before`` and ``masks`` have different layers or shapes.
    """
    return {name: old | new for name, (old, new) in _pairs(before, masks).items()}


def density(masks: Masks) -> float:
    """The share of active connections over all layers.

    The density of the result of `ever_active` is R_s, the in-time over-parameterization rate (Liu et al. 2021, section
    3.1).
    """
    arrays = [to_numpy(mask) for mask in masks.values()]
    return share(sum(map(_count, arrays)), sum(mask.size for mask in arrays))


def _count(mask: npt.NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(mask))


def _pairs(before: Masks, after: Masks) -> dict[str, tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    """The two masks of each layer, after checking that both exist and have the same shape."""
    old, new = ({name: to_numpy(mask) for name, mask in masks.items()} for masks in (before, after))
    shapes = [{name: mask.shape for name, mask in masks.items()} for masks in (old, new)]
    if shapes[0] != shapes[1]:
        differing = sorted(name for name in {**old, **new} if shapes[0].get(name) != shapes[1].get(name))
        raise ValueError(f"before has masks for other layers or shapes than after; they differ in {differing}.")
    return {name: (old[name], new[name]) for name in new}
