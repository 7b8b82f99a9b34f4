"""Which weights a Keras model multiplies with, and how often: read from its graph, without running it."""

from __future__ import annotations

import glob
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from rigl_backends.keras_common.layers import choose_layers, layers_among
from rigl_backends.keras_common.variables import variable_name
from rigl_backends.tf.active_kernel import check_dense
from rigl_core.adapter import Axes, Fused, Layer, MultiplyAdds, Network, Parts, Stacked, errors, made_of, positions_of


def describe(
    model: keras.layers.Layer,
    *example_inputs: Any,
    named_inputs: Mapping[str, Any] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    axes: Axes | None = None,
    stacked: Stacked | None = None,
    fused: Fused | None = None,
    examples: int = 1,
) -> Network:
    """Read a model's layers, and how often one example uses each of their weights, by tracing it once.

    A model that is built already is not run. What counts are the products in the graph, so layers of one's own
    count as well as Keras's: grouped, depthwise and transposed convolutions, recurrent layers at each step,
    shared weights at each of their uses.

    Args:
        model: any Keras model or layer.
        *example_inputs: what the model is called with.
        named_inputs: keyword arguments of that call.
        include: name patterns of variables to choose besides the default ones, as for `sparsify`.
        exclude: name patterns of variables not to choose, as for `sparsify`.
        axes: in and out axes by name pattern, as for `sparsify`.
        stacked: axes along which layers are stacked, as for `sparsify`.
        fused: parts that are fused along an axis, as for `sparsify`.
        examples: how many examples the inputs hold: their batch size.

    Returns:
        The layers that `sparsify` would choose, with their positions. The other variables of two and more
        axes are ``always_dense``, with 0 positions if the model does not multiply with them (embeddings).

    Raises:
        TypeError, ValueError: naming the parameter, or the variable that is used in a loop of unknown length.
    """
    if not isinstance(model, keras.layers.Layer):
        raise errors.wrong_type("model", model, "keras.Model")
    check_dense(model)
    named_inputs = named_inputs or {}
    if not model.built:
        model(*example_inputs, **named_inputs, training=False)
    layers = choose_layers(model, include, exclude, axes, stacked, fused)
    others = _others(model, {layer.name for layer in layers})
    sizes = {layer.name: layer.size for layer in [*layers, *others]}

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def run(*inputs: Any, **named_inputs: Any) -> Any:
        return model(*inputs, **named_inputs, training=False)

    graph = _Graph(layers)
    graph.walk_function(run.get_concrete_function(*example_inputs, **named_inputs), model.variables, sizes)
    return Network(
        tuple(layers), positions_of([*layers, *others], graph.by_name, examples), tuple(others), name=model.name
    )


def _others(model: keras.layers.Layer, chosen: Collection[str]) -> list[Layer]:
    """The weights that are not chosen, as layers."""
    names = [variable_name(variable) for variable in model.variables if _is_weight(variable)]
    rest = [glob.escape(name) for name in names if name not in chosen]
    return [layer for layer in layers_among(model.variables, model, rest, ()) if layer.name not in chosen]


class _Graph(MultiplyAdds):
    """Counts the products in a graph. Whatever was made of a weight counts for it, as long as no input went in."""

    def walk_function(self, function: Any, variables: Sequence[Any], sizes: Mapping[str, int]) -> None:
        """Count a traced function of the model's inputs."""
        handles = {id(variable.value.handle): variable_name(variable) for variable in variables}
        names = [handles.get(id(captured), "") for captured in function.captured_inputs]
        captured: list[Parts | None] = [{name: sizes[name]} if name in sizes else {} for name in names]
        self.walk(function.graph, [None] * (len(function.graph.inputs) - len(captured)) + captured)

    def walk(self, graph: Any, given: Sequence[Parts | None], times: int = 1) -> list[Parts | None]:
        """Count a graph that runs ``times`` times; tells what is known of its results."""
        known = {tensor.name: parts for tensor, parts in zip(graph.inputs, given, strict=True)}
        needed = _needed(graph)
        for op in graph.get_operations():
            if op.name in needed and op.type != "Placeholder":
                results = self._operation(op, [known[tensor.name] for tensor in op.inputs], times)
                known.update((tensor.name, parts) for tensor, parts in zip(op.outputs, results, strict=True))
        return [known[tensor.name] for tensor in graph.outputs]

    def _operation(self, op: Any, inputs: list[Parts | None], times: int) -> Sequence[Parts | None]:
        if op.type in _PRODUCTS:
            count, factors = _PRODUCTS[op.type]
            self.add([inputs[i] for i in factors], times * count(op))
        elif op.type in ("StatefulPartitionedCall", "PartitionedCall"):
            return self.walk(_function(op, op.get_attr("f")), inputs, times)
        elif op.type in ("If", "StatelessIf"):
            return self._branches(op, [op.get_attr("then_branch"), op.get_attr("else_branch")], inputs[1:], times)
        elif op.type in ("Case", "StatelessCase"):
            return self._branches(op, op.get_attr("branches"), inputs[1:], times)
        elif op.type in ("While", "StatelessWhile"):
            return self._loop(op, inputs, times)
        sources = inputs[:1] if op.type in _RESHAPING else inputs
        return [made_of(sources, joined=op.type in _JOINING)] * len(op.outputs)

    def _branches(self, op: Any, branches: Sequence[Any], inputs: list[Parts | None], times: int) -> list[Parts | None]:
        """The costliest branch counts."""
        counts = [_Graph(self.layers) for _ in branches]
        for own, branch in zip(counts, branches, strict=True):
            own.walk(_function(op, branch), inputs, times)
        self.add_costliest(counts)
        return [None] * len(op.outputs)

    def _loop(self, op: Any, inputs: list[Parts | None], times: int) -> list[Parts | None]:
        body = _function(op, op.get_attr("body"))
        changes = [after is not before for before, after in zip(body.inputs, body.outputs, strict=True)]
        kept = [None if changed else parts for parts, changed in zip(inputs, changes, strict=True)]
        steps, once = _static(op.inputs[1]), _Graph(self.layers)
        once.walk(body, kept)
        for name, multiply_adds in once.by_name.items():
            if steps is None:
                raise ValueError(
                    f"model multiplies with {name!r} in a while loop, whose number of steps is unknown: give the loop "
                    "its maximum_iterations as a Python number."
                )
            self.by_name[name] += times * steps * multiply_adds
        return kept


def _matmul(op: Any) -> int:
    transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
    contracted = op.inputs[0].shape[-2 if transposed else -1]
    return int(math.prod(op.outputs[0].shape) * contracted)


def _einsum(op: Any) -> int:
    """The size of the output times the sizes of what is summed over (which is no part of an ellipsis)."""
    terms, _, result = op.get_attr("equation").decode().partition("->")
    summed: dict[str, int] = {}
    for term, tensor in zip(terms.split(","), op.inputs, strict=True):
        before, _, after = term.partition("...")
        axes = [*enumerate(before), *enumerate(after, start=-len(after))]
        summed |= {letter: tensor.shape[axis] for axis, letter in axes if letter not in result}
    return int(math.prod(op.outputs[0].shape) * math.prod(summed.values()))


def _convolution(op: Any) -> int:
    """Every weight at every output, or, in a transposed convolution, at every input."""
    places = op.inputs[2] if "Backprop" in op.type else op.outputs[0]
    for consumer in op.outputs[0].consumers():
        if consumer.type == "BatchToSpaceND":  # a dilated convolution, by parts that are padded to the same size
            places = consumer.outputs[0]
    channels = op.get_attr("data_format").decode().index("C")
    return int(math.prod(places.shape) // places.shape[channels] * math.prod(op.inputs[1].shape))


_PRODUCTS: Mapping[str, tuple[Callable[[Any], int], tuple[int, ...]]] = {
    "MatMul": (_matmul, (1, 0)),
    "BatchMatMul": (_matmul, (1, 0)),
    "BatchMatMulV2": (_matmul, (1, 0)),
    "Einsum": (_einsum, (1, 0)),
    "Conv2D": (_convolution, (1, 0)),
    "Conv3D": (_convolution, (1, 0)),
    "DepthwiseConv2dNative": (_convolution, (1, 0)),
    "Conv2DBackpropInput": (_convolution, (1, 2)),
    "Conv3DBackpropInputV2": (_convolution, (1, 2)),
}
"""Multiply-adds by type of operation, and which of its inputs are multiplied, the likelier weight first."""

_JOINING = ("ConcatV2", "Pack")

_RESHAPING = ("Reshape", "BroadcastTo", "Tile", "Slice", "StridedSlice")
"""Only their first input has values that matter; the others are sizes and places."""


def _function(op: Any, called: Any) -> Any:
    """The graph of a function that an operation calls. TensorFlow has no public way to it."""
    return op.graph._get_function(called.name).graph


def _needed(graph: Any) -> set[str]:
    """The operations that the results come from; Keras's recurrent layers trace a step that is not used."""
    needed: set[str] = set()
    waiting = [tensor.op for tensor in graph.outputs]
    while waiting:
        op = waiting.pop()
        if op.name not in needed:
            needed.add(op.name)
            waiting.extend(tensor.op for tensor in op.inputs)
    return needed


def _static(tensor: Any) -> int | None:
    """The value of a whole number, if the graph tells it; Keras takes the maximum over a single one."""
    value = tf.get_static_value(tensor)
    if value is None and tensor.op.type == "Max":
        value = tf.get_static_value(tensor.op.inputs[0])
    return int(value) if value is not None and value.ndim == 0 and value >= 0 else None


def _is_weight(variable: Any) -> bool:
    return (
        len(variable.shape) >= 2
        and tf.as_dtype(variable.dtype).name in errors.DTYPES
        and variable.name not in ("bias", "gamma", "beta")
    )
