"""`sparsify` for JAX, an optax transformation around another one, and `plan`."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from jax import Array
from jax.typing import ArrayLike

from rigl_backends.jax import namespace
from rigl_backends.jax.handle import SparseState, check_arrays
from rigl_backends.jax.layer import Memory, start_pool
from rigl_backends.jax.layers import check_choice, layers_of, other_sizes
from rigl_backends.jax.namespace import calling_namespace
from rigl_backends.jax.state import Held, check_inner, held_by
from rigl_backends.jax.training import SparseStep
from rigl_backends.jax.trees import Tree, named_leaves, shape_of, zero_tree_outside
from rigl_backends.jax.written import check_written, written
from rigl_core.adapter import (
    NEVER,
    Axes,
    Clock,
    Layer,
    Plan,
    Recipe,
    check_recipe,
    errors,
    make_plan,
    random_key_table,
    warn_about,
)


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
        training = SparseTraining(inner, recipe, choose, scores, callbacks, chooses=layers is None)
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
        layers: as for `sparsify`; so are ``include``, ``exclude`` and ``axes``.

    Returns:
        The plan that a training has after ``sparsify(inner, recipe, ...).init(params)``.

    Raises:
        TypeError, ValueError: as for `sparsify` and its ``init``, naming the parameter.
    """
    check_recipe(recipe)
    chosen = layers_of(params, layers, include, exclude, axes)
    return make_plan(recipe, chosen, other_sizes(params, chosen) if layers is None else None)


class SparseTraining:
    """``init`` and ``update`` of the transformation that `sparsify` gives.

    Args:
        inner: what makes updates of gradients.
        recipe: how to train sparsely.
        choose: the layers of a parameter tree.
        scores: arrays by layer name that choose the initial topology, if the recipe asks for them.
        callbacks: whether compiled programs may call NumPy.
        chooses: whether the layers are not those that the user gave.
    """

    def __init__(
        self,
        inner: optax.GradientTransformation,
        recipe: Recipe,
        choose: Callable[[Tree], tuple[Layer, ...]],
        scores: Mapping[str, ArrayLike] | None,
        callbacks: bool,
        *,
        chooses: bool,
    ) -> None:
        self.inner = optax.with_extra_args_support(inner)
        self._recipe, self._rule = recipe, recipe.rule
        self._choose, self._scores, self._chooses = choose, scores, chooses
        self._xp = calling_namespace if callbacks else namespace
        schedule = recipe.schedule or NEVER
        # A step is an int32, which never gets further than this.
        self.schedule = dataclasses.replace(schedule, **{k: min(n, 2**31 - 1) for k, n in vars(schedule).items()})
        self._planned = functools.lru_cache(self._make_plan)
        self._held: dict[Any, Held] = {}

    def init(self, params: Tree) -> SparseState:
        """The state before the first step."""
        plan, weights = self.plan_of(params), named_leaves(params)
        errors.check_scores(plan, self._scores)
        started: dict[str, tuple[Array, Memory]] = {}
        for pool in plan.pools:
            started |= start_pool(plan, pool, weights, self._scores or {})
        masks = {name: mask for name, (mask, _) in started.items()}
        inner_state = self.inner.init(params if self._rule.shadow else zero_tree_outside(params, masks))
        check_inner(inner_state, params)
        warn_about(dataclasses.replace(plan, others=other_sizes(params, plan.layers) if self._chooses else {}))
        return SparseState(
            inner_state=inner_state,
            masks={layer.name: masks.get(layer.name, jnp.ones((), bool)) for layer in plan.layers},
            memory={kind: {name: own[kind] for name, (_, own) in started.items()} for kind in self._rule.memories},
            step=jnp.zeros((), jnp.int32),
            deferred=jnp.zeros((), bool),
            unmasked=jnp.zeros((), bool),
            recipe=written(self._recipe),
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
        check_written(state.recipe, self._recipe)
        plan, keys = self._planned(self._choose(params))
        check_arrays(plan, gradients, state.masks)
        clock = Clock(self.schedule, state.step, state.deferred)
        own_keys = None if keys is None else jnp.asarray(keys)[clock.update]
        held = self.held_by(plan, gradients, state.inner_state, params, extra_args)
        step = SparseStep(plan, self.inner, clock, own_keys, gradients, params, extra_args, self._xp, held)
        return step.take_step(state)

    def plan_of(self, params: Tree) -> Plan:
        """The plan for these parameters."""
        return self._planned(self._choose(params))[0]

    def held_by(self, plan: Plan, *trees: Any) -> Held:
        """What the inner transformation holds for each weight: read once for trees of the same shapes.

        ``trees`` are gradients, state of the inner transformation, parameters, and extra arguments.
        """
        leaves, structure = jax.tree.flatten(trees)
        key = structure, tuple((shape_of(leaf), str(getattr(leaf, "dtype", type(leaf)))) for leaf in leaves)
        if key not in self._held:
            names = [plan.layers[i].name for i in plan.sparse_layers]
            self._held[key] = held_by(self.inner, *trees, names=names)
        return self._held[key]

    def _make_plan(self, layers: tuple[Layer, ...]) -> tuple[Plan, npt.NDArray[np.int32] | None]:
        """The plan, and the random keys [update, layer, 2], if updates draw."""
        names = [layer.name for layer in layers]
        keys = random_key_table(self._recipe.seed, names, self.schedule.updates) if self._rule.reads_random else None
        return make_plan(self._recipe, layers), keys
