"""`sparsify` for TensorFlow: an optimizer for ``fit()`` and for loops of your own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import keras

from rigl_backends.keras_common.layers import layers_of
from rigl_backends.keras_common.planned import plan as plan
from rigl_backends.keras_common.planned import plan_of
from rigl_backends.keras_common.variables import check_keras, variables_of
from rigl_backends.keras_common.wrapper import check_wrappable
from rigl_backends.tf.optimizer import SparseOptimizer
from rigl_backends.tf.storage import hold_active
from rigl_core.adapter import (
    Axes,
    Fused,
    Initial,
    Layer,
    Plan,
    Recipe,
    Stacked,
    Storage,
    check_pattern_list,
    check_recipe,
    errors,
    start_from,
)


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
    scores: Mapping[str, Any] | None = None,
    initial: Initial | None = None,
    changed: Collection[str] = (),
    storage: Storage = "masks",
) -> SparseOptimizer:
    """An optimizer that trains sparsely, with ``optimizer`` for its gradient steps.

    It takes dense gradients. On ordinary steps the inner optimizer's clipping sees the gradient of the
    active weights only; an update takes the place of a gradient step, in which the inner optimizer stands
    still. Put a `keras.optimizers.LossScaleOptimizer` outside.

    Weights that you restore apart from the topology, such as the best ones of `keras.callbacks.EarlyStopping` (use
    `rigl_backends.tf.EarlyStopping` in its place) or those of a dense model, may lie outside the masks. A
    `SparsityWarning` tells it at ``masks``, at ``table``, when the optimizer is saved, at the next eager step, and at
    the end of the next ``fit()``. An eager step then zeroes what lies outside. Compiled steps zero it, and make the
    optimizer's state fresh there, at the first step and at the next one whose number is a multiple of 100; or at every
    step, if the optimizer does not work element by element, as SGD and Adam do. Where XLA compiles these, it stays
    until the next update, which zeroes it; the next look tells what was found.

    Outside the masks, and for newly active weights, the optimizer's state is what the optimizer gives a new weight,
    such as 0.1 in Adagrad. An optimizer of your own may hold matrices in the shape of a square layer. To tell them
    from the state of single weights, it is made again from its configuration, and tried out on a small weight.

    Layers are called by the paths of their variables, such as ``sequential/dense/kernel``; in a loaded model, by its
    own. Random choices depend on the names at this time: give the layers names of your own for topologies that can be
    drawn again.

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
        stacked: the axis, or axes, along which layers are stacked, by name pattern, such as ``{"layers/*": 0}``. Each
            slice then chooses, and gets its share of the budget, as a layer of its own.
        fused: the number of equal parts of the out axis that choose in the same way, each on its own, by name pattern,
            such as ``{"*in_proj_weight": 3}``; for another axis, give (axis, parts).
        scores: arrays by layer name that choose the initial topology, for recipes that ask for them (GraSP, SynFlow,
            lottery tickets; see `grasp_scores` and `synflow_scores`).
        initial: the masks to begin with, in place of random ones: the path of a file of `rigl_core.storage`, a
            `rigl_core.storage.Topology`, or bool arrays by layer name. Masks of another framework are turned by the
            layers' axes. The recipe then has as many connections as they have; its sparsity may be left out.
            It needs ``model`` or ``layers``.
        changed: fields of the recipe that you changed on purpose since a state was saved, such as ``["schedule"]``. A
            state of another recipe is refused otherwise. If the plan has other counts now, the first step after loading
            brings the masks to them.
        storage: ``"masks"``, or ``"active"``: `keras.layers.Dense` and `keras.layers.Conv2D` layers of the model become
            `SparseDense` and `SparseConv2D`, in place, and hold only their active weights. It needs ``model``;
            ``layers`` may be given besides. The optimizer's state follows. Layers for which this is not possible or
            does not pay keep their masks, and a warning names them; to decide layer by layer, give a dict of both words
            by name pattern. Functions of your own that were traced before give NaN: trace them again. `resume` changes
            the storage later.

    Returns:
        A Keras optimizer that is also the handle: masks, step, table and plan. The recipe is saved with it.

    Raises:
        TypeError, ValueError: naming the parameter; nothing has been changed then.
    """
    _check_optimizer(optimizer)
    check_recipe(recipe)
    include, exclude = check_pattern_list("include", include), check_pattern_list("exclude", exclude)
    choice: dict[str, Any] = {"include": include, "exclude": exclude, "axes": axes, "stacked": stacked, "fused": fused}
    _check_choice(model, storage, layers, choice, initial)
    if model is not None:
        check_keras("model", model, keras.layers.Layer, "keras.Model")
        chosen = layers_of(model, layers, **choice)
        recipe, scores = start_from(recipe, chosen, initial, scores)
        planned = plan_of(model, recipe, chosen, layers)
        sparse = SparseOptimizer(optimizer, recipe, layers=planned.layers, scores=scores, changed=changed)
        return _built(sparse, planned, model, optimizer, storage, scores)
    recipe, scores = start_from(recipe, layers or (), initial, scores)
    return SparseOptimizer(optimizer, recipe, layers=layers, scores=scores, changed=changed, **choice)


def _built(
    sparse: SparseOptimizer,
    plan: Plan,
    model: keras.layers.Layer,
    inner: keras.optimizers.Optimizer,
    storage: Storage,
    scores: Mapping[str, Any] | None,
) -> SparseOptimizer:
    """The optimizer, and a model that is sparse."""
    sparse.__dict__["_others"] = plan.others
    variables = variables_of(model)
    hold_active(plan, model, variables, sparse.check_start(plan, variables), inner, storage, scores)
    sparse.build(variables)
    return sparse


def _check_choice(
    model: Any, storage: Storage, layers: Sequence[Layer] | None, choice: Mapping[str, Any], initial: Initial | None
) -> None:
    """Refuse ``layers`` beside other choices; with active weights, a model is needed, and may have them."""
    if storage != "masks" and model is None:
        raise ValueError("storage is not 'masks', and there is no model, whose layers would change: give model.")
    if layers is not None and (any(choice.values()) or (model is not None and storage == "masks")):
        raise errors.too_many_choices("model", *choice)
    if initial is not None and model is None and layers is None:
        raise ValueError("initial is given, and neither model nor layers, which its masks are for: give model.")


def _check_optimizer(optimizer: Any) -> None:
    check_wrappable(optimizer)
    for inner in getattr(optimizer, "optimizers", ()):
        if inner.gradient_accumulation_steps:
            raise ValueError(
                "optimizer accumulates gradients in one of its optimizers only, which leaves the topology without "
                "a common step: remove gradient_accumulation_steps."
            )
