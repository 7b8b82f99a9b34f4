"""`SparseLinear`: a Linear module that holds only its active weights."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rigl_backends.torch.link import Link
from rigl_backends.torch.moving import positions
from rigl_core.adapter import Index, best_kernels

PLACES = "_places"
"""What follows the name of a weight in the state dict, for its places."""


class SparseLinear(nn.Module):
    """A Linear module that holds only its active weights; `sparsify` makes it of `torch.nn.Linear`, in place.

    In its state dict ``weight_places`` has the flat index of each number of ``weight``. It also loads the dense weight
    of a Linear module; what lies outside its topology then waits for the topology that the optimizer's state brings.

    Attributes:
        weight: the active weights, flat, in storage order (`rigl_core.sparse.index`).
        bias: of the outputs, or None.
        index: where the weights are.
        topology: a number for the places. Averages of a model copy it, and then refuse weights of other places.
        link: to the training.
        loaded: a dense weight that was loaded, flat, until the next step.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    topology: Tensor
    in_features: int
    out_features: int
    link: Link
    loaded: npt.NDArray[np.float32] | None

    def __init__(self) -> None:
        raise TypeError("a SparseLinear is made by rigl_backends.torch.sparsify(..., storage='active').")

    @staticmethod
    def become(module: nn.Linear, index: Index, weight: Tensor) -> SparseLinear:
        """Make a Linear module sparse: the same object, with the same parameters.

        Args:
            module: the module.
            index: where its active weights are.
            weight: these, float32, in storage order.
        """
        module.__class__ = SparseLinear  # type: ignore[assignment]
        own: Any = module
        own.weight.data = weight
        own.weight.grad = None
        own.link, own.loaded = Link(), None
        own.in_features, own.out_features = index.cols, index.rows
        own.register_forward_pre_hook(_use_no_fused_path)
        own.register_buffer("topology", torch.zeros((), dtype=torch.int64), persistent=False)
        own.take_index(index)
        sparse: SparseLinear = own
        return sparse

    def take_index(self, index: Index) -> None:
        """Hold other connections; the caller gives the weights."""
        self.index = index
        self._digest = zlib.crc32(index.columns.data, zlib.crc32(index.pointers.data))
        self.topology.fill_(self._digest)

    def dense(self) -> Tensor:
        """The weight as a Linear module holds it: (outputs, inputs), 0 outside the mask."""
        values = self.index.dense(self.weight.detach().numpy())
        return torch.from_numpy(values).reshape(self.out_features, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs (..., outputs) of inputs (..., inputs); see `product` for what is refused."""
        y = self.product(x)
        return y if self.bias is None else y + self.bias

    def product(self, x: Tensor) -> Tensor:
        """The outputs without the bias.

        Raises:
            TypeError, ValueError: if the inputs, or the module, have another dtype, device or size than they can have.
        """
        _check(self, x)
        y: Tensor = _Product.apply(x, self.weight, self)  # type: ignore[no-untyped-call]
        return y

    def extra_repr(self) -> str:
        """As that of a Linear module, and the density."""
        density = self.index.size / max(self.in_features * self.out_features, 1)
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, "
            f"density={density:.3g}"
        )

    def reset_parameters(self) -> None:
        """As a Linear module draws its initial values, for the active weights alone."""
        bound = 1 / math.sqrt(self.in_features) if self.in_features else 0
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    # Saving and loading.

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight" + PLACES] = torch.from_numpy(self.index.flat())

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        own = dict(state_dict)
        weight, places = own.get(prefix + "weight"), own.pop(prefix + "weight" + PLACES, None)
        if isinstance(weight, Tensor):
            try:
                own[prefix + "weight"] = self._loaded(weight.detach().to("cpu", torch.float32), places)
            except ValueError as error:
                error_msgs.append(f"{prefix}weight: {error}")
                return
        super()._load_from_state_dict(own, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)

    def _loaded(self, weight: Tensor, places: Tensor | None) -> Tensor:
        """The active weights of a saved weight, which is active or dense; of active ones, take over the places."""
        shape = (self.out_features, self.in_features)
        if places is None:
            if tuple(weight.shape) != shape:
                raise ValueError(
                    f"it has shape {tuple(weight.shape)}: expected {shape}, or active weights with places."
                )
            self.loaded = weight.reshape(-1).numpy().copy()
            return torch.from_numpy(self.index.values(self.loaded))
        flat = places.cpu().numpy()
        if weight.shape != flat.shape:
            raise ValueError(f"it has shape {tuple(weight.shape)}, and {flat.size} places.")
        index = self.index.like(np.sort(flat))
        if self.link.on_index is not None:
            self.link.on_index(index)
        else:
            self.weight.data = torch.empty(index.size)
            self.take_index(index)
        self.loaded = None
        return weight[positions(places.cpu(), torch.from_numpy(index.flat()))]


def _use_no_fused_path(module: nn.Module, inputs: Any) -> None:
    """A hook that does nothing: with one, a TransformerEncoderLayer leaves its fused path, which reads weights."""


def _check(module: SparseLinear, x: Tensor) -> None:
    """Refuse inputs, or a module, of a dtype, device, size or topology that the kernels do not have."""
    if x.dtype != torch.float32 or module.weight.dtype != torch.float32:
        raise TypeError(
            f"a SparseLinear got {x.dtype} inputs for {module.weight.dtype} weights: its kernels multiply float32. "
            "Leave it out of autocast and half precision, or use storage='masks'."
        )
    if x.device.type != "cpu" or module.weight.device.type != "cpu":
        raise ValueError(
            f"a SparseLinear is on {module.weight.device}, and its inputs are on {x.device}: its kernels run on "
            "CPUs. Use storage='masks' elsewhere."
        )
    if x.shape[-1:] != (module.in_features,):
        raise ValueError(f"inputs have shape {tuple(x.shape)}: the module has {module.in_features} features.")
    if module.weight.numel() != module.index.size or int(module.topology) != module._digest:
        raise ValueError(
            "a SparseLinear got weights of another topology than its own, for example as an average of weights: "
            "average the dense() weights, or load a whole state dict."
        )


class _Product(torch.autograd.Function):
    """y = W x, whose gradients both come from one pass over the active weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, module: SparseLinear) -> Tensor:
        ctx.call = module.link.called()
        features = x.detach().reshape(math.prod(x.shape[:-1]), x.shape[-1]).t().contiguous()
        y = best_kernels().forward(
            module.index, weight.detach().numpy(), features.numpy(), threads=torch.get_num_threads()
        )
        ctx.save_for_backward(features, weight)
        ctx.module, ctx.index, ctx.shape = module, module.index, x.shape
        return torch.from_numpy(y).t().reshape(*x.shape[:-1], module.out_features)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        features, weight = ctx.saved_tensors
        module = ctx.module
        if ctx.index is not module.index:
            raise RuntimeError(
                "backward() came after an update of the topology: call it before the optimizer's step()."
            )
        outputs = dy.reshape(features.shape[1], module.out_features).t().contiguous()
        needs_inputs, needs_weight, _ = ctx.needs_input_grad
        x, d = features.numpy(), outputs.numpy()
        dx, gradient = best_kernels().backward(
            module.index, weight.detach().numpy(), x, d, needs_inputs=needs_inputs, threads=torch.get_num_threads()
        )
        if needs_weight and module.link.reads_samples():
            module.link.add(ctx.call, (x, d))
        own = None if dx is None else torch.from_numpy(dx).t().reshape(ctx.shape)
        return own, torch.from_numpy(gradient) if needs_weight else None, None
