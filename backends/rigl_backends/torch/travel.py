"""The topology in the optimizer's own ``state_dict()``: whatever saves the optimizer saves it, bound to its parameters.

In the saved dict, each sparse parameter has in its part of ``state``

- ``sparse_mask``: its mask, bool, in its shape; or, if it holds active weights alone, ``sparse_places``: the flat index
  of each, int32;
- ``sparse_<kind>``: each array of its memory, as uint8 bytes, which no cast of an optimizer's state can change, and
  which have an axis of their own.

The first layer's parameter also has ``sparse_header``: the rest of the training's state as JSON, in uint8. Zeros
fill it up, since `torch.distributed.checkpoint` loads arrays in place, into those of a new training. Its strict loading
asks for a part of ``state`` for every parameter, so those without state get an empty one.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rigl_backends.torch.active import ActiveLayer
from rigl_backends.torch.agreement import agreed
from rigl_backends.torch.kept import Kept, nonzero_in
from rigl_backends.torch.layer import SparseLayer
from rigl_backends.torch.moving import dense_of
from rigl_backends.torch.storage import in_storage
from rigl_backends.torch.twin import is_in_parts, is_sharded, local, params_of
from rigl_core.adapter import Layer, Plan, SparsityWarning, check_state, errors, from_bytes, to_bytes

_PREFIX = "sparse_"
_MASK, _PLACES, _HEADER = _PREFIX + "mask", _PREFIX + "places", _PREFIX + "header"

Parts = dict[nn.Parameter, dict[str, Tensor]]
"""What travels with each parameter."""


def pack(state: Mapping[str, Any], layers: Sequence[SparseLayer | ActiveLayer], first: nn.Parameter) -> Parts:
    """The state of a training, of which the masks and the memory are copies, by parameter; the ``first`` has more."""
    parts: Parts = {first: {}}
    for layer in layers:
        name = layer.layer.name
        places = {_PLACES: torch.from_numpy(layer.index.flat())} if isinstance(layer, ActiveLayer) else {}
        own = places or {_MASK: state["masks"][name]}
        memory = {kind: layer.memory[kind].clone().unsqueeze(-1).view(torch.uint8) for kind in state["memory"]}
        parts[layer.param] = own | {_PREFIX + kind: layer.shaped(array) for kind, array in memory.items()}
    header = {key: value for key, value in state.items() if key not in ("masks", "memory")}
    header["dtypes"] = {
        kind: [str(arrays[layer.layer.name].dtype).removeprefix("torch.") for layer in layers]
        for kind, arrays in state["memory"].items()
    }
    header["nonzero"] = {layer.layer.name: nonzero_in(layer.param) for layer in layers}
    parts[first][_HEADER] = torch.tensor(to_bytes(header), device=first.device)
    return parts


def unpack(parts: Parts, plan: Plan, params: Sequence[nn.Parameter]) -> tuple[dict[str, Any], dict[str, int | None]]:
    """The state of a training, as `pack` got it, and the numbers of weights that were not 0, by layer name.

    Args:
        parts: what travelled. An optimizer may have cast it, and copied it to another device.
        plan: the plan.
        params: the parameters of the plan's layers.

    Raises:
        ValueError: if parts are missing, or belong to parameters that are no layers.
    """
    sparse = [i for i in plan.sparse_layers if {_MASK, _PLACES} & parts.get(params[i], {}).keys()]
    header = next((part[_HEADER] for part in parts.values() if _HEADER in part), None)
    if header is None or not set(parts) <= set(params):
        raise ValueError(
            "the optimizer's state holds the topology of other layers than this training, or a part of it: resume with "
            "the model, optimizer and layers that it was saved with."
        )
    state = from_bytes(header.to("cpu", torch.uint8))
    masks = {
        layer.name: _mask_in(parts.get(param, {}), layer) for layer, param in zip(plan.layers, params, strict=True)
    }
    memory = {
        kind: {
            plan.layers[i].name: _from_bytes(parts[params[i]][_PREFIX + kind], getattr(torch, dtype))
            for i, dtype in zip(sparse, dtypes, strict=True)
        }
        for kind, dtypes in state.pop("dtypes").items()
    }
    nonzero: dict[str, int | None] = state.pop("nonzero")
    return {**state, "masks": masks, "memory": memory}, nonzero


def _from_bytes(saved: Tensor, dtype: torch.dtype) -> Tensor:
    array = saved.to(torch.uint8).view(dtype)
    return array.squeeze(-1) if is_sharded(array) else array.reshape(-1)


def _mask_in(part: Mapping[str, Tensor], layer: Layer) -> Tensor:
    """The mask of a layer, from what travelled with its parameter; all true for a dense layer."""
    if _PLACES not in part:
        return part.get(_MASK, torch.ones((), dtype=torch.bool).expand(layer.shape)).to(torch.bool)
    places = part[_PLACES].cpu()
    return dense_of(torch.ones_like(places, dtype=torch.bool), places, layer.shape)


def take_out(state: Mapping[Any, Any], params: Mapping[Any, nn.Parameter]) -> tuple[Parts, dict[Any, Any]]:
    """What travels in an optimizer's state, and the state without it.

    Args:
        state: the state of an optimizer, by parameters or, if saved, by their numbers.
        params: the optimizer's parameters by the same keys.
    """
    parts: Parts = {}
    rest: dict[Any, Any] = {}
    for key, values in state.items():
        own = {name for name in values if str(name).startswith(_PREFIX)} if isinstance(values, Mapping) else set()
        if key in params and (part := {name: values[name] for name in own if isinstance(values[name], Tensor)}):
            parts[params[key]] = part
        rest[key] = {name: value for name, value in values.items() if name not in own} if own else values
    return parts, {key: values for key, values in rest.items() if not isinstance(values, Mapping) or values}


def is_empty_step(optimizer: Optimizer, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a step is that of `torch.distributed.checkpoint`, which only lets the optimizer make its state.

    All its gradients and learning rates are 0.
    """
    if optimizer.state or len(args) != 1 or dict(kwargs) != {"closure": None}:
        return False
    if any(float(group.get("lr", 0)) != 0 for group in optimizer.param_groups):
        return False
    params = [param for param in params_of(optimizer) if param.requires_grad]
    return agreed(all(param.grad is not None and not local(param.grad).any() for param in params), params)


class Travel:
    """Hooks that let a training's topology travel with its optimizers' state.

    Attributes:
        saving: whether an optimizer is being saved.
        missing: whether a state without a topology has been loaded since the last step.
        hooks: they can be removed.
    """

    def __init__(
        self, training: Travelling, layers: Sequence[SparseLayer | ActiveLayer], optimizers: Collection[Optimizer]
    ) -> None:
        self._training, self._layers = training, layers
        self._incoming: dict[str, Any] | None = None
        self._nonzero: dict[str, int | None] = {}
        self.saving, self.missing = False, False
        self._places: Optimizer | None = None
        self.hooks = [
            hook
            for optimizer in optimizers
            if "_optimizer_state_dict_post_hooks" in vars(optimizer)  # a wrapper may leave its state to what it wraps
            for hook in (
                *([] if is_in_parts(optimizer) else [optimizer.register_state_dict_post_hook(self._on_save)]),
                optimizer.register_load_state_dict_pre_hook(self._before_load),
                optimizer.register_load_state_dict_post_hook(self._after_load),
            )
        ]

    def before_step(self, step: int, *, came: bool) -> None:
        """Refuse, or later tell of, a state that was loaded without a topology, if none ``came`` by itself.

        Raises:
            ValueError: if the training has made no step.
        """
        if self.missing and not came:
            if step == 0:
                raise ValueError(errors.no_topology(step))
            warnings.warn(errors.no_topology(step), SparsityWarning, stacklevel=2)
        self.missing = False
        self._hide_places()

    def show_places(self, optimizer: Optimizer) -> None:
        """After the empty step of `torch.distributed.checkpoint`, which then loads flat states by the keys it sees."""
        for layer in self._layers:
            places = "places" if isinstance(layer, ActiveLayer) else "mask"
            optimizer.state[layer.param].update({_PREFIX + kind: 0 for kind in (places, *layer.rule.memories)})
        optimizer.state[self._training.params[0]][_HEADER] = 0
        self._places = optimizer

    def _hide_places(self) -> None:
        if self._places is not None:
            _, state = take_out(self._places.state, {})
            self._places.state.clear()
            self._places.state.update(state)
            self._places = None

    def _on_save(self, optimizer: Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
        self.saving = True
        try:
            parts = pack(self._training.state_dict(), self._layers, self._training.params[0])
        finally:
            self.saving = False
        state = dict(saved["state"])
        numbers: dict[nn.Parameter, int] = {}
        for number, param in enumerate(params_of(optimizer)):
            numbers.setdefault(param, number)
        for param, number in numbers.items():
            state[number] = {**(state.get(number) or {}), **parts.get(param, {})}
        return {**saved, "state": state}

    def _before_load(self, optimizer: Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
        numbers_of = list(chain.from_iterable(group["params"] for group in saved["param_groups"]))
        parts, state = take_out(saved["state"], dict(zip(numbers_of, params_of(optimizer), strict=False)))
        self._incoming = None
        if parts:
            self._incoming, self._nonzero = unpack(parts, self._training.plan, self._training.params)
            check_state(self._training.plan, self._incoming, self._training.changed)
            state = self._in_own_storage(state, dict(zip(numbers_of, params_of(optimizer), strict=False)), parts)
        return {**saved, "state": state}

    def _in_own_storage(
        self, state: Mapping[Any, Any], params: Mapping[Any, nn.Parameter], parts: Parts
    ) -> dict[Any, Any]:
        """The saved state, of which arrays of active weights have the places of this training, or are dense in it."""
        assert self._incoming is not None
        layers = {layer.param: layer for layer in self._layers}
        own = dict(state)
        for number, param in params.items():
            if param in layers and number in own:
                mask = self._incoming["masks"][layers[param].layer.name]
                own[number] = in_storage(layers[param], own[number], mask, parts[param].get(_PLACES))
        return own

    def _after_load(self, optimizer: Optimizer) -> None:
        self.missing = self._incoming is None
        if self._incoming is not None:
            self._training.kept.expected = self._nonzero
            self._training.load_state_dict(self._incoming, changed=self._training.changed)


class Travelling(Protocol):
    """What `Travel` asks of a training."""

    plan: Plan
    params: Sequence[nn.Parameter]
    changed: Collection[str]
    kept: Kept

    def state_dict(self) -> dict[str, Any]:
        """The training's state."""

    def load_state_dict(self, state: Mapping[str, Any], *, changed: Collection[str]) -> None:
        """Continue from such a state."""
