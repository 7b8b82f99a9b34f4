"""What modules that hold only their active weights have in common."""

from __future__ import annotations

import math
import zlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rigl_backends.torch.link import Floats, Link, Sample
from rigl_backends.torch.moving import positions, write
from rigl_core.adapter import Index, Products

PLACES = "_places"
"""What follows the name of a weight in the state dict, for its places."""


class SparseModule(nn.Module):
    """A module that holds only its active weights; `sparsify` makes it of a dense one, in place.

    In its state dict ``weight_places`` has the flat index of each number of ``weight``. It also loads the dense weight
    of the dense module; what lies outside its topology then waits for the topology that the optimizer's state brings.

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
    index: Index
    topology: Tensor
    link: Link
    loaded: npt.NDArray[np.float32] | None

    def __init__(self) -> None:
        raise TypeError(f"a {type(self).__name__} is made by rigl_backends.torch.sparsify(..., storage='active').")

    @classmethod
    def become(cls, module: nn.Module, index: Index, weight: Tensor) -> Self:
        """Make a dense module sparse: the same object, with the same parameters.

        Args:
            module: the module.
            index: where its active weights are.
            weight: these, float32, in storage order.
        """
        module.__class__ = cls
        own: Any = module
        write(own.weight, weight)
        own.weight.grad = None
        own.link, own.loaded = Link(), None
        own.register_buffer("topology", torch.zeros((), dtype=torch.int64), persistent=False)
        own.take_index(index)
        sparse: Self = own
        return sparse

    # What kinds of modules have of their own.

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of the dense weight."""

    @abstractmethod
    def multiply(self, x: Tensor, weight: Floats) -> tuple[Tensor, Tensor]:
        """The outputs of inputs, without the bias; and the inputs as `multiply_back` and samples have them."""

    @abstractmethod
    def multiply_back(
        self, inputs: Tensor, weight: Floats, dy: Tensor, like: Tensor, *, needs_inputs: bool
    ) -> tuple[Tensor | None, Tensor, Sample]:
        """The gradients of the inputs and of the weights, and the sample.

        Args:
            inputs: as `multiply` gave them.
            weight: the active weights.
            dy: the gradient of the outputs.
            like: a tensor on the meta device, with the shape and the strides of the inputs.
            needs_inputs: whether the gradient of the inputs is wanted.
        """

    @abstractmethod
    def products(self, active: Floats, samples: Sequence[Sample]) -> Products:
        """The gradient of the weights that samples define."""

    # What is the same for all.

    def take_index(self, index: Index) -> None:
        """Hold other connections; the caller gives the weights."""
        self.index = index
        self._digest = zlib.crc32(index.columns.data, zlib.crc32(index.pointers.data))
        self.topology.fill_(self._digest)

    def dense(self) -> Tensor:
        """The weight as the dense module holds it, 0 outside the mask."""
        return torch.from_numpy(self.index.dense(self.weight.detach().numpy())).reshape(self.shape)

    @property
    def density(self) -> float:
        """The share of the connections that is active."""
        return self.index.size / max(self.index.rows * self.index.cols, 1)

    def product(self, x: Tensor) -> Tensor:
        """The outputs without the bias.

        Raises:
            TypeError, ValueError: if the inputs, or the module, have another dtype, device or size than they can have.
        """
        self.check(x)
        y: Tensor = _Product.apply(x, self.weight, self)  # type: ignore[no-untyped-call]
        return y

    def check(self, x: Tensor) -> None:
        """Refuse inputs, or a module, of a dtype, device or topology that the kernels do not have."""
        name = type(self).__name__
        if x.dtype != torch.float32 or self.weight.dtype != torch.float32:
            raise TypeError(
                f"a {name} got {x.dtype} inputs for {self.weight.dtype} weights: its kernels multiply float32. "
                "Leave it out of autocast and half precision, or use storage='masks'."
            )
        if x.device.type != "cpu" or self.weight.device.type != "cpu":
            raise ValueError(
                f"a {name} is on {self.weight.device}, and its inputs are on {x.device}: its kernels run on "
                "CPUs. Use storage='masks' elsewhere."
            )
        if self.weight.numel() != self.index.size or int(self.topology) != self._digest:
            raise ValueError(
                f"a {name} got weights of another topology than its own, for example as an average of weights: "
                "average the dense() weights, or load a whole state dict."
            )

    def reset_parameters(self) -> None:
        """As the dense module draws its initial values, for the active weights alone."""
        bound = 1 / math.sqrt(self.index.cols) if self.index.cols else 0
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
        if places is None:
            if tuple(weight.shape) != self.shape:
                raise ValueError(
                    f"it has shape {tuple(weight.shape)}: expected {self.shape}, or active weights with places."
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


class _Product(torch.autograd.Function):
    """The outputs of a module without its bias; both gradients come from one pass over the active weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, module: SparseModule) -> Tensor:
        ctx.call = module.link.called()
        y, inputs = module.multiply(x.detach(), weight.detach().numpy())
        ctx.save_for_backward(inputs, weight)
        ctx.module, ctx.index, ctx.like = module, module.index, torch.empty_like(x, device="meta")
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        inputs, weight = ctx.saved_tensors
        module: SparseModule = ctx.module
        if ctx.index is not module.index:
            raise RuntimeError(
                "backward() came after an update of the topology: call it before the optimizer's step()."
            )
        needs_inputs, needs_weight, _ = ctx.needs_input_grad
        dx, gradient, sample = module.multiply_back(
            inputs, weight.detach().numpy(), dy, ctx.like, needs_inputs=needs_inputs
        )
        if needs_weight and module.link.reads_samples():
            # Until the optimizer's step, users may write into what inputs and gradients share memory with.
            module.link.add(ctx.call, tuple(part.copy() if isinstance(part, np.ndarray) else part for part in sample))
        return dx, gradient if needs_weight else None, None
