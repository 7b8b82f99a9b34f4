"""RigL for TensorFlow and Keras: ``sparsify(keras.optimizers.Adam(), recipe)``, and the training stays as it was."""

try:
    import tensorflow as _tensorflow  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "tensorflow":
        raise
    raise ImportError("rigl_backends.tf needs TensorFlow: pip install 'rigl-core[tensorflow]'") from error

import keras as _keras

if _keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"rigl_backends.tf needs Keras on TensorFlow, and Keras runs on {_keras.backend.backend()!r}: "
        "set KERAS_BACKEND=tensorflow before Keras is imported."
    )

from rigl_backends.keras_common.layers import choose_layers
from rigl_backends.tf import namespace as tensorflow_namespace
from rigl_backends.tf.active_conv import SparseConv2D
from rigl_backends.tf.active_dense import SparseDense
from rigl_backends.tf.describe import describe
from rigl_backends.tf.log import TopologyLog
from rigl_backends.tf.optimizer import SparseOptimizer
from rigl_backends.tf.resume import resume
from rigl_backends.tf.saliency import grasp_scores, synflow_scores
from rigl_backends.tf.saving import EarlyStopping
from rigl_backends.tf.sparsify import plan, sparsify

__all__ = [
    "EarlyStopping",
    "SparseConv2D",
    "SparseDense",
    "SparseOptimizer",
    "TopologyLog",
    "choose_layers",
    "describe",
    "grasp_scores",
    "plan",
    "resume",
    "sparsify",
    "synflow_scores",
    "tensorflow_namespace",
]
