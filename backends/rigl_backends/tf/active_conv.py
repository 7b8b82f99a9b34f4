"""`SparseConv2D`: a two-dimensional convolution of Keras that holds only its active weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from rigl_backends.tf.active_kernel import ActiveKernel
from rigl_backends.tf.images import ImageMultiplier


@keras.saving.register_keras_serializable(package="rigl_backends")
class SparseConv2D(ActiveKernel, keras.layers.Conv2D):  # type: ignore[misc]
    """A Conv2D layer that holds only its active weights; `sparsify` makes it of `keras.layers.Conv2D`, in place.

    ``SparseConv2D(filters, kernel_size, ...)`` in a model is *described*, as `SparseDense` is. What is said there of
    variables and products is true here.
    """

    def __init__(
        self, filters: int, kernel_size: Any, *args: Any, active: int | None = None, width: int = 1, **kwargs: Any
    ) -> None:
        """Describe a layer.

        Args:
            filters: channels of the outputs.
            kernel_size: one number, or the height and the width of the kernel.
            *args: as for a Conv2D layer.
            active: the number of active weights, of a layer whose weights are to be loaded; as `get_config` has it.
            width: columns of a tile of the index; the same.
            **kwargs: as for a Conv2D layer.
        """
        super().__init__(filters, kernel_size, *args, **kwargs)
        self._describe(active, width)

    @property
    def _multiplier(self) -> ImageMultiplier:
        first = self.data_format == "channels_first"
        return ImageMultiplier(self.kernel_size, self.strides, self.padding, self.dilation_rate, self.groups, first)

    @property
    def _channels(self) -> int:
        """The axis of images that has the channels."""
        return 1 if self.data_format == "channels_first" else -1

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the variables; a kernel without connections has no numbers.

        Raises:
            ValueError: if the groups do not divide the channels, or the images are smaller than the kernel.
        """
        channels = int(input_shape[self._channels] or 0)
        if channels % self.groups:
            raise ValueError(f"inputs have {channels} channels, which {self.groups} groups do not divide.")
        self.compute_output_shape(input_shape)
        self.input_spec = keras.layers.InputSpec(min_ndim=4, axes={self._channels: channels})
        self._add_variables((*self.kernel_size, channels // self.groups, self.filters))

    def convolution_op(self, inputs: Any, kernel: Any) -> tf.Tensor:
        """What the layer's call does before bias and activation; the kernel is the layer's own."""
        return self.product(inputs)

    def product(self, x: Any) -> tf.Tensor:
        """The outputs without bias and activation.

        Raises:
            TypeError, ValueError: for inputs of another dtype or shape, or if XLA compiles the call.
        """
        return self._multiplied(x, self._outputs)

    def _outputs(self, x: tf.Tensor) -> Sequence[int | None]:
        channels = self.link.shape[-2] * self.groups
        if x.shape.rank != 4 or x.shape[self._channels] != channels:
            raise ValueError(
                f"inputs have shape {x.shape}: layer {self.name!r} reads images of {channels} channels, "
                f"{self.data_format}."
            )
        shape: Sequence[int | None] = self.compute_output_shape(tuple(x.shape))
        return shape
