"""Replicas of a model must have equal masks: their digests are compared (contract: D3)."""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rigl_backends.torch.active import ActiveLayer
from rigl_backends.torch.layer import SparseLayer
from rigl_backends.torch.twin import is_sharded
from rigl_core.adapter import errors

Layers = list[SparseLayer | ActiveLayer]


class _Among(NamedTuple):
    """Some layers, the groups of processes that hold replicas of them, and those that hold other shards of them."""

    layers: Layers
    replicas: list[Any]
    others: list[Any]
    device: Any
    """What these groups send lies there."""


class Replicas:
    """The replicas of a training's layers in other processes. A training in one process has none.

    Args:
        layers: the layers that have masks.
    """

    def __init__(self, layers: Iterable[SparseLayer | ActiveLayer]) -> None:
        self._layers, self._among = list(layers), list[_Among]()
        self._found = self._were_equal = False

    def check(self, step: int, *, due: bool) -> None:
        """Refuse masks that differ, before the first step and before those with an update.

        Raises:
            ValueError: naming the layers, in all processes that hold them.
        """
        if not self._found:
            self._among, self._found = _find(self._layers), True
        if due or not self._were_equal:
            differ = [name for among in self._among for name in _differing(among)]
            self._were_equal = not differ
            if differ:
                raise ValueError(errors.replicas_differ(differ, step))


def _find(layers: Layers) -> list[_Among]:
    """Layers with the same replicas, together."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return []
    wrapper = _data_parallel({layer.param for layer in layers if not is_sharded(layer.param)})
    found: dict[Any, _Among] = {}
    for layer in layers:
        one = _of_layer(layer, wrapper)
        if one.replicas:
            key = tuple(tuple(group.group_name for group in groups) for groups in (one.replicas, one.others))
            found.setdefault(key, one).layers.append(layer)
    return list(found.values())


def _of_layer(layer: SparseLayer | ActiveLayer, wrapper: Any) -> _Among:
    if is_sharded(layer.param):
        shards = layer.shards  # type: ignore[union-attr]
        return _Among([], shards.replicas, shards.others, shards.device)
    return _Among([], [] if wrapper is None else [wrapper.process_group], [], layer.param.device)


def _data_parallel(params: Collection[nn.Parameter]) -> Any:
    """The DistributedDataParallel that wraps these parameters, if any: neither they nor their module know of it."""
    kinds = {DistributedDataParallel, *DistributedDataParallel.__subclasses__()}
    wrappers: list[Any] = [found for found in gc.get_objects() if type(found) in kinds] if params else []
    return next((found for found in wrappers if not params.isdisjoint(found.parameters())), None)  # type: ignore[attr-defined]


def _differing(among: _Among) -> list[str]:
    """The names of layers whose masks are not the same in all replicas."""
    own = torch.stack([digest(_places(layer)) for layer in among.layers]).to(among.device)
    both = torch.cat([own, ~own])  # of which the largest are the largest and the smallest digests
    for group in among.replicas:
        dist.all_reduce(both, dist.ReduceOp.MAX, group=group)
    largest, smallest = both[: len(own)], ~both[len(own) :]
    differ = (largest != smallest).to(torch.int32)
    for group in among.others:  # processes whose own shard has equal replicas end, too
        dist.all_reduce(differ, dist.ReduceOp.MAX, group=group)
    return [layer.layer.name for layer, one in zip(among.layers, differ.tolist(), strict=True) if one]


def _places(layer: SparseLayer | ActiveLayer) -> Tensor:
    return torch.from_numpy(layer.index.flat()) if isinstance(layer, ActiveLayer) else layer.mask.nonzero().reshape(-1)


def digest(places: Tensor) -> Tensor:
    """A number of 64 bits for a set of places, as a scalar int64; other sets have other numbers, almost certainly."""
    x = places.to(torch.int64) + 1
    for factor in (-7046029254386353131, -4658895280553007687):  # SplitMix64 (Steele, Lea & Flood 2014)
        x = (x ^ (x >> 31)) * factor
    return (x ^ (x >> 29)).sum()
