"""How often a JAX function multiplies with each weight: read from its trace, without running it."""

from __future__ import annotations

import glob
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax

from rigl_backends.jax.layers import choose_layers
from rigl_backends.jax.trees import Tree, called, named_leaves, shape_of, with_leaves
from rigl_core.adapter import Axes, Fused, MultiplyAdds, Network, Parts, Stacked, errors, made_of, positions_of


def describe(
    apply: Callable[..., Any],
    params: Tree,
    *example_inputs: Any,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    axes: Axes | None = None,
    stacked: Stacked | None = None,
    fused: Fused | None = None,
    examples: int = 1,
) -> Network:
    """Read a model's layers, and how often one example uses each of their weights, by tracing it once.

    Nothing is computed. What counts are the products in the trace, so functions of one's own count as well
    as flax's and equinox's: grouped, depthwise and transposed convolutions, recurrent layers at each step,
    shared weights at each of their uses.

    Args:
        apply: called as ``apply(params, *example_inputs)``. Bind everything else before:
            ``lambda params, x: model.apply({"params": params}, x, train=False)``.
        params: any pytree of arrays (or of their shapes and dtypes).
        *example_inputs: pytrees of arrays (or of their shapes and dtypes). An array that is bound by ``apply``
            counts as a constant, such as a mask.
        include: name patterns of arrays to choose besides the default ones, as for `sparsify`.
        exclude: name patterns of arrays not to choose, as for `sparsify`.
        axes: in and out axes by name pattern, as for `sparsify`.
        stacked: axes along which layers are stacked, as for `sparsify`.
        fused: parts that are fused along an axis, as for `sparsify`.
        examples: how many examples the inputs hold: their batch size.

    Returns:
        The layers that `sparsify` would choose, with their positions. The other arrays of two and more
        axes are ``always_dense``, with 0 positions if the model does not multiply with them (embeddings).

    Raises:
        TypeError, ValueError: naming the parameter, or the array that is used in a loop of unknown length.
    """
    layers = choose_layers(params, include, exclude, axes, stacked, fused)
    chosen = {layer.name for layer in layers}
    arrays = {name: leaf for name, leaf in named_leaves(params).items() if hasattr(leaf, "dtype")}
    rest = [glob.escape(name) for name, array in arrays.items() if name not in chosen and _is_weight(name, array)]
    others = [
        layer
        for layer in choose_layers(params, rest, axes=axes, stacked=stacked, fused=fused)
        if layer.name not in chosen
    ]

    def run(arrays: dict[str, Any], *inputs: Any) -> Any:
        return apply(with_leaves(params, arrays), *inputs)

    trace = jax.make_jaxpr(run)(arrays, *example_inputs)
    sizes = {layer.name: layer.size for layer in [*layers, *others]}
    # JAX sorts the keys of dicts.
    given: list[Parts | None] = [{name: sizes[name]} if name in sizes else {} for name in sorted(arrays)]
    counted = _Trace(layers)
    counted.walk(trace.jaxpr, given + [None] * (len(trace.jaxpr.invars) - len(given)))
    return Network(tuple(layers), positions_of([*layers, *others], counted.by_name, examples), tuple(others))


class _Trace(MultiplyAdds):
    """Counts the products in a trace. Whatever was made of a weight counts for it, as long as no input went in."""

    def walk(self, jaxpr: Any, given: Sequence[Parts | None], times: int = 1) -> list[Parts | None]:
        """Count a trace that runs ``times`` times; tells what is known of its results."""
        known: dict[Any, Parts | None] = dict(zip(jaxpr.invars, given, strict=True))

        def find(atom: Any) -> Parts | None:
            return {} if hasattr(atom, "val") else known.get(atom)

        known.update((constant, {}) for constant in jaxpr.constvars)
        for equation in jaxpr.eqns:
            results = self._equation(equation, [find(atom) for atom in equation.invars], times)
            known.update(zip(equation.outvars, results, strict=True))
        return [find(atom) for atom in jaxpr.outvars]

    def _equation(self, equation: Any, inputs: list[Parts | None], times: int) -> Sequence[Parts | None]:
        kind, parameters = equation.primitive.name, equation.params
        if kind in ("dot_general", "conv_general_dilated"):
            count = _dot if kind == "dot_general" else _convolution
            self.add(reversed(inputs[:2]), times * count(equation))
        elif kind == "scan":
            inner = parameters["jaxpr"].jaxpr
            carried = len(inner.outvars) - _sliced(equation.outvars, inner.outvars)
            end = len(inputs) - _sliced(equation.invars, inner.invars)
            inputs[end - carried : end] = [None] * carried
            return self.walk(inner, inputs, times * parameters["length"])
        elif kind == "while":
            return self._loop(equation, inputs)
        elif kind == "cond":
            return self._branches(parameters["branches"], inputs[1:], times)
        elif (inner := called(equation)) is not None:
            return self.walk(inner, inputs, times)
        return [made_of(inputs, joined=kind == "concatenate")] * len(equation.outvars)

    def _branches(self, branches: Sequence[Any], inputs: list[Parts | None], times: int) -> list[Parts | None]:
        """The costliest branch counts."""
        counts = [_Trace(self.layers) for _ in branches]
        results = [own.walk(branch.jaxpr, inputs, times) for own, branch in zip(counts, branches, strict=True)]
        self.add_costliest(counts)
        return [outs[0] if all(out == outs[0] for out in outs) else None for outs in zip(*results, strict=True)]

    def _loop(self, equation: Any, inputs: list[Parts | None]) -> list[Parts | None]:
        conditions, constants = (equation.params[f"{part}_nconsts"] for part in ("cond", "body"))
        carry: list[Parts | None] = [None] * len(equation.outvars)
        once = _Trace(self.layers)
        once.walk(equation.params["body_jaxpr"].jaxpr, inputs[conditions : conditions + constants] + carry)
        for name in once.by_name:
            raise ValueError(
                f"apply multiplies with {name!r} in a while loop, whose number of steps is unknown: use a scan, or a "
                "fori_loop whose bounds are Python numbers."
            )
        return carry


def _sliced(outside: Sequence[Any], inside: Sequence[Any]) -> int:
    """How many arrays of a scan have one more axis than its function sees: constants and what is carried have not."""
    return sum(atom.aval.ndim > seen.aval.ndim for atom, seen in zip(outside, inside, strict=True))


def _dot(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, out = equation.invars[0].aval, equation.outvars[0].aval
    return int(math.prod(out.shape) * math.prod(left.shape[axis] for axis in contracted))


def _convolution(equation: Any) -> int:
    """Every weight at every output; if the input is spread out (a transposed convolution), at every input."""
    inputs, kernel, out = (variable.aval.shape for variable in (*equation.invars[:2], *equation.outvars))
    transposed = any(dilation > 1 for dilation in equation.params["lhs_dilation"])
    numbers = equation.params["dimension_numbers"]
    shape, (batch, _, *space) = (inputs, numbers.lhs_spec) if transposed else (out, numbers.out_spec)
    return int(math.prod(shape[axis] for axis in (batch, *space)) * math.prod(kernel))


def _is_weight(name: str, array: Any) -> bool:
    floating = str(array.dtype) in errors.DTYPES
    return floating and len(shape_of(array)) >= 2 and name.rpartition("/")[2] not in ("bias", "scale")
