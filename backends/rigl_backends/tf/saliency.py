"""Scores for topologies that are chosen once, before training, by a model's own derivatives: GraSP and SynFlow.

Give them to ``sparsify``, with a recipe that asks for them::

    scores = grasp_scores(model, keras.losses.SparseCategoricalCrossentropy(from_logits=True), images, labels)
    optimizer = sparsify(keras.optimizers.Adam(), rigl_core.GraSP(0.9), model=model, scores=scores)

Both leave a model as it was: weights, statistics of batch norms, counters, random states and dtypes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from rigl_backends.keras_common.layers import find_layers, layers_of
from rigl_backends.tf.active_kernel import check_dense
from rigl_backends.tf.namespace import widen
from rigl_core.adapter import Layer, decimal, errors, prune_in_rounds

Scores = dict[str, npt.NDArray[Any]]


def grasp_scores(
    model: keras.layers.Layer,
    loss: Callable[[Any, Any], Any],
    inputs: Any,
    targets: Any,
    *,
    temperature: float = 1.0,
    training: bool = True,
    layers: Sequence[Layer] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> Scores:
    """weight * (Hessian times gradient): how much the gradient flow needs each connection (Wang et al. 2020).

    What has the largest is kept: to first order, removing a weight changes the squared norm of the gradient by
    -2 * weight * Hg. The paper's own score is -weight * Hg (equation 8), of which it removes the largest. Gradient
    and Hessian are those of the layers' weights, as in the published code.

    Args:
        model: a built model.
        loss: of ``(targets, outputs)``, such as `keras.losses.CategoricalCrossentropy`; of several numbers the mean.
        inputs: of one batch: what the model is called with. The published code takes ten examples of each class.
        targets: of that batch.
        temperature: divides the outputs; 200 in the published code. With 1 they may be anything that ``loss`` takes.
        training: the mode in which the model is to run.
        layers: exactly the layers to score, named as the variables are.
        include: name patterns of variables to score besides the default ones, as for `sparsify`.
        exclude: name patterns of variables not to score, as for `sparsify`.

    Returns:
        By layer name, in the layer's shape and dtype (float32 for 16-bit weights).

    Raises:
        TypeError, ValueError: naming the parameter.
    """
    chosen, variables = _choose(model, layers, include, exclude)
    if decimal(temperature, "temperature") <= 0:
        raise ValueError(f"temperature is {temperature}: it must be positive.")
    weights = [tf.identity(variable.value) for variable in variables]
    with tf.GradientTape() as outer:
        outer.watch(weights)
        with tf.GradientTape() as inner:
            inner.watch(weights)
            with keras.StatelessScope(zip(variables, weights, strict=True)):
                outputs = model(inputs, training=training)
            mean = tf.reduce_mean(loss(targets, outputs if temperature == 1 else outputs / temperature))
        gradients = [widen(gradient) for gradient in _derivatives(inner, mean, weights)]
        norm = tf.add_n([tf.reduce_sum(gradient * tf.stop_gradient(gradient)) for gradient in gradients])
    products = _derivatives(outer, norm, weights)
    return {layer.name: (widen(w) * widen(hg)).numpy() for layer, w, hg in zip(chosen, weights, products, strict=True)}


def synflow_scores(
    model: keras.layers.Layer,
    inputs: Any,
    sparsity: float,
    *,
    rounds: int = 100,
    layers: Sequence[Layer] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> Scores:
    """|weight| * d flow / d |weight|, pruned in rounds (Tanaka et al. 2020, algorithm 1).

    The flow is the sum of the outputs for inputs of ones. As in the published code, all variables count by their
    magnitudes, in inference mode and float64: the flow of a deep model is large.

    Args:
        model: a built model.
        inputs: what the model is called with. Of floating-point arrays only the shapes count: one example is enough.
        sparsity: of the recipe, over all layers that share its budget: exclude those that it pins.
        rounds: of pruning; the paper takes 100.
        layers: exactly the layers to score, named as the variables are.
        include: name patterns of variables to score besides the default ones, as for `sparsify`.
        exclude: name patterns of variables not to score, as for `sparsify`.

    Returns:
        Float64 by layer name, in the layer's shape; -1 where the rounds have pruned.

    Raises:
        TypeError, ValueError: naming the parameter; also if the flow is too large even for float64.
    """
    chosen, variables = _choose(model, layers, include, exclude)
    ones = tf.nest.map_structure(_as_ones, inputs)
    names = {id(variable): layer.name for layer, variable in zip(chosen, variables, strict=True)}
    floating = [variable for variable in model.variables if tf.as_dtype(variable.dtype).is_floating]
    magnitudes = [tf.abs(tf.cast(variable.value, tf.float64)) for variable in floating]

    def scores(masks: Mapping[str, npt.NDArray[np.bool_]]) -> Scores:
        own = [masks.get(names.get(id(variable), "")) for variable in floating]
        values = [a if mask is None else tf.where(mask, a, 0.0) for a, mask in zip(magnitudes, own, strict=True)]
        flow = _flow(model, ones, floating, values)
        return {
            names[id(variable)]: score for variable, score in zip(floating, flow, strict=True) if id(variable) in names
        }

    with _in_float64(model):
        return prune_in_rounds(scores, {layer.name: layer.shape for layer in chosen}, sparsity, rounds)


def _choose(
    model: Any, layers: Sequence[Layer] | None, include: Sequence[str], exclude: Sequence[str]
) -> tuple[Sequence[Layer], list[Any]]:
    """The layers, and their variables, as `sparsify` chooses them."""
    if not isinstance(model, keras.layers.Layer):
        raise errors.wrong_type("model", model, "keras.Model")
    check_dense(model)
    chosen = layers_of(model, layers, include, exclude, None)
    return chosen, [model.trainable_variables[i] for i in find_layers(chosen, model.trainable_variables)]


def _flow(
    model: keras.layers.Layer, ones: Any, variables: Sequence[Any], values: Sequence[tf.Tensor]
) -> list[npt.NDArray[np.float64]]:
    """|value * d flow / d value| of each variable, with the sum of all outputs for the flow."""
    with tf.GradientTape() as tape:
        tape.watch(values)
        with keras.StatelessScope(zip(variables, values, strict=True)):
            outputs = tf.nest.flatten(model(ones, training=False))
        flow = tf.add_n([tf.reduce_sum(tf.cast(output, tf.float64)) for output in outputs])
    if not tf.math.is_finite(flow):
        raise ValueError("model has a flow that float64 cannot hold: scale its weights down before synflow_scores.")
    slopes = _derivatives(tape, flow, values)
    return [tf.abs(value * slope).numpy() for value, slope in zip(values, slopes, strict=True)]


def _derivatives(tape: tf.GradientTape, value: tf.Tensor, weights: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The derivatives of a scalar by each weight, as arrays; zeros where it does not depend."""
    return [tf.convert_to_tensor(slope) for slope in tape.gradient(value, weights, unconnected_gradients="zero")]


def _as_ones(values: Any) -> tf.Tensor:
    values = tf.convert_to_tensor(values)
    return tf.ones_like(values) if values.dtype.is_floating else values


@contextlib.contextmanager
def _in_float64(model: keras.layers.Layer) -> Iterator[None]:
    """While this lasts, a model computes in float64; its variables are to be lent in float64, too."""
    dtypes = [(variable, "_dtype", variable._dtype) for variable in model.variables]
    policies = [(layer, "_dtype_policy", layer._dtype_policy) for layer in model._flatten_layers()]
    try:
        for variable, attribute, dtype in dtypes:
            setattr(variable, attribute, "float64" if tf.as_dtype(dtype).is_floating else dtype)
        for layer, attribute, _ in policies:
            setattr(layer, attribute, keras.DTypePolicy("float64"))
        yield
    finally:
        for owner, attribute, value in (*dtypes, *policies):
            setattr(owner, attribute, value)
