"""Trained models as plain modules, and as what other tools of PyTorch know: CSR, 2:4 weights, pruned modules.

Each function gives a copy, and leaves the model and its training alone.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from rigl_backends.torch.active_conv import SparseConv2d
from rigl_backends.torch.active_linear import SparseLinear
from rigl_backends.torch.unfused import leave_fused_path
from rigl_core import serving
from rigl_core.adapter import errors


def to_dense(model: nn.Module) -> nn.Module:
    """A copy of a model in which modules of active weights are Linear and Conv2d modules again.

    Weights outside the masks are exactly 0. So it is what a model with masks is, and any tool of PyTorch can take it:
    ``safetensors``, ``torch.onnx.export``, ``torch.jit``, ``torch.quantization``.

    Args:
        model: a model; without modules of active weights the copy is like it.
    """
    return _replaced(model, _dense)


def to_csr(model: nn.Module) -> nn.Module:
    """A copy of a model whose sparse Linear modules multiply by PyTorch's own CSR matrices, for inference.

    Args:
        model: a trained model. SparseLinear modules and plain Linear modules with a density up to 0.25 become
            `CSRLinear`. Those of attention stay dense, since others read their weights.
    """

    def csr(module: nn.Module) -> nn.Module | None:
        if isinstance(module, SparseLinear) or (type(module) is nn.Linear and pays(module.weight)):
            return CSRLinear(module)
        return None

    return _replaced(model, csr).eval()


def to_prune(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a model that is pruned as `torch.nn.utils.prune` prunes, for tools that know this.

    Each ``weight`` becomes the parameter ``weight_orig``, which is 0 outside the mask, times the buffer
    ``weight_mask``; ``prune.remove`` makes it a plain one again. The topology no longer moves.

    Args:
        model: the model that was given to `sparsify`.
        masks: bool tensors by parameter name, as ``sparse.masks``. Layers whose mask is all true are left alone.

    Raises:
        TypeError, ValueError: naming ``masks`` and the layer.
    """
    if not isinstance(masks, Mapping):
        raise errors.wrong_type("masks", masks, "mapping of names to bool tensors, such as sparse.masks")
    own = to_dense(model)
    params = dict(own.named_parameters(remove_duplicate=False))
    for name, mask in masks.items():
        if name not in params:
            raise ValueError(f"masks has {name!r}, which is no parameter of model: give the model of the training.")
        if mask.dtype != torch.bool or mask.shape != params[name].shape:
            raise ValueError(
                f"masks has a {mask.dtype} tensor of shape {tuple(mask.shape)} for {name!r}: it must be bool, of shape "
                f"{tuple(params[name].shape)}."
            )
    for name, mask in masks.items():
        parent, _, leaf = name.rpartition(".")
        if not bool(mask.all()):
            prune.custom_from_mask(own.get_submodule(parent), leaf, mask.to(params[name].device))  # type: ignore[no-untyped-call]
    return own


class CSRLinear(nn.Module):
    """A Linear module for inference.

    Attributes:
        weight: sparse CSR (outputs, inputs).
        bias: (outputs,), or None.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, module: nn.Linear | SparseLinear) -> None:
        super().__init__()
        with warnings.catch_warnings():  # PyTorch calls its sparse matrices a beta, and says what it does not check
            warnings.filterwarnings("ignore", "Sparse (CSR tensor|invariant)", UserWarning)
            self.register_buffer("weight", _csr(module))
        self.register_buffer("bias", None if module.bias is None else module.bias.detach().clone())
        leave_fused_path(self)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs (..., outputs) of inputs (..., inputs)."""
        y = torch.mm(self.weight, x.reshape(-1, x.shape[-1]).t()).t().reshape(*x.shape[:-1], self.weight.shape[0])
        return y if self.bias is None else y + self.bias


def pays(weight: Tensor) -> bool:
    """`rigl_core.serving.pays`, for a tensor on any device and of any dtype."""
    return serving.pays(weight.detach().to("cpu", torch.float32).numpy())


def _csr(module: nn.Linear | SparseLinear) -> Tensor:
    """The weight as a CSR matrix."""
    if not isinstance(module, SparseLinear):
        return module.weight.detach().to_sparse_csr()
    flat = module.index.flat()
    order = np.argsort(flat)
    rows, columns = np.divmod(flat[order], module.in_features)
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=module.out_features))])
    crow, col = (torch.from_numpy(array.astype(np.int32)) for array in (starts, columns))
    shape = module.out_features, module.in_features
    values = module.weight.detach()[torch.from_numpy(order)]
    return torch.sparse_csr_tensor(crow, col, values, shape, check_invariants=True)


def _dense(module: nn.Module) -> nn.Module | None:
    """The dense module of one with active weights; None for any other."""
    own: nn.Linear | nn.Conv2d
    if isinstance(module, SparseLinear):
        own = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
    elif isinstance(module, SparseConv2d):
        sizes = module.in_channels, module.out_channels, module.kernel_size, module.stride
        options = {"padding": module.padding, "dilation": module.dilation, "groups": module.groups}
        own = nn.Conv2d(*sizes, **options, bias=False, device="meta")  # type: ignore[arg-type]
    else:
        return None
    own.weight = nn.Parameter(module.dense(), requires_grad=module.weight.requires_grad)
    own.bias = module.bias
    return own.train(module.training)


def _replaced(model: nn.Module, replacement: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """A copy of a model with other modules in the place of some; ``replacement`` gives None for the rest."""
    own = copy.deepcopy(model)
    for name, module in list(own.named_modules(remove_duplicate=False)):
        if (new := replacement(module)) is not None:
            if not name:
                return new
            parent, _, leaf = name.rpartition(".")
            setattr(own.get_submodule(parent), leaf, new)
    return own
