"""Which arrays are layers. Plain arrays do not tell what their axes mean: users say it where it matters."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_core.adapter import Axes, Choice, Fused, Layer, Stacked, errors, with_axes

Params = Mapping[str, npt.NDArray[Any]]


def choose_layers(
    params: Params,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    axes: Axes | None = None,
    stacked: Stacked | None = None,
    fused: Fused | None = None,
) -> list[Layer]:
    """The arrays with two or more axes, as layers, in the order of ``params``.

    Args:
        params: the model's arrays by name.
        include: name patterns of arrays to choose besides.
        exclude: name patterns of arrays not to choose; goes before ``include``.
        axes: in and out axes by name pattern (first match wins); otherwise they are unknown. ER, and structures such
            as 2:4, ask for them.
        stacked: axes along which layers are stacked, as for `sparsify`.
        fused: parts that are fused along an axis, as for `sparsify`.

    Raises:
        TypeError, ValueError: naming the parameter, for a pattern that matches nothing or axes that do not fit.
    """
    is_chosen = Choice(include, exclude, list(params))
    chosen = [Layer(name, x.shape) for name, x in params.items() if is_chosen(name, default=x.ndim >= 2)]
    return with_axes(chosen, axes, list(params), stacked, fused)


def layers_of(
    params: Params,
    layers: Sequence[Layer] | None,
    include: Sequence[str],
    exclude: Sequence[str],
    axes: Axes | None,
    stacked: Stacked | None = None,
    fused: Fused | None = None,
) -> Sequence[Layer]:
    """The layers that the user gave, or those that `choose_layers` finds.

    Raises:
        TypeError, ValueError: naming the parameter or the layer, also for two layers that share memory: each would cut
            the other's connections.
    """
    if layers is not None and (include or exclude or axes or stacked or fused):
        raise errors.too_many_choices("include", "exclude", "axes", "stacked", "fused")
    chosen = choose_layers(params, include, exclude, axes, stacked, fused) if layers is None else layers
    for layer in chosen:
        if layer.name not in params or params[layer.name].shape != layer.shape:
            raise errors.no_such_array(layer)
        errors.check_dtype(layer, params[layer.name].dtype)
    for first, second in itertools.combinations(chosen, 2):
        if np.shares_memory(params[first.name], params[second.name]):
            raise errors.tied(first.name, second.name)
    return chosen
