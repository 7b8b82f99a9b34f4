"""How a model's layers are held: which can be active weights alone, and how a state gets from one form to the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rigl_backends.torch.active import KINDS, ActiveLayer, become_active
from rigl_backends.torch.active_module import PLACES
from rigl_backends.torch.layer import SparseLayer
from rigl_backends.torch.layers import uses_by_parameter
from rigl_backends.torch.moving import dense_of, positions
from rigl_backends.torch.state import WeightState
from rigl_backends.torch.twin import is_sharded
from rigl_backends.torch.unmade import check_can_be_made, make, make_rest
from rigl_core.adapter import Index, Layer, Plan, Storage, active_layers, first_indices, places_in, saved_indices


def hold_active(
    plan: Plan,
    model: nn.Module,
    params: Sequence[nn.Parameter],
    optimizer: Optimizer,
    storage: Storage,
    scores: Mapping[str, Any] | None,
    masks: Mapping[str, Tensor] | None,
) -> None:
    """Hold layers as active weights, in place; a part of `sparsify`.

    Args:
        plan: the plan.
        model: the model.
        params: the parameters of the plan's layers.
        optimizer: whose state follows.
        storage: what the user asks for.
        scores: the user's scores by layer name, if the recipe reads some.
        masks: the topology of a saved state, by layer name; None for an initial one.

    Raises:
        TypeError, ValueError: naming the parameter or layer; nothing has been changed then.
    """
    if storage == "masks":
        return
    active = active_layers(plan, storage, _why_not(model, plan, params), convolutions=True)
    for i, param in enumerate(params):
        if param.is_meta and i in plan.sparse_layers and i not in active:
            raise ValueError(
                f"layer {plan.layers[i].name!r} is on the meta device, and keeps its mask: make it on the CPU first."
            )
    if not active:
        return
    modules: dict[int, Any] = {i: model.get_submodule(plan.layers[i].name.rpartition(".")[0]) for i in active}
    made = [i for i in plan.sparse_layers if not params[i].is_meta]
    check_can_be_made(model, list(modules.values()))
    states = {i: WeightState(plan.layers[i], optimizer, params[i]) for i in made}
    indices = _indices(plan, active, params, scores, masks)
    for position, index in indices.items():
        if position in states:
            become_active(plan.layers[position], modules[position], index, states[position])
    _make(model, {modules[i]: index for i, index in indices.items() if i not in states})


def _make(model: nn.Module, indices: Mapping[nn.Module, Index]) -> None:
    """Make what is on the meta device, module by module, each by its own initialisation."""
    for module in model.modules():
        if module not in indices:
            make_rest(module)
            continue
        own: Any = module
        weight = torch.empty(indices[module].size)
        make(own.weight, weight)
        if own.bias is not None:
            make(own.bias, torch.empty(indices[module].rows))
        KINDS[type(own)].become(own, indices[module], weight).reset_parameters()


def _indices(
    plan: Plan,
    active: Sequence[int],
    params: Sequence[nn.Parameter],
    scores: Mapping[str, Any] | None,
    masks: Mapping[str, Tensor] | None,
) -> dict[int, Index]:
    weights = {i: params[i].detach().numpy().reshape(-1) for i in active if not params[i].is_meta}
    return first_indices(plan, active, weights, scores) if masks is None else saved_indices(plan, active, masks)


def _why_not(model: nn.Module, plan: Plan, params: Sequence[nn.Parameter]) -> dict[str, str]:
    """Why layers cannot be held as active weights, by name."""
    uses = dict(uses_by_parameter(model))
    found = {}
    for layer, param in zip(plan.layers, params, strict=True):
        module = model.get_submodule(layer.name.rpartition(".")[0])
        if type(module) not in KINDS:
            kinds = " or ".join(f"torch.nn.{kind.__name__}" for kind in KINDS)
            found[layer.name] = f"belongs to a {type(module).__name__}, and only a plain {kinds} can"
        elif getattr(module, "padding_mode", "zeros") != "zeros":
            found[layer.name] = f"pads by {module.padding_mode!r}, and the kernels pad with zeros"
        elif (layer.in_axes, layer.out_axes) != ((1,), (0,)):
            found[layer.name] = "is not read as (outputs, inputs)"
        elif len(uses[param]) > 1:
            found[layer.name] = f"is also {uses[param][1].name!r}"
        elif is_sharded(param):
            found[layer.name] = "is sharded (a DTensor), and a shard has no rows of its own"
        elif param.dtype != torch.float32:
            found[layer.name] = f"is {str(param.dtype).removeprefix('torch.')}, and the kernels multiply float32"
        elif param.device.type not in ("cpu", "meta"):
            found[layer.name] = f"is on {param.device}, and the kernels run on CPUs"
    return found


def in_storage(
    layer: SparseLayer | ActiveLayer, state: Mapping[str, Any], mask: Tensor, places: Tensor | None
) -> dict[str, Any]:
    """A parameter's saved state as a layer holds it, with masks or as active weights.

    Args:
        layer: the layer.
        state: the saved state; its arrays are dense, or of active weights.
        mask: the saved topology, in the layer's shape.
        places: the flat indices of active weights in the saved order; None if the state is dense.
    """
    size = layer.layer.size if places is None else places.numel()

    def own(values: Any) -> Any:
        if not isinstance(values, Tensor) or values.dim() == 0 or values.numel() != size:
            return values
        if isinstance(layer, ActiveLayer):
            flat = torch.from_numpy(layer.index.like(places_in(mask)).flat())
            order = flat.to(torch.int64) if places is None else positions(places, flat)
            return values.reshape(-1)[order.to(values.device)]
        return values if places is None else dense_of(values, places, layer.layer.shape)

    return {key: own(values) for key, values in state.items()}


def with_masks(layers: Sequence[Layer], state: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict of a model whose layers hold active weights, with dense weights in their place."""
    own = dict(state)
    for layer in layers:
        places = own.pop(layer.name + PLACES, None)
        if places is not None:
            own[layer.name] = dense_of(own[layer.name], places, layer.shape)
    return own
