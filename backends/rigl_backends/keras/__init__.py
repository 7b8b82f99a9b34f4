"""RigL for Keras on JAX and on PyTorch: ``sparsify(keras.optimizers.Adam(), recipe, model=model)``, and then ``fit()``.

On TensorFlow these names are those of `rigl_backends.tf`, which offers more.
"""

import keras as _keras

if _keras.backend.backend() == "tensorflow":
    from rigl_backends.tf import SparseOptimizer, choose_layers, plan, sparsify
elif _keras.backend.backend() in ("jax", "torch"):
    from rigl_backends.keras.optimizer import SparseOptimizer
    from rigl_backends.keras.sparsify import sparsify  # type: ignore[assignment]
    from rigl_backends.keras_common.layers import choose_layers
    from rigl_backends.keras_common.planned import plan
else:
    raise ImportError(
        f"rigl_backends.keras needs Keras on JAX, PyTorch or TensorFlow, and Keras runs on "
        f"{_keras.backend.backend()!r}: set KERAS_BACKEND before Keras is imported."
    )

__all__ = ["SparseOptimizer", "choose_layers", "plan", "sparsify"]
