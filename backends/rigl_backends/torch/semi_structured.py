"""Linear modules with two of every four inputs, as GPUs multiply them: PyTorch's semi-structured weights."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.sparse import SparseSemiStructuredTensorCUTLASS, to_sparse_semi_structured

from rigl_backends.torch.leaving import to_dense
from rigl_backends.torch.unfused import leave_fused_path

_KEPT, _OF = 2, 4
_ROWS, _COLUMNS = 32, 64
"""What the sizes of a weight must be multiples of, for CUTLASS as for cuSPARSELt."""


def to_semi_structured(model: nn.Module) -> nn.Module:
    """A copy of a model whose 2:4 Linear modules hold half of their weights, and where they are, for inference on CUDA.

    Train with ``structure=NM(2, 4)``, then ``to_semi_structured(to_dense(model).half().cuda())``. Modules that do not
    fit stay as they are. On a CPU the weights are only packed: ``to_dense()`` of a weight shows them, and nothing
    multiplies by it.

    Args:
        model: a trained model, in float16 or bfloat16. A plain Linear module fits if its outputs are a multiple of 32,
            its inputs one of 64, and at most two of every four inputs side by side have a weight that is not 0.

    Raises:
        ValueError: if no module fits; it says why, for each Linear module.
    """
    own = to_dense(model).eval()
    linear = {name: module for name, module in own.named_modules() if type(module) is nn.Linear}
    reasons = {name: reason for name, module in linear.items() if (reason := _why_not(module.weight.detach()))}
    if len(reasons) == len(linear):
        told = "; ".join(f"{name or 'model'!r} {reason}" for name, reason in reasons.items()) or "there is none"
        raise ValueError(f"model has no Linear module whose weight can be semi-structured: {told}.")
    for name in linear.keys() - reasons.keys():
        linear[name].weight = nn.Parameter(_packed(linear[name].weight.detach()), requires_grad=False)
        leave_fused_path(linear[name])
    return own


def _why_not(weight: Tensor) -> str:
    """Why a weight cannot be semi-structured; empty if it can."""
    rows, columns = weight.shape
    if weight.dtype not in (torch.float16, torch.bfloat16):
        return f"is {str(weight.dtype).removeprefix('torch.')}: call model.half() or model.bfloat16() first"
    if rows % _ROWS or columns % _COLUMNS or not weight.numel():
        return f"has {rows} outputs and {columns} inputs, and not multiples of {_ROWS} and {_COLUMNS}"
    crowded = (weight.reshape(-1, _OF) != 0).sum(1) > _KEPT
    if count := int(crowded.sum()):
        return f"has {count} groups of {_OF} inputs with more than {_KEPT} weights: train it with structure=NM(2, 4)"
    return ""


def _packed(weight: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The PyTorch API of SparseSemiStructuredTensor", UserWarning)
        if weight.is_cuda:
            packed: Tensor = to_sparse_semi_structured(weight.contiguous())
            return packed
        from torch.sparse import _semi_structured_conversions as conversions  # private, so only where it is needed

        values, places = conversions.sparse_semi_structured_from_dense_cutlass(weight.contiguous())  # type: ignore[no-untyped-call]
        return SparseSemiStructuredTensorCUTLASS(
            weight.shape, values, places, packed_t=None, meta_t=None, compressed_swizzled_bitmask=None
        )
