"""`sparsify` for JAX, an optax transformation around another one, and `plan`."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from jax import Array
from jax.typing import ArrayLike

from rigl_backends.jax import namespace
from rigl_backends.jax.handle import SparseState, check_arrays
from rigl_backends.jax.layer import Memory, start_pool
from rigl_backends.jax.layers import check_choice, layers_of
from rigl_backends.jax.namespace import calling_namespace
from rigl_backends.jax.state import check_inner, zero_state_outside
from rigl_backends.jax.training import SparseStep
from rigl_backends.jax.trees import Tree, named_leaves
from rigl_core.adapter import NEVER, Axes, Clock, Layer, Plan, Recipe, check_recipe, errors, make_plan, random_key_table


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
            those of `choose_layers`.
        include: name patterns of arrays to sparsify besides the default ones; only without ``layers``.
        exclude: name patterns of arrays to leave alone, outside every count; only without ``layers``.
        axes: in and out axes by name pattern, where conventions do not tell; only without ``layers``.
        scores: arrays by layer name that choose the initial topology, for recipes that ask for them (GraSP, SynFlow,
            lottery tickets; see `grasp_scores` and `synflow_scores`).
        callbacks: whether a compiled step on CPUs may call NumPy at updates, which makes them some three times as
            fast and compiles sooner. False for a program to export, or to keep in JAX's compilation cache.

    Returns:
        A transformation whose state is a `rigl_backends.jax.SparseState`.

    Raises:
        TypeError, ValueError: naming the parameter; for what depends on the parameters, at ``init``.
    """
    if not (callable(getattr(inner, "init", None)) and callable(getattr(inner, "update", None))):
        raise errors.wrong_type("inner", inner, "optax.GradientTransformation")
    check_recipe(recipe)
    check_choice(layers, include, exclude, axes)

    choose = functools.partial(layers_of, layers=layers, include=include, exclude=exclude, axes=axes)

    def sparse(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
        training = SparseTraining(inner, recipe, choose, scores, callbacks)
        return optax.GradientTransformationExtraArgs(training.init, training.update)

    multi_steps = getattr(inner.update, "__self__", None)  # also behind MultiSteps.gradient_transformation()
    if not isinstance(multi_steps, optax.MultiSteps):
        return sparse(inner)
    accumulating = copy.copy(multi_steps)
    accumulating._opt = sparse(multi_steps.inner_opt)  # optax offers no public way
    assert accumulating.inner_opt is accumulating._opt
    return optax.GradientTransformationExtraArgs(accumulating.init, accumulating.update)


def plan(
    params: Tree,
    recipe: Recipe,
    *,
    layers: Sequence[Layer] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    axes: Axes | None = None,
) -> Plan:
    """The plan of a recipe for a model, before anything is changed. ``print(plan(params, recipe))`` shows a table.

    Args:
        params: any pytree of arrays (or of their shapes and dtypes); it stays as it is.
        recipe: as for `sparsify`.
        layers: as for `sparsify`.
        include: as for `sparsify`.
        exclude: as for `sparsify`.
        axes: as for `sparsify`.

    Returns:
        The plan that a training has after ``sparsify(inner, recipe, ...).init(params)``.

    Raises:
        TypeError, ValueError: as for `sparsify` and its ``init``, naming the parameter.
    """
    check_recipe(recipe)
    return make_plan(recipe, layers_of(params, layers, include, exclude, axes))


class SparseTraining:
    """``init`` and ``update`` of the transformation that `sparsify` gives.

    Args:
        inner: what makes updates of gradients.
        recipe: how to train sparsely.
        choose: the layers of a parameter tree.
        scores: arrays by layer name that choose the initial topology, if the recipe asks for them.
        callbacks: whether compiled programs may call NumPy.
    """

    def __init__(
        self,
        inner: optax.GradientTransformation,
        recipe: Recipe,
        choose: Callable[[Tree], tuple[Layer, ...]],
        scores: Mapping[str, ArrayLike] | None,
        callbacks: bool,
    ) -> None:
        self._inner = optax.with_extra_args_support(inner)
        self._recipe, self._rule = recipe, recipe.rule
        self._choose, self._scores = choose, scores
        self._xp = calling_namespace if callbacks else namespace
        schedule = recipe.schedule or NEVER
        # A step is an int32, which never gets further than this.
        self._schedule = dataclasses.replace(schedule, **{k: min(n, 2**31 - 1) for k, n in vars(schedule).items()})
        self._planned = functools.lru_cache(self._make_plan)

    def init(self, params: Tree) -> SparseState:
        """The state before the first step."""
        plan, weights = self._planned(self._choose(params))[0], named_leaves(params)
        errors.check_scores(plan, self._scores)
        started: dict[str, tuple[Array, Memory]] = {}
        for pool in plan.pools:
            started |= start_pool(plan, pool, weights, self._scores or {})
        masks = {name: mask for name, (mask, _) in started.items()}
        inner_state = self._inner.init(params)
        check_inner(inner_state, params)
        if not self._rule.shadow:
            inner_state = zero_state_outside(inner_state, params, masks)
        return SparseState(
            inner_state=inner_state,
            masks={layer.name: masks.get(layer.name, jnp.ones((), bool)) for layer in plan.layers},
            memory={kind: {name: own[kind] for name, (_, own) in started.items()} for kind in self._rule.memories},
            step=jnp.zeros((), jnp.int32),
            deferred=jnp.zeros((), bool),
            unmasked=jnp.zeros((), bool),
        )

    def update(
        self, gradients: Tree, state: SparseState, params: Tree | None = None, **extra_args: Any
    ) -> tuple[Tree, SparseState]:
        """The updates of one optimizer step, and the state after it.

        Args:
            gradients: dense, of the parameters' structure.
            state: what ``init`` or the last ``update`` gave.
            params: the parameters, which are needed.
            extra_args: for the inner transformation.

        Raises:
            ValueError: for arrays that do not fit, or parameters that are not masked.
        """
        if params is None:
            raise ValueError("params is missing: call update(gradients, opt_state, params).")
        plan, keys = self._planned(self._choose(params))
        check_arrays(plan, gradients, state.masks)
        clock = Clock(self._schedule, state.step, state.deferred)
        own_keys = None if keys is None else jnp.asarray(keys)[clock.update]
        step = SparseStep(plan, self._inner, clock, own_keys, gradients, params, extra_args, self._xp)
        return step.take_step(state)

    def _make_plan(self, layers: tuple[Layer, ...]) -> tuple[Plan, npt.NDArray[np.int32] | None]:
        """The plan, and the random keys [update, layer, 2], if updates draw."""
        names = [layer.name for layer in layers]
        keys = random_key_table(self._recipe.seed, names, self._schedule.updates) if self._rule.reads_random else None
        return make_plan(self._recipe, layers), keys
