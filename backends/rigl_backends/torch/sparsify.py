"""`sparsify` for PyTorch: one line, after which the training loop is a sparse one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import LBFGS, Optimizer

from rigl_backends.torch.layers import layers_of, parameters_of
from rigl_backends.torch.training import SparseTraining, is_sparsified
from rigl_core.adapter import Axes, Layer, Plan, Recipe, errors, make_plan


def plan(
    model: nn.Module,
    recipe: Recipe,
    *,
    layers: Sequence[Layer] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    axes: Axes | None = None,
) -> Plan:
    """The plan that `sparsify` would make of this model; nothing is changed. Print it to see the layers.

    Args:
        model: any module.
        recipe: how to train sparsely.
        layers: as for `sparsify`; so are ``include``, ``exclude`` and ``axes``.

    Raises:
        TypeError, ValueError: naming the parameter.
    """
    return make_plan(recipe, layers_of(model, layers, include, exclude, axes))


def sparsify(
    model: nn.Module,
    optimizer: Optimizer,
    recipe: Recipe,
    *,
    layers: Sequence[Layer] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    axes: Axes | None = None,
    scores: Mapping[str, Any] | None = None,
) -> SparseTraining:
    """Make ``model`` sparse and let ``optimizer.step()`` follow the recipe from now on.

    On ordinary steps everything after ``backward()`` (clipping, norms, logging) sees the gradient of the
    active weights only; the dense gradient is visible at update steps, whose gradient step the update
    replaces. Methods with momentum or shadow weights (SNFS, DNW, DNS) need the dense gradient at every step,
    as the optimizer would get it: with them clipping, too, sees it always. What Deep R adds to the gradient
    is added after clipping.

    Gradient accumulation, closures, loss scaling, torch.compile and DistributedDataParallel work as they
    are. What you write into weights or the optimizer's state outside the masks, such as a checkpoint of a
    dense model, is zeroed at the next step; what you write through ``.data``, which PyTorch does not count,
    at the next update. Three more things to know: compression between replicas that mixes weights (PowerSGD)
    hands clipping the whole gradient, and only the optimizer sees the sparse one; where a loss scaler skips an
    overflowing step, optimizers that it does not call (all but the fused ones) have made no step, so the
    schedule waits; and replicas must start with the same weights where a method looks at these (initial
    magnitudes, signs, initial or shadow weights): wrap the model in DistributedDataParallel first, or seed every
    process alike.

    Args:
        model: any module; weights outside the initial topology become zero. Give the bare model, before
            or after wrapping it: the wrappers of replicas and compilers change the names of its layers.
        optimizer: any `torch.optim` optimizer that holds the model's layers, except L-BFGS.
        recipe: how to train sparsely, such as ``rigl_core.RigL(0.9, schedule=...)``.
        layers: which parameters to sparsify; by default those of `choose_layers`.
        include: name patterns of parameters to sparsify besides the default ones, for example embeddings; only
            without ``layers``.
        exclude: name patterns of parameters to leave alone, outside every count; only without ``layers``.
        axes: in and out axes by name pattern; only without ``layers``.
        scores: arrays by layer name that choose the initial topology, for recipes that ask for them (GraSP, SynFlow,
            lottery tickets).

    Returns:
        A handle: masks, step, table, ``remove()``, ``state_dict()`` and ``load_state_dict()``. It need
        not be kept.

    Raises:
        TypeError, ValueError: naming the parameter; nothing has been changed then.
    """
    _check_optimizer(optimizer)
    own = plan(model, recipe, layers=layers, include=include, exclude=exclude, axes=axes)
    params, held = parameters_of(model, own.layers), {p for group in optimizer.param_groups for p in group["params"]}
    for layer, param in zip(own.layers, params, strict=True):
        if param not in held:
            raise errors.not_held(layer)
        if is_sparsified(param):
            raise ValueError(
                f"layer {layer.name!r} is already sparsified with another optimizer: call remove() on its handle."
            )
    errors.check_scores(own, scores)
    return SparseTraining(own, params, optimizer, scores)


def _check_optimizer(optimizer: object) -> None:
    if not isinstance(optimizer, Optimizer):
        raise errors.wrong_type("optimizer", optimizer, "torch.optim.Optimizer")
    if isinstance(optimizer, LBFGS):
        raise ValueError(
            "optimizer is L-BFGS, whose history mixes all weights, so it cannot follow a topology that moves: "
            "use a first-order optimizer."
        )
    if is_sparsified(optimizer):
        raise errors.already_sparsified("optimizer")
