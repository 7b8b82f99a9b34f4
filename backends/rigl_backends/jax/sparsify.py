"""`sparsify` for JAX: an optax transformation around another one."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import optax
from jax.typing import ArrayLike

from rigl_backends.jax.layers import Axes, check_choice, layers_of
from rigl_backends.jax.training import SparseTraining
from rigl_backends.jax.trees import Tree
from rigl_core.model.layers import Layer
from rigl_core.recipe import Recipe
from rigl_core.step import errors


def sparsify(
    inner: optax.GradientTransformation | optax.MultiSteps,
    recipe: Recipe,
    *,
    layers: Sequence[Layer] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    axes: Axes | None = None,
    scores: Mapping[str, ArrayLike] | None = None,
    callbacks: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """An optax transformation that trains sparsely, whatever ``inner`` does with the gradients.

    ``update`` takes the dense gradients and the parameters; ``optax.apply_updates`` then keeps every
    weight outside the topology at zero. After ``init`` the parameters need their initial masks, once::

        tx = rigl_backends.jax.sparsify(optax.adamw(1e-3), recipe)
        opt_state = tx.init(params)
        params = rigl_backends.jax.apply_masks(params, opt_state)

    If that was forgotten, the first ``update`` raises when it runs outside ``jit``; inside, it zeroes
    these weights, and `masks`, `step` and `table` raise afterwards. Where a weight itself has become NaN or
    infinite, no update can make it zero; `apply_masks` does.

    Clipping belongs inside (``sparsify(optax.chain(clip, adam), recipe)``), where it sees the gradient of
    the active weights only, and so does all else that makes updates: nothing may change them afterwards.
    With ``optax.MultiSteps``, inside or outside, a step is one of the accumulated gradient:
    ``sparsify(MultiSteps(adam, 4), recipe)`` is read as ``MultiSteps(sparsify(adam, recipe), 4)``.

    Args:
        inner: any optax transformation whose per-weight state has the parameters' tree structure and
            shapes, also inside chain, masked, inject_hyperparams and the like.
        recipe: how to train sparsely, such as ``rigl_core.RigL(0.9, schedule=...)``.
        layers: which arrays to sparsify, in the order in which the plan shares the budget; by default
            those of `rigl_backends.jax.layers.choose_layers`.
        include: name patterns of arrays to sparsify besides the default ones; only without ``layers``.
        exclude: name patterns of arrays to leave alone, outside every count; only without ``layers``.
        axes: in and out axes by name pattern, where conventions do not tell; only without ``layers``.
        scores: arrays by layer name that choose the initial topology, for recipes that ask for them (GraSP, SynFlow,
            lottery tickets; see `rigl_backends.jax.saliency`).
        callbacks: whether a compiled step on CPUs may call NumPy at updates, which makes them some three times as
            fast and compiles sooner. False for a program to export, or to keep in JAX's compilation cache.

    Returns:
        A transformation whose state is a `rigl_backends.jax.SparseState`.

    Raises:
        TypeError, ValueError: naming the parameter; for what depends on the parameters, at ``init``.
    """
    if not (callable(getattr(inner, "init", None)) and callable(getattr(inner, "update", None))):
        raise errors.wrong_type("inner", inner, "optax.GradientTransformation")
    Recipe.check(recipe)
    check_choice(layers, include, exclude, axes)

    def choose(params: Tree) -> tuple[Layer, ...]:
        return layers_of(params, layers, include, exclude, axes)

    def training(inner: optax.GradientTransformation) -> SparseTraining:
        return SparseTraining(inner, recipe, choose, scores, callbacks=callbacks)

    multi_steps = getattr(inner.update, "__self__", None)  # also behind MultiSteps.gradient_transformation()
    if isinstance(multi_steps, optax.MultiSteps):
        return _with_inner(multi_steps, _transformation(training(multi_steps.inner_opt)))
    return _transformation(training(inner))


def _transformation(owner: SparseTraining | optax.MultiSteps) -> optax.GradientTransformationExtraArgs:
    return optax.GradientTransformationExtraArgs(owner.init, owner.update)


def _with_inner(multi_steps: optax.MultiSteps, inner: Any) -> optax.GradientTransformationExtraArgs:
    """The same accumulation in front of another optimizer."""
    accumulating = copy.copy(multi_steps)
    accumulating._opt = inner  # optax offers no public way
    assert accumulating.inner_opt is inner
    return _transformation(accumulating)
