"""RigL for PyTorch: one line, ``sparsify(model, optimizer, recipe)``, and the training loop stays as it was."""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError("rigl_backends.torch needs PyTorch: pip install 'rigl-core[torch]'") from error

from rigl_backends.torch import namespace as torch_namespace
from rigl_backends.torch.active_conv import SparseConv2d
from rigl_backends.torch.active_linear import SparseLinear
from rigl_backends.torch.describe import describe
from rigl_backends.torch.export import export
from rigl_backends.torch.handle import SparseTraining
from rigl_backends.torch.layers import choose_layers
from rigl_backends.torch.leaving import CSRLinear, to_csr, to_dense, to_prune
from rigl_backends.torch.saliency import grasp_scores, synflow_scores
from rigl_backends.torch.semi_structured import to_semi_structured
from rigl_backends.torch.sparsify import plan, sparsify

__all__ = [
    "CSRLinear",
    "SparseConv2d",
    "SparseLinear",
    "SparseTraining",
    "choose_layers",
    "describe",
    "export",
    "grasp_scores",
    "plan",
    "sparsify",
    "synflow_scores",
    "to_csr",
    "to_dense",
    "to_prune",
    "to_semi_structured",
    "torch_namespace",
]
