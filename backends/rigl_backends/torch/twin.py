"""Copies of an optimizer that hold a single small parameter, to try the optimizer on the side."""

from __future__ import annotations

import copy
import inspect
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rigl_core.adapter import is_spread

Path = tuple[str, ...]


def leaves(state: Any, path: Path = ()) -> dict[Path, Tensor]:
    """The tensors of a state, however it nests them, by the keys that lead to them."""
    if isinstance(state, Tensor):
        return {path: state}
    found: dict[Path, Tensor] = {}
    for key, value in _items(state):
        if isinstance(value, Tensor):
            found[*path, str(key)] = value
        else:
            found |= leaves(value, (*path, str(key)))
    return found


def _items(state: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(state, Mapping):
        return state.items()
    return enumerate(state) if isinstance(state, list | tuple | deque) else ()


def optimizers_in(optimizer: Optimizer, path: Path = ()) -> Iterator[tuple[Path, Optimizer]]:
    """An optimizer, and those that it holds as a wrapper does, with the attributes that lead to them."""
    yield path, optimizer
    for name, value in vars(optimizer).items():
        if isinstance(value, Optimizer):
            yield from optimizers_in(value, (*path, name))


def is_in_parts(optimizer: Optimizer) -> bool:
    """Whether optimizers in it hold some of its parameters each, as in ZeroRedundancyOptimizer.

    Each process then loads the state of its own parameters, so a topology cannot travel in it.
    """
    held = set(params_of(optimizer))
    return any(set(params_of(inner)) < held for _, inner in optimizers_in(optimizer))


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is no subclass, which may lack operations or hold its numbers in another form."""
    return type(tensor) in (Tensor, nn.Parameter)


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor, whose import takes a second and which this module does without."""
    return is_spread(tensor)


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: a DTensor's shard, of which it is no copy, or the tensor itself."""
    if not is_sharded(tensor):
        return tensor
    with torch.no_grad():  # otherwise it would be a node of the graph
        return tensor.to_local()  # type: ignore[attr-defined,no-any-return]


class FirstValues(dict[Any, Any]):
    """A parameter's state that remembers what is first stored in it, before an optimizer changes it in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[Path, Tensor] = {}

    def remember(self, state: Mapping[Any, Any]) -> None:
        """Copy the tensors of a state that are not remembered yet."""
        for path, tensor in leaves(state).items():
            if path not in self.first and is_plain(tensor):
                self.first[path] = tensor.detach().clone()

    def __setitem__(self, key: Any, value: Any) -> None:
        self.remember({key: value})
        super().__setitem__(key, value)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """As a dict's."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *args: Any, **values: Any) -> None:
        """As a dict's."""
        for key, value in dict(*args, **values).items():
            self[key] = value


def copied(optimizer: Optimizer, param: nn.Parameter, small: nn.Parameter) -> Optimizer:
    """A copy of the optimizer that holds a small parameter in place of ``param``, no other one, and no state."""
    params = chain.from_iterable(params_of(inner) for _, inner in optimizers_in(optimizer))
    memo: dict[int, Any] = {id(held): nn.Parameter(small.new_zeros(1)) for held in params}
    memo[id(param)] = small
    twin = _copy(optimizer, memo)
    for _, inner in optimizers_in(twin):
        inner.param_groups[:] = [group for group in inner.param_groups if _holds(group, small)]
        for group in inner.param_groups:
            _hold_only(group, small)
    return twin


def _copy(optimizer: Optimizer, memo: dict[int, Any]) -> Optimizer:
    twin: Optimizer = object.__new__(type(optimizer))
    for name, value in vars(optimizer).items():
        if isinstance(value, Optimizer):
            vars(twin)[name] = _copy(value, memo)
        elif name == "state":
            vars(twin)[name] = memo.setdefault(id(value), defaultdict(FirstValues))  # a wrapper may share it
        elif name.endswith("_hooks"):
            vars(twin)[name] = OrderedDict()
        elif name != "step":  # which a scheduler or a compiler has put before the class's
            vars(twin)[name] = copy.deepcopy(value, memo)
    return twin


def made_anew(optimizer: Optimizer, param: nn.Parameter, small: nn.Parameter) -> Optimizer:
    """An optimizer of the same class and options that holds a small parameter.

    It has what its class makes at the beginning only, for example the state of the parameters.
    """
    own = group_of(optimizer, param) or {}
    group = {key: value for key, value in own.items() if key in optimizer.defaults}
    known = inspect.signature(type(optimizer).__init__).parameters
    options = {key: value for key, value in optimizer.defaults.items() if key in known}
    make: Any = type(optimizer)
    twin: Optimizer = make([{**copy.deepcopy(group), "params": [small]}], **copy.deepcopy(options))
    return twin


def params_of(optimizer: Optimizer) -> list[nn.Parameter]:
    """The optimizer's parameters, in the order of their numbers in a saved state."""
    return list(chain.from_iterable(group["params"] for group in optimizer.param_groups))


def group_of(optimizer: Optimizer, param: nn.Parameter) -> dict[str, Any] | None:
    """The optimizer's group that holds a parameter."""
    return next((group for group in optimizer.param_groups if _holds(group, param)), None)


def _holds(group: dict[str, Any], param: nn.Parameter) -> bool:
    return any(held is param for held in group["params"])


def _hold_only(group: dict[str, Any], small: nn.Parameter) -> None:
    if "param_names" in group:
        names = zip(group["params"], group["param_names"], strict=True)
        group["param_names"] = [name for held, name in names if held is small]
    group["params"] = [small]
