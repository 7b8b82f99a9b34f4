"""`sparsify` for PyTorch: one line, after which the training loop is a sparse one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rigl_backends.torch.layers import choose_layers
from rigl_backends.torch.training import SparseTraining, is_sparsified
from rigl_core.plan import Plan, make_plan
from rigl_core.recipe import Recipe
from rigl_core.step import errors


def sparsify(
    model: nn.Module,
    optimizer: Optimizer,
    recipe: Recipe,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
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
        include: name patterns of parameters to sparsify besides the default ones (see
            `rigl_backends.torch.layers.choose_layers`), for example embeddings.
        exclude: name patterns of parameters to leave alone, outside every count.
        scores: arrays by layer name that choose the initial topology, for recipes that ask for them (GraSP, SynFlow,
            lottery tickets).

    Returns:
        A handle: masks, step, table, ``remove()``, ``state_dict()`` and ``load_state_dict()``. It need
        not be kept.

    Raises:
        TypeError, ValueError: naming the parameter; nothing has been changed then.
    """
    if not isinstance(model, nn.Module):
        raise errors.wrong_type("model", model, "torch.nn.Module")
    if not isinstance(optimizer, Optimizer):
        raise errors.wrong_type("optimizer", optimizer, "torch.optim.Optimizer")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError(
            "optimizer is L-BFGS, whose history mixes all weights, so it cannot follow a topology that moves: "
            "use a first-order optimizer."
        )
    if is_sparsified(optimizer):
        raise errors.already_sparsified("optimizer")
    chosen = choose_layers(model, include, exclude)
    plan = make_plan(recipe, [layer for layer, _ in chosen])
    params = [parameter for _, parameter in chosen]
    _check_params(plan, params, optimizer)
    errors.check_scores(plan, scores)
    return SparseTraining(plan, params, optimizer, scores)


def _check_params(plan: Plan, params: Sequence[nn.Parameter], optimizer: Optimizer) -> None:
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for layer, param in zip(plan.layers, params, strict=True):
        errors.check_dtype(layer, param.dtype)
        if param.is_meta:
            raise ValueError(f"layer {layer.name!r} is on the meta device, without values: materialize it first.")
        if type(param.detach()) is not Tensor:
            raise ValueError(
                f"layer {layer.name!r} is a {type(param.detach()).__name__}: sharded and other wrapped tensors cannot "
                "be sparsified; exclude the layer, or replicate it."
            )
        if not param.requires_grad:
            raise ValueError(f"layer {layer.name!r} is frozen (requires_grad=False): exclude it, or train it.")
        if id(param) not in held:
            raise errors.not_held(layer)
        if is_sparsified(param):
            raise ValueError(
                f"layer {layer.name!r} is already sparsified with another optimizer: call remove() on its handle."
            )
