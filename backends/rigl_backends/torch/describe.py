"""Which weights a PyTorch model multiplies with, and how often: read by running it once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from rigl_backends.torch.layers import choose_layers, layer_of, parameters_of, uses_by_parameter
from rigl_core.adapter import Axes, Fused, MultiplyAdds, Network, Parts, Stacked, made_of, positions_of


def describe(
    model: nn.Module,
    *example_inputs: Any,
    named_inputs: Mapping[str, Any] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    axes: Axes | None = None,
    stacked: Stacked | None = None,
    fused: Fused | None = None,
    examples: int = 1,
) -> Network:
    """Read a model's layers, and how often one example uses each of their weights, by running it once.

    The model is run in evaluation mode, without gradients, and is left as it was. What counts are the
    products that it computes, so custom modules count as well as PyTorch's own: grouped, depthwise and
    transposed convolutions, recurrent layers at each step, shared weights at each of their uses.

    Args:
        model: any module.
        *example_inputs: what the model is called with.
        named_inputs: keyword arguments of that call.
        include: name patterns of parameters to choose besides the default ones, as for `sparsify`.
        exclude: name patterns of parameters not to choose, as for `sparsify`.
        axes: in and out axes by name pattern, as for `sparsify`.
        stacked: axes along which layers are stacked, as for `sparsify`.
        fused: parts that are fused along an axis, as for `sparsify`.
        examples: how many examples the inputs hold: their batch size.

    Returns:
        The layers that `sparsify` would choose, with their positions. The other parameters of two and more
        axes are ``always_dense``, with 0 positions if the model does not multiply with them (embeddings).

    Raises:
        TypeError, ValueError: naming the parameter.
    """
    layers = choose_layers(model, include, exclude, axes, stacked, fused)
    chosen = parameters_of(model, layers)
    others = {
        parameter: layer_of(parameter, uses)
        for parameter, uses in uses_by_parameter(model)
        if parameter not in set(chosen) and not isinstance(parameter, UninitializedParameter) and parameter.ndim >= 2
    }
    names = {parameter: layer.name for parameter, layer in [*zip(chosen, layers, strict=True), *others.items()]}
    counted = MultiplyAdds(layers)
    with _plainly(model), _Watch(model, names, counted):
        model(*example_inputs, **(named_inputs or {}))
    return Network(
        tuple(layers),
        positions_of([*layers, *others.values()], counted.by_name, examples),
        tuple(others.values()),
        name=type(model).__name__,
    )


_FACTORS: dict[Any, tuple[int, int]] = {
    torch.ops.aten.mm: (0, 1),
    torch.ops.aten.addmm: (1, 2),
    torch.ops.aten.bmm: (0, 1),
    torch.ops.aten.baddbmm: (1, 2),
    torch.ops.aten.convolution: (0, 1),
}
"""The arguments that are multiplied."""

_JOINING = (torch.ops.aten.cat, torch.ops.aten.stack)

_FUSED_RECURRENT = (torch.ops.aten.mkldnn_rnn_layer, torch.ops.aten._cudnn_rnn, torch.ops.aten.miopen_rnn)
"""A whole recurrent layer: its input, (..., features), then its weights, one by one or in a list."""


class _Known(NamedTuple):
    """A part of a storage that was computed from weights alone."""

    start: int
    stop: float
    parts: Parts
    tensor: Tensor
    """Kept, so that no other tensor gets its storage."""


class _Watch(TorchDispatchMode):
    """Counts products while it is entered.

    A tensor that was made of weights alone counts for these weights; one that was also made of an input does not.
    Tensors are known by their storage.
    """

    def __init__(self, model: nn.Module, names: Mapping[nn.Parameter, str], counted: MultiplyAdds) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted = counted
        self._known: dict[int, list[_Known]] = {}
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.layout is not torch.strided:
                continue
            name = names.get(tensor) if isinstance(tensor, nn.Parameter) else None
            start, size = int(tensor.storage_offset()), tensor.numel()
            self._add(_Known(start, start + size, {name: size} if name else {}, tensor))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with self:
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        out = func(*args, **kwargs)
        packet = func.overloadpacket
        if packet in _FACTORS:
            factors = [self._find(args[i]) for i in reversed(_FACTORS[packet])]
            self.counted.add(factors, flop_registry[packet](*args, **kwargs, out_val=out) // 2)
        elif packet in _FUSED_RECURRENT:
            weights = args[1] if isinstance(args[1], list | tuple) else args[1:5]
            parts = made_of([found for found in map(self._find, weights) if found], joined=True) or {}
            self.counted.add([parts], sum(parts.values()) * math.prod(args[0].shape[:-1]))
        self._follow([*tree_leaves(args), *tree_leaves(kwargs)], tree_leaves(out), joined=packet in _JOINING)
        return out

    def _follow(self, inputs: Iterable[Any], outputs: Iterable[Any], joined: bool) -> None:
        """Remember what comes from weights alone."""
        sources = [self._find(tensor) for tensor in inputs if isinstance(tensor, Tensor)]
        parts = made_of(sources, joined=joined) if sources else None
        if parts is None:
            return
        for tensor in outputs:
            if isinstance(tensor, Tensor) and tensor.layout is torch.strided and self._find(tensor) is None:
                self._add(_Known(0, math.inf, parts, tensor))

    def _add(self, known: _Known) -> None:
        self._known.setdefault(known.tensor.untyped_storage()._cdata, []).append(known)

    def _find(self, tensor: Any) -> Parts | None:
        if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided:
            return None
        known = self._known.get(tensor.untyped_storage()._cdata, ())
        return next((part.parts for part in known if part.start <= tensor.storage_offset() < part.stop), None)


@contextmanager
def _plainly(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, and attention by its own weights' products."""
    training = {module: module.training for module in model.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, was_training in training.items():
            module.training = was_training
