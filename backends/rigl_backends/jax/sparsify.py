"""`sparsify` for JAX, an optax transformation around another one, and `plan`."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optax
from jax.typing import ArrayLike

from rigl_backends.jax.handle import apply_masks
from rigl_backends.jax.layers import check_choice, layers_of, other_sizes
from rigl_backends.jax.storage import check_storage
from rigl_backends.jax.transformation import SparseTraining
from rigl_backends.jax.trees import Tree
from rigl_core.adapter import (
    Axes,
    Fused,
    Initial,
    Layer,
    Plan,
    Recipe,
    Stacked,
    Storage,
    check_recipe,
    errors,
    make_plan,
    read_initial,
)


def sparsify(
    inner: optax.GradientTransformation | optax.MultiSteps,
    recipe: Recipe,
    *,
    layers: Sequence[Layer] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    axes: Axes | None = None,
    stacked: Stacked | None = None,
    fused: Fused | None = None,
    scores: Mapping[str, ArrayLike] | None = None,
    initial: Initial | None = None,
    callbacks: bool = True,
    storage: Storage = "masks",
) -> optax.GradientTransformationExtraArgs:
    """An optax transformation that trains sparsely, whatever ``inner`` does with the gradients.

    ``update`` takes the dense gradients and the parameters; ``optax.apply_updates`` then keeps every
    weight outside the topology at zero. After ``init`` the parameters need their initial masks, once::

        tx = rigl_backends.jax.sparsify(optax.adamw(1e-3), recipe)
        opt_state = tx.init(params)
        params = rigl_backends.jax.apply_masks(params, opt_state)

    Weights outside the masks, as without this line or after restoring weights alone, are an error in each ``update``
    outside ``jit``. Inside, the first ``update`` and those that move the topology notice them, and `masks`, `step` and
    `table` raise afterwards; other steps zero them. Where a weight has become NaN or infinite, no update can make it
    zero; `apply_masks` does. In the same way a state of another recipe is refused; see `resume`.

    Clipping belongs inside (``sparsify(optax.chain(clip, adam), recipe)``), where it sees the gradient of
    the active weights only, and so does all else that makes updates: nothing may change them afterwards.
    With ``optax.MultiSteps``, inside or outside, a step is one of the accumulated gradient:
    ``sparsify(MultiSteps(adam, 4), recipe)`` is read as ``MultiSteps(sparsify(adam, recipe), 4)``.
    ``optax.contrib.sam`` belongs outside, with ``opaque_mode=True``. So does ``optax.lookahead``, whose slow weights
    would bring dropped weights back: mask both after every step::

        params = optax.LookaheadParams(*(rigl_backends.jax.apply_masks(p, opt_state) for p in params))

    Outside the masks, and for grown connections, the optimizer's state is what ``inner.init`` gives such weights: 0 for
    Adam, 0.1 for Adagrad (see `rigl_backends.jax.state`). A layer whose updates ``inner`` sets to zero, as
    ``optax.set_to_zero`` does in ``multi_transform``, keeps its topology.

    Survivors of an update keep their bits, with one exception: where XLA's addition takes subnormal numbers for zeros,
    as on CPUs, ``optax.apply_updates`` makes zeros of subnormal weights.

    Args:
        inner: any first-order optax transformation, also inside chain, masked, inject_hyperparams and the like.
        recipe: how to train sparsely, such as ``rigl_core.RigL(0.9, schedule=...)``.
        layers: which arrays to sparsify, in the order in which the plan shares the budget; by default
            those of `choose_layers`.
        include: name patterns of arrays to sparsify besides the default ones; only without ``layers``.
        exclude: name patterns of arrays to leave alone, outside every count; only without ``layers``.
        axes: in and out axes by name pattern, where conventions do not tell; only without ``layers``.
        stacked: the axis, or axes, along which layers are stacked, by name pattern, such as ``{"layers/*": 0}``. Each
            slice then chooses, and gets its share of the budget, as a layer of its own; only without ``layers``.
        fused: the number of equal parts of the out axis that choose in the same way, each on its own, by name pattern,
            such as ``{"*in_proj_weight": 3}``; for another axis, give (axis, parts). Only without ``layers``.
        scores: arrays by layer name that choose the initial topology, for recipes that ask for them (GraSP, SynFlow,
            lottery tickets; see `grasp_scores` and `synflow_scores`).
        initial: the masks to begin with, in place of random ones: the path of a file of `rigl_core.storage`, a
            `rigl_core.storage.Topology`, or bool arrays by layer name. Masks of another framework are turned by the
            layers' axes. The recipe then has as many connections as they have; its sparsity may be left out.
        callbacks: whether a compiled step on a CPU may call NumPy at updates, which makes them some three times as
            fast and compiles sooner. False for a program to export, or to keep in JAX's compilation cache. Where JAX
            has several devices, no step does: a call would gather shards.
        storage: ``"masks"``, or ``"active"``: matrices and two-dimensional convolutions hold only their active weights,
            on CPUs. `apply_masks` puts an `ActiveWeight` in place of the dense array, and the model calls
            `sparse_linear` or `sparse_conv` with it. Layers for which this is not possible or does not pay keep their
            masks, and a warning names them; to decide layer by layer, give a dict of both words by name pattern.

    Returns:
        A transformation whose state is a `rigl_backends.jax.SparseState`.

    Raises:
        TypeError, ValueError: naming the parameter; for what depends on the parameters, at ``init``.
    """
    if not (callable(getattr(inner, "init", None)) and callable(getattr(inner, "update", None))):
        raise errors.wrong_type("inner", inner, "optax.GradientTransformation")
    check_recipe(recipe)
    check_choice(layers, include, exclude, axes, stacked, fused)
    check_storage(recipe, storage, callbacks=callbacks)
    given = read_initial(initial)

    choice: dict[str, Any] = {"layers": layers, "include": include, "exclude": exclude, "axes": axes}
    choose = functools.partial(layers_of, stacked=stacked, fused=fused, **choice)

    def sparse(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
        training = SparseTraining(
            inner, recipe, choose, scores, callbacks, storage, chooses=layers is None, initial=given
        )
        return optax.GradientTransformationExtraArgs(training.init, training.update)

    multi_steps = getattr(inner.update, "__self__", None)  # also behind MultiSteps.gradient_transformation()
    return _accumulating(multi_steps, sparse, storage) if isinstance(multi_steps, optax.MultiSteps) else sparse(inner)


def _accumulating(
    multi_steps: optax.MultiSteps,
    sparse: Callable[[optax.GradientTransformation], optax.GradientTransformationExtraArgs],
    storage: Storage,
) -> optax.GradientTransformationExtraArgs:
    """MultiSteps around the sparse transformation, in place of one inside of it."""
    accumulating = copy.copy(multi_steps)
    accumulating._opt = sparse(multi_steps.inner_opt)  # optax offers no public way
    assert accumulating.inner_opt is accumulating._opt
    if storage == "masks":
        return optax.GradientTransformationExtraArgs(accumulating.init, accumulating.update)

    def init(params: Tree) -> optax.MultiStepsState:
        """With gradients to be accumulated of the size that those of active weights have."""
        return accumulating.init(apply_masks(params, accumulating._opt.init(params)))

    return optax.GradientTransformationExtraArgs(init, accumulating.update)


def plan(
    params: Tree,
    recipe: Recipe,
    *,
    layers: Sequence[Layer] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    axes: Axes | None = None,
    stacked: Stacked | None = None,
    fused: Fused | None = None,
) -> Plan:
    """The plan of a recipe for a model, before anything is changed. ``print(plan(params, recipe))`` shows a table.

    Args:
        params: any pytree of arrays (or of their shapes and dtypes); it stays as it is.
        recipe: as for `sparsify`.
        layers: as for `sparsify`; so are ``include``, ``exclude``, ``axes``, ``stacked`` and ``fused``.

    Returns:
        The plan that a training has after ``sparsify(inner, recipe, ...).init(params)``.

    Raises:
        TypeError, ValueError: as for `sparsify` and its ``init``, naming the parameter.
    """
    check_recipe(recipe)
    chosen = layers_of(params, layers, include, exclude, axes, stacked, fused)
    return make_plan(recipe, chosen, other_sizes(params, chosen) if layers is None else None)
