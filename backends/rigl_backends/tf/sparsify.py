"""`sparsify` for TensorFlow: an optimizer for ``fit()`` and for loops of your own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from rigl_backends.tf.layers import layers_of, variables_of
from rigl_backends.tf.optimizer import SparseOptimizer
from rigl_core.adapter import Axes, Layer, Plan, Recipe, check_pattern_list, check_recipe, errors, make_plan


def plan(
    model: keras.layers.Layer | Sequence[Any],
    recipe: Recipe,
    *,
    layers: Sequence[Layer] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    axes: Axes | None = None,
) -> Plan:
    """The plan that `sparsify` would make of this model; nothing is changed. Print it to see the layers.

    Args:
        model: a built model, or the variables that the optimizer would be built with.
        recipe: how to train sparsely.
        layers: as for `sparsify`; so are ``include``, ``exclude`` and ``axes``.

    Raises:
        TypeError, ValueError: naming the parameter.
    """
    return make_plan(recipe, layers_of(model, layers, include, exclude, axes))


def sparsify(
    optimizer: keras.optimizers.Optimizer,
    recipe: Recipe,
    *,
    model: keras.layers.Layer | None = None,
    layers: Sequence[Layer] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    axes: Axes | None = None,
    scores: Mapping[str, Any] | None = None,
) -> SparseOptimizer:
    """An optimizer that trains sparsely, with ``optimizer`` for its gradient steps.

    It takes dense gradients. On ordinary steps the inner optimizer's clipping sees the gradient of the
    active weights only; an update takes the place of a gradient step, in which the inner optimizer stands
    still. Put a `keras.optimizers.LossScaleOptimizer` outside.

    What you write into weights or the optimizer's state outside the masks, such as a checkpoint of a dense model, is
    zeroed: by the first step, or by the next one whose number is a multiple of 100; or by any step, if the optimizer
    does not work element by element, as SGD and Adam do. Where XLA compiles these, it stays until the next update.

    Layers are called by the paths of their variables, such as ``sequential/dense/kernel``. Random choices
    depend on these names: give the layers names of your own for topologies that can be drawn again.

    Args:
        optimizer: any Keras optimizer, not yet wrapped.
        recipe: how to train sparsely, such as ``rigl_core.RigL(0.9, schedule=...)``.
        model: a built model. It tells exactly what each variable is, and becomes sparse at once. Without it,
            the paths of the variables decide when the optimizer is built, and then the model becomes sparse.
        layers: exactly the layers to sparsify, instead, named as the variables are.
        include: name patterns of variables to sparsify besides the default ones (see `choose_layers`), for example
            embeddings.
        exclude: name patterns of variables to leave alone, outside every count.
        axes: in and out axes by name pattern, where neither model nor paths tell.
        scores: arrays by layer name that choose the initial topology, for recipes that ask for them (GraSP, SynFlow,
            lottery tickets; see `grasp_scores` and `synflow_scores`).

    Returns:
        A Keras optimizer that is also the handle: masks, step, table and plan.

    Raises:
        TypeError, ValueError: naming the parameter; nothing has been changed then.
    """
    _check_optimizer(optimizer)
    check_recipe(recipe)
    include, exclude = check_pattern_list("include", include), check_pattern_list("exclude", exclude)
    if layers is not None and (model is not None or include or exclude or axes):
        raise errors.too_many_choices("model", "include", "exclude", "axes")
    if model is None:
        choice: dict[str, Any] = {"layers": layers, "include": include, "exclude": exclude, "axes": axes}
        return SparseOptimizer(optimizer, recipe, scores=scores, **choice)
    if not isinstance(model, keras.layers.Layer):
        raise errors.wrong_type("model", model, "keras.Model")
    chosen = layers_of(model, None, include, exclude, axes)
    sparse = SparseOptimizer(optimizer, recipe, layers=chosen, scores=scores)
    sparse.build(variables_of(model))
    return sparse


def _check_optimizer(optimizer: object) -> None:
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise errors.wrong_type("optimizer", optimizer, "keras.optimizers.Optimizer")
    if isinstance(optimizer, SparseOptimizer):
        raise errors.already_sparsified("optimizer")
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "optimizer is a LossScaleOptimizer, whose gradients are scaled: put it outside, as "
            "LossScaleOptimizer(sparsify(optimizer, recipe))."
        )
    for inner in getattr(optimizer, "optimizers", ()):
        if inner.gradient_accumulation_steps:
            raise ValueError(
                "optimizer accumulates gradients in one of its optimizers only, which leaves the topology without "
                "a common step: remove gradient_accumulation_steps."
            )
