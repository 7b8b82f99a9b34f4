"""`sparsify` for NumPy: one line, after which the optimizer's ``step(grads)`` is a sparse one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rigl_backends.numpy.optimizers import Optimizer, Params
from rigl_backends.numpy.training import Array, SparseTraining
from rigl_core.model.layers import Layer
from rigl_core.model.patterns import Choice
from rigl_core.plan import make_plan
from rigl_core.recipe import Recipe
from rigl_core.step import errors


def sparsify(
    params: Params,
    optimizer: Optimizer,
    recipe: Recipe,
    *,
    layers: Sequence[Layer] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    scores: Mapping[str, Array] | None = None,
) -> SparseTraining:
    """Make ``params`` sparse and let ``optimizer.step(grads)`` follow the recipe from now on.

    Gradients given to ``step`` are dense. If you clip or log them before, pass them through
    `SparseTraining.mask_gradients` first. What you write outside the masks is zeroed: in weights by the next step, in
    the optimizer's state by the next update.

    Args:
        params: the model's arrays by name; changed in place.
        optimizer: an optimizer that holds them.
        recipe: how to train sparsely.
        layers: which arrays to sparsify; by default those with two or more axes, with unknown in and out axes.
        include: name patterns of arrays to sparsify besides the default ones; only without ``layers``.
        exclude: name patterns of arrays to leave alone, outside every count; only without ``layers``.
        scores: arrays by layer name that choose the initial topology, for recipes that ask for them (GraSP, SynFlow,
            lottery tickets).

    Returns:
        A handle: masks, step, table, ``remove()``, ``state_dict()`` and ``load_state_dict()``.

    Raises:
        TypeError, ValueError: naming the parameter; nothing has been changed then.
    """
    if not isinstance(optimizer, Optimizer):
        raise errors.wrong_type("optimizer", optimizer, "rigl_backends.numpy.Optimizer")
    if "step" in vars(optimizer):
        raise errors.already_sparsified("optimizer")
    if layers is not None and (include or exclude):
        raise errors.too_many_choices("include", "exclude")
    plan = make_plan(recipe, _choose(params, include, exclude) if layers is None else layers)
    for layer in plan.layers:
        if layer.name not in params or params[layer.name].shape != layer.shape:
            raise errors.no_such_array(layer)
        errors.check_dtype(layer, params[layer.name].dtype)
        if optimizer.params.get(layer.name) is not params[layer.name]:
            raise errors.not_held(layer)
    errors.check_scores(plan, scores)
    return SparseTraining(plan, optimizer, scores)


def _choose(params: Params, include: Sequence[str], exclude: Sequence[str]) -> list[Layer]:
    chosen = Choice(include, exclude, list(params))
    return [Layer(name, param.shape) for name, param in params.items() if chosen(name, default=param.ndim >= 2)]
