"""RigL for JAX: ``sparsify(inner, recipe)`` is an optax transformation, and the training loop stays as it was."""

try:
    import jax as _jax  # noqa: F401
    import optax as _optax  # noqa: F401
except ModuleNotFoundError as error:
    if error.name not in ("jax", "jaxlib", "optax"):
        raise
    raise ImportError("rigl_backends.jax needs JAX and optax: pip install 'rigl-core[jax]'") from error

from rigl_backends.jax import namespace as jax_namespace
from rigl_backends.jax.active_trees import dense
from rigl_backends.jax.active_weight import ActiveWeight
from rigl_backends.jax.begin import begin
from rigl_backends.jax.describe import describe
from rigl_backends.jax.handle import SparseState, apply_masks, check_replicas, masks, step, table
from rigl_backends.jax.layers import choose_layers
from rigl_backends.jax.leaving import to_bcoo
from rigl_backends.jax.resume import resume
from rigl_backends.jax.saliency import grasp_scores, synflow_scores
from rigl_backends.jax.sparse_conv import sparse_conv
from rigl_backends.jax.sparse_linear import sparse_linear
from rigl_backends.jax.sparsify import plan, sparsify
from rigl_backends.jax.topology import topology

__all__ = [
    "ActiveWeight",
    "SparseState",
    "apply_masks",
    "begin",
    "check_replicas",
    "choose_layers",
    "dense",
    "describe",
    "grasp_scores",
    "jax_namespace",
    "masks",
    "plan",
    "resume",
    "sparse_conv",
    "sparse_linear",
    "sparsify",
    "step",
    "synflow_scores",
    "table",
    "to_bcoo",
    "topology",
]
