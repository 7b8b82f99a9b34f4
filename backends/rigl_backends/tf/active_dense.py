"""`SparseDense`: a Dense layer of Keras that holds only its active weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from rigl_backends.tf.active_kernel import ActiveKernel
from rigl_backends.tf.multiplying import MatrixMultiplier


@keras.saving.register_keras_serializable(package="rigl_backends")
class SparseDense(ActiveKernel, keras.layers.Dense):  # type: ignore[misc]
    """A Dense layer that holds only its active weights; `sparsify` makes it of `keras.layers.Dense`, in place.

    ``SparseDense(units, ...)`` in a model is *described*: its kernel is never dense. `sparsify` gives it connections,
    with initial values as its ``kernel_initializer`` has them; before that it cannot be called.

    Its variables are those of `rigl_backends.tf.active_kernel.ActiveKernel`. Its products run on the host, by NumPy or
    numba: eagerly and in a ``tf.function``, but not under XLA, in exported models or on other devices.
    """

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        *,
        active: int | None = None,
        width: int = 1,
        **kwargs: Any,
    ) -> None:
        """Describe a layer.

        Args:
            units: outputs.
            activation: as of a Dense layer.
            use_bias: as of a Dense layer.
            active: the number of active weights, of a layer whose weights are to be loaded; as `get_config` has it.
            width: columns of a tile of the index; the same.
            **kwargs: as for a Dense layer.
        """
        super().__init__(units, activation, use_bias, **kwargs)
        self._describe(active, width)

    @property
    def _multiplier(self) -> MatrixMultiplier:
        return MatrixMultiplier()

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the variables; a kernel without connections has no numbers."""
        inputs = int(input_shape[-1] or 0)
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: inputs})
        self._add_variables((inputs, self.units))

    def call(self, inputs: Any, training: bool | None = None) -> tf.Tensor:
        """The outputs (..., outputs) of inputs (..., inputs); see `product` for what is refused."""
        y = self.product(inputs)
        y = y if self.bias is None else tf.nn.bias_add(y, self.bias)
        return y if self.activation is None else self.activation(y)

    def product(self, x: Any) -> tf.Tensor:
        """The outputs without bias and activation.

        Raises:
            TypeError, ValueError: for inputs of another dtype or size, or if XLA compiles the call.
        """
        return self._multiplied(x, self._outputs)

    def _outputs(self, x: tf.Tensor) -> Sequence[int | None]:
        if x.shape[-1] != self.link.shape[0]:
            raise ValueError(f"inputs have shape {x.shape}: layer {self.name!r} has {self.link.shape[0]} features.")
        return [*x.shape[:-1], self.units]
