"""`sparsify` for NumPy: one line, after which the optimizer's ``step(grads)`` is a sparse one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rigl_backends.numpy.described import Described
from rigl_backends.numpy.layers import layers_of
from rigl_backends.numpy.optimizers import Optimizer, Params
from rigl_backends.numpy.training import Array, SparseTraining
from rigl_core.adapter import (
    Axes,
    Fused,
    Index,
    Initial,
    Layer,
    Plan,
    Recipe,
    Stacked,
    Storage,
    active_layers,
    errors,
    first_indices,
    make_plan,
    start_from,
)


def plan(
    params: Mapping[str, Array],
    recipe: Recipe,
    *,
    layers: Sequence[Layer] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    axes: Axes | None = None,
    stacked: Stacked | None = None,
    fused: Fused | None = None,
) -> Plan:
    """The plan that `sparsify` would make of these arrays; nothing is changed. Print it to see the layers.

    Args:
        params: the model's arrays by name.
        recipe: how to train sparsely.
        layers: as for `sparsify`; so are ``include``, ``exclude``, ``axes``, ``stacked`` and ``fused``.

    Raises:
        TypeError, ValueError: naming the parameter.
    """
    return _plan(params, recipe, layers_of(params, layers, include, exclude, axes, stacked, fused), layers)


def _plan(params: Mapping[str, Array], recipe: Recipe, chosen: Sequence[Layer], layers: Sequence[Layer] | None) -> Plan:
    names = {layer.name for layer in chosen}
    others = {name: array.size for name, array in params.items() if name not in names and layers is None}
    return make_plan(recipe, chosen, others)


def sparsify(
    params: Params,
    optimizer: Optimizer,
    recipe: Recipe,
    *,
    layers: Sequence[Layer] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    axes: Axes | None = None,
    stacked: Stacked | None = None,
    fused: Fused | None = None,
    scores: Mapping[str, Array] | None = None,
    initial: Initial | None = None,
    storage: Storage = "masks",
) -> SparseTraining:
    """Make ``params`` sparse and let ``optimizer.step(grads)`` follow the recipe from now on.

    Gradients given to ``step`` are dense. If you clip or log them before, pass them through
    `SparseTraining.mask_gradients` first. What you write outside the masks is zeroed: in weights by the next step, in
    the state of `SGD` and `Adam` by the next update. An optimizer of your own, a subclass of `Optimizer`, gets the
    state that it gives a new weight outside the masks, after every step.

    Args:
        params: the model's arrays by name; changed in place.
        optimizer: an optimizer that holds them.
        recipe: how to train sparsely.
        layers: which arrays to sparsify; by default those of `choose_layers`.
        include: name patterns of arrays to sparsify besides the default ones; only without ``layers``.
        exclude: name patterns of arrays to leave alone, outside every count; only without ``layers``.
        axes: in and out axes by name pattern; only without ``layers``.
        stacked: the axis, or axes, along which layers are stacked, by name pattern, such as ``{"layers/*": 0}``. Each
            slice then chooses, and gets its share of the budget, as a layer of its own; only without ``layers``.
        fused: the number of equal parts of the out axis that choose in the same way, each on its own, by name pattern,
            such as ``{"*in_proj_weight": 3}``; for another axis, give (axis, parts). Only without ``layers``.
        scores: arrays by layer name that choose the initial topology, for recipes that ask for them (GraSP, SynFlow,
            lottery tickets).
        initial: the masks to begin with, in place of random ones: the path of a file of `rigl_core.storage`, a
            `rigl_core.storage.Topology`, or bool arrays by layer name. Masks of another framework are turned by the
            layers' axes. The recipe then has as many connections as they have; its sparsity may be left out.
        storage: ``"masks"``, or ``"active"``: matrices and two-dimensional convolutions hold only their active weights.
            In ``params`` a flat array of these takes the place of the dense array, which can be `Described` and never
            made. The optimizer's state follows, and the handle's ``linear[name]`` or ``conv[name]`` multiplies
            (`SparseLinear`, `SparseConv`). Layers for which this is not possible or does not pay keep their masks, and
            a warning names them; to decide layer by layer, give a dict of both words by name pattern.

    Returns:
        A handle: masks, step, table, ``remove()``, ``state_dict()`` and ``load_state_dict()``.

    Raises:
        TypeError, ValueError: naming the parameter; nothing has been changed then.
    """
    if not isinstance(optimizer, Optimizer):
        raise errors.wrong_type("optimizer", optimizer, "rigl_backends.numpy.Optimizer")
    if "step" in vars(optimizer):
        raise errors.already_sparsified("optimizer")
    chosen = layers_of(params, layers, include, exclude, axes, stacked, fused)
    recipe, scores = start_from(recipe, chosen, initial, scores)
    own = _plan(params, recipe, chosen, layers)
    for layer in own.layers:
        if optimizer.params.get(layer.name) is not params[layer.name]:
            raise errors.not_held(layer)
    errors.check_scores(own, scores)
    indices = _first_indices(own, params, scores, storage)
    described = {i: params[own.layers[i].name] for i in indices}
    drawn = {i: array.values(indices[i].size) for i, array in described.items() if isinstance(array, Described)}
    return SparseTraining(own, optimizer, scores, indices, drawn)


def _first_indices(
    plan: Plan, params: Params, scores: Mapping[str, Array] | None, storage: Storage
) -> dict[int, Index]:
    """The initial topology of each layer that is to hold active weights alone, by its position in the plan."""
    why_not = {
        layer.name: f"is {params[layer.name].dtype}, and the kernels multiply float32"
        for layer in plan.layers
        if params[layer.name].dtype != np.float32
    }
    active = active_layers(plan, storage, why_not, convolutions=True)
    described = {name for name, array in params.items() if isinstance(array, Described)}
    if unmade := sorted(described - {plan.layers[i].name for i in active}):
        raise ValueError(
            f"params has {unmade} as described arrays, but only layers that hold their active weights alone can begin "
            "so: give arrays, or storage='active'."
        )
    weights = {i: params[plan.layers[i].name].reshape(-1) for i in active if plan.layers[i].name not in described}
    return first_indices(plan, active, weights, scores)
