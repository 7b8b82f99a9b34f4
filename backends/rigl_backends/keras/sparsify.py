"""`sparsify` for Keras on JAX and on PyTorch: an optimizer for ``fit()`` and for loops of your own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from rigl_backends.keras.optimizer import SparseOptimizer
from rigl_backends.keras.state import check_offered, check_optimizer
from rigl_backends.keras_common.planned import plan
from rigl_backends.keras_common.variables import check_keras, variables_of
from rigl_core.adapter import Axes, Fused, Layer, Recipe, Stacked, check_pattern_list, errors


def sparsify(
    optimizer: keras.optimizers.Optimizer,
    recipe: Recipe,
    *,
    model: keras.layers.Layer | None = None,
    layers: Sequence[Layer] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    axes: Axes | None = None,
    stacked: Stacked | None = None,
    fused: Fused | None = None,
) -> SparseOptimizer:
    """An optimizer that trains sparsely, with ``optimizer`` for its gradient steps.

    It does what `rigl_backends.tf.sparsify` does, for the methods that need masks alone: RigL, SET, Static and pruning
    ramps, with Keras's own optimizers. Put a `keras.optimizers.LossScaleOptimizer` outside.

    What other code writes outside the masks is zeroed at the first step, at every step whose number is a multiple of
    100, at each update and at the end of ``fit()``. After ``fit()`` and at ``masks``, at ``table`` and when the
    optimizer is saved, a `SparsityWarning` tells of it.

    Args:
        optimizer: of Keras, new, not yet wrapped; without accumulation of gradients, and without ``use_ema``.
        recipe: how to train sparsely, such as ``rigl_core.RigL(0.9, schedule=...)``.
        model: a built model. It tells exactly what each variable is, and becomes sparse at once. Without it, paths of
            variables tell, and the weights become sparse when the optimizer is built.
        layers: exactly the layers to sparsify, in place of ``model`` and the patterns.
        include: name patterns of variables to sparsify besides the default ones.
        exclude: name patterns of variables to leave alone, outside every count.
        axes: in and out axes by name pattern.
        stacked: the axis, or axes, along which layers are stacked, by name pattern, such as ``{"layers/*": 0}``. Each
            slice then chooses, and gets its share of the budget, as a layer of its own.
        fused: the number of equal parts of the out axis that choose in the same way, each on its own, by name pattern;
            for another axis, give (axis, parts).

    Returns:
        A Keras optimizer that is also the handle: masks, step, table and plan. The recipe is saved with it.

    Raises:
        TypeError, ValueError: naming the parameter; nothing has been changed then.
    """
    check_optimizer(optimizer)
    check_offered(recipe)
    include, exclude = check_pattern_list("include", include), check_pattern_list("exclude", exclude)
    choice: dict[str, Any] = {"include": include, "exclude": exclude, "axes": axes}
    choice |= {"stacked": stacked, "fused": fused}
    if layers is not None and (model is not None or any(choice.values())):
        raise errors.too_many_choices("model", *choice)
    if model is None:
        return SparseOptimizer(optimizer, recipe, layers=layers, **choice)
    check_keras("model", model, keras.layers.Layer, "keras.Model")
    planned = plan(model, recipe, **choice)
    sparse = SparseOptimizer(optimizer, recipe, layers=planned.layers)
    sparse.__dict__["_others"] = planned.others
    sparse.build(variables_of(model))
    return sparse
