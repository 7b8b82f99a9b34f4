"""Which arrays a NumPy function multiplies with, and how often: read by running it once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_backends.numpy.layers import choose_layers
from rigl_core.adapter import Axes, Fused, Layer, MultiplyAdds, Network, Parts, Stacked, made_of, positions_of

Array = npt.NDArray[Any]


def describe(
    apply: Callable[..., Any],
    params: Mapping[str, Array],
    *example_inputs: Any,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    axes: Axes | None = None,
    stacked: Stacked | None = None,
    fused: Fused | None = None,
    examples: int = 1,
) -> Network:
    """Read a model's layers, and how often one example uses each of their weights, by running it once.

    The products that count are ``@``, ``np.matmul``, ``np.dot``, ``np.inner``, ``np.tensordot`` and ``np.einsum``, and
    so convolutions that are made of these.

    Args:
        apply: called as ``apply(params, *example_inputs)``.
        params: the model's arrays by name; not changed by this function.
        *example_inputs: arrays. An array that ``apply`` brings itself counts as a constant, such as a mask.
        include: name patterns of arrays to choose besides the default ones, as for `sparsify`.
        exclude: name patterns of arrays not to choose, as for `sparsify`.
        axes: in and out axes by name pattern, as for `sparsify`.
        stacked: axes along which layers are stacked, as for `sparsify`.
        fused: parts that are fused along an axis, as for `sparsify`.
        examples: how many examples the inputs hold: their batch size.

    Returns:
        The layers that `sparsify` would choose, with their positions. The other arrays of two and more axes are
        ``always_dense``, with 0 positions if the model does not multiply with them.

    Raises:
        TypeError, ValueError: naming the parameter.
    """
    layers = choose_layers(params, include, exclude, axes, stacked, fused)
    chosen = {layer.name for layer in layers}
    others = [Layer(name, x.shape) for name, x in params.items() if x.ndim >= 2 and name not in chosen]
    counted = MultiplyAdds(layers)
    watched = {name: _watch(param, counted, {name: param.size}) for name, param in params.items()}
    apply(watched, *(_watch(np.asarray(array), counted, None) for array in example_inputs))
    return Network(tuple(layers), positions_of([*layers, *others], counted.by_name, examples), tuple(others))


_PRODUCTS = (np.matmul, np.dot, np.inner, np.tensordot, np.einsum)
_JOINING = (np.concatenate, np.stack)


class _Watched(np.ndarray[Any, Any]):
    """An array that knows which weights it was computed from, and counts the products that it takes part in."""

    counted: MultiplyAdds
    parts: Parts | None

    def __array_finalize__(self, base: Any) -> None:
        """Views and copies are made of the same weights."""
        if isinstance(base, _Watched):
            self.counted, self.parts = base.counted, base.parts

    def __array_ufunc__(self, ufunc: np.ufunc, method: Any, *inputs: Any, **options: Any) -> Any:
        """Operations on elements, and ``@``."""
        return self._run(ufunc if method == "__call__" else getattr(ufunc, method), inputs, options)

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        """NumPy's other functions."""
        return self._run(function, arguments, options)

    def _run(self, function: Callable[..., Any], arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
        """The function's result, with what it is made of."""
        parts = [x.parts if isinstance(x, _Watched) else {} for x in _arrays_in([*arguments, *options.values()])]
        if function in _PRODUCTS:
            # With ones in place of all numbers, the result adds up to the number of products.
            ones = _each(arguments, np.ones_like), {name: _each(value, np.ones_like) for name, value in options.items()}
            self.counted.add(reversed(parts), int(np.sum(function(*ones[0], **ones[1]))))
        plain = {name: _each(value, np.asarray) for name, value in options.items()}
        result = function(*_each(arguments, np.asarray), **plain)
        if not isinstance(result, np.ndarray):
            return result
        return _watch(result, self.counted, made_of(parts, joined=function in _JOINING))


def _watch(array: Array, counted: MultiplyAdds, parts: Parts | None) -> _Watched:
    watched = array.view(_Watched)
    watched.counted, watched.parts = counted, parts
    return watched


def _each(value: Any, change: Callable[[Array], Array]) -> Any:
    """The arrays in a value changed, which are plain ones then."""
    if isinstance(value, np.ndarray):
        return change(value.view(np.ndarray))
    return type(value)(_each(item, change) for item in value) if type(value) in (list, tuple) else value


def _arrays_in(value: Any) -> Iterator[Array]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _arrays_in(item)
