"""Scores for topologies that are chosen once, before training, by a model's own derivatives: GraSP and SynFlow.

Give them to ``sparsify``, with a recipe that asks for them::

    scores = grasp_scores(lambda params: loss(model.apply(params, images), labels), params)
    tx = sparsify(optax.adam(1e-3), rigl_core.GraSP(0.9), scores=scores)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array

from rigl_backends.jax.layers import layers_of
from rigl_backends.jax.trees import Tree, is_floating, named_leaves, shape_of, with_leaves
from rigl_core.adapter import Axes, Layer, check_layers, prune_in_rounds


def grasp_scores(
    loss: Callable[[Tree], Array],
    params: Tree,
    *,
    layers: Sequence[Layer] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    axes: Axes | None = None,
) -> dict[str, Array]:
    """weight * (Hessian times gradient): how much the gradient flow needs each connection (Wang et al. 2020).

    What has the largest is kept: to first order, removing a weight changes the squared norm of the gradient by
    -2 * weight * Hg. The paper's own score is -weight * Hg (equation 8), of which it removes the largest. Gradient
    and Hessian are those of the layers' weights, as in the published code.

    Args:
        loss: a scalar of the parameters, on one batch (in the published code, of ten examples of each class, with
            logits divided by 200). Bind all else before, such as the statistics of batch-norm.
        params: any pytree of arrays; it stays as it is.
        layers: which arrays to score, as for `sparsify`.
        include: name patterns of arrays to score besides the default ones, as for `sparsify`.
        exclude: name patterns of arrays not to score, as for `sparsify`.
        axes: in and out axes by name pattern, as for `sparsify`.

    Returns:
        By layer name, in the layer's shape and dtype.

    Raises:
        TypeError, ValueError: naming the parameter.
    """
    weights = _weights(params, layers_of(params, layers, include, exclude, axes))

    @jax.jit
    def scores(weights: dict[str, Array]) -> dict[str, Array]:
        gradient = jax.grad(lambda weights: loss(with_leaves(params, weights)))
        _, products = jax.jvp(gradient, (weights,), (gradient(weights),))
        return {name: weight * products[name] for name, weight in weights.items()}

    found: dict[str, Array] = scores(weights)
    return found


def synflow_scores(
    apply: Callable[..., Any],
    params: Tree,
    *inputs: Any,
    sparsity: float,
    rounds: int = 100,
    layers: Sequence[Layer] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    axes: Axes | None = None,
) -> dict[str, npt.NDArray[np.float64]]:
    """|weight| * d flow / d |weight|, pruned in rounds (Tanaka et al. 2020, algorithm 1).

    The flow is the sum of the network's outputs for an input of ones, where all parameters count by their
    magnitudes; in float64, for flows are large, unless the model insists on another dtype.

    Args:
        apply: called as ``apply(params, *inputs)``. Bind everything else before, such as the statistics of
            batch-norm, which are to be used and not to be changed, and at best without signs.
        params: any pytree of arrays; it stays as it is.
        *inputs: pytrees of arrays (or of their shapes and dtypes). Of floating-point arrays only the shapes count:
            one example is enough.
        sparsity: of the recipe, over all layers that share its budget: exclude those that it pins.
        rounds: of pruning; the paper takes 100.
        layers: which arrays to score, as for `sparsify`.
        include: name patterns of arrays to score besides the default ones, as for `sparsify`.
        exclude: name patterns of arrays not to score, as for `sparsify`.
        axes: in and out axes by name pattern, as for `sparsify`.

    Returns:
        By layer name, in the layer's shape, as shares of the largest; -1 where the rounds have pruned.

    Raises:
        TypeError, ValueError: naming the parameter; also if the flow is too large even for float64.
    """
    weights = _weights(params, layers_of(params, layers, include, exclude, axes))
    with jax.enable_x64(True):
        ones, positive = jax.tree.map(_as_ones, inputs), jax.tree.map(_as_magnitudes, params)
        magnitudes = {name: np.asarray(_as_magnitudes(weight)) for name, weight in weights.items()}

        @jax.jit
        @jax.value_and_grad
        def flow_and_slopes(weights: dict[str, Array]) -> Array:
            outputs = jax.tree.leaves(apply(with_leaves(positive, weights), *ones))
            return jnp.sum(jnp.stack([jnp.sum(output) for output in outputs]))

        def scores(masks: Mapping[str, npt.NDArray[np.bool_]]) -> dict[str, npt.NDArray[np.float64]]:
            seen = {name: np.where(mask, magnitudes[name], 0) for name, mask in masks.items()}
            flow, slopes = flow_and_slopes(seen)
            if not np.isfinite(flow):
                raise ValueError("params has a flow that is no finite number: scale it down before synflow_scores.")
            return {name: np.abs(seen[name] * np.asarray(slopes[name])) for name in seen}

        shapes = {name: shape_of(weight) for name, weight in weights.items()}
        pruned = prune_in_rounds(scores, shapes, sparsity, rounds)
    largest = max((values.max(initial=0) for values in pruned.values()), default=0) or 1
    return {name: np.where(values < 0, values, values / largest) for name, values in pruned.items()}


def _weights(params: Tree, layers: Sequence[Layer]) -> dict[str, Array]:
    """The arrays to score, by layer name."""
    arrays = named_leaves(params)
    return {layer.name: jnp.asarray(arrays[layer.name]) for layer in check_layers(layers)}


def _as_ones(value: Any) -> Any:
    return jnp.ones(value.shape, jnp.float64) if is_floating(value) else value


def _as_magnitudes(leaf: Any) -> Any:
    return jnp.abs(jnp.asarray(leaf, jnp.float64)) if is_floating(leaf) else leaf
