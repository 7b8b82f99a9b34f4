"""`SparseDense`: a Dense layer of Keras that holds only its active weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from rigl_backends.tf.link import Link, call_host
from rigl_backends.tf.moving import exchange
from rigl_backends.tf.namespace import in_xla
from rigl_core.adapter import Index


@keras.saving.register_keras_serializable(package="rigl_backends")
class SparseDense(keras.layers.Dense):  # type: ignore[misc]
    """A Dense layer that holds only its active weights; `sparsify` makes it of `keras.layers.Dense`, in place.

    ``SparseDense(units, ...)`` in a model is *described*: its kernel is never dense. `sparsify` gives it connections,
    with initial values as its ``kernel_initializer`` has them; before that it cannot be called.

    Its variables are ``kernel``, float32 (active,), in storage order (`rigl_core.sparse.index`); ``bias``; and two that
    are not trained and say where the weights are: ``pointers``, int32, and ``columns``, uint16 (active,). So whatever
    saves variables saves the topology too.

    Its products run on the host, by NumPy or numba: eagerly and in a ``tf.function``, but not under XLA, in exported
    models or on other devices.
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
        self._active, self._width, self.supports_jit = active, width, False

    @property
    def is_described(self) -> bool:
        """Whether it awaits its connections."""
        return self._active is None

    @staticmethod
    def become(layer: keras.layers.Dense, index: Index, values: npt.NDArray[np.float32]) -> None:
        """Make a built Dense layer sparse: the same object, with the same kernel variable, of another shape.

        Args:
            layer: the layer, or a described one.
            index: where its active weights are.
            values: these, in storage order.
        """
        layer.__class__ = SparseDense
        layer._active, layer._width, layer.supports_jit = index.size, index.width, False
        exchange(layer._kernel, values)
        layer._tracker.unlock()
        layer._add_places(index.cols)
        layer._tracker.lock()
        for variable, array in zip(layer.places, (index.pointers, index.columns), strict=True):
            variable.assign(array)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the variables; a kernel without connections has no numbers."""
        inputs = int(input_shape[-1] or 0)
        self._kernel = self.add_weight(name="kernel", shape=(self._active or 0,), initializer="zeros")
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.units,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        if self.is_described:
            self._kernel.link = Link((inputs, self.units), self._width, ())
        else:
            self._add_places(inputs)
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: inputs})
        self.built = True

    def _add_places(self, inputs: int) -> None:
        """Make the variables of the places, and the host's side of the layer."""
        segments = -(-inputs // self._width) * self.units
        self._pointers = self._add("pointers", segments + 1, "int32")
        self._columns = self._add("columns", self._active, "uint16")
        self._kernel.link = Link((inputs, self.units), self._width, self.places)

    def _add(self, name: str, size: int | None, dtype: str) -> keras.Variable:
        return self.add_weight(name=name, shape=(size,), dtype=dtype, initializer="zeros", trainable=False)

    @property
    def link(self) -> Link:
        """The host's side; it belongs to the kernel, by which an optimizer finds it."""
        link: Link = self._kernel.link
        return link

    @property
    def places(self) -> tuple[keras.Variable, keras.Variable]:
        """The variables of the index: its pointers and its columns."""
        return self._pointers, self._columns

    @property
    def index(self) -> Index:
        """Where the active weights are."""
        return self.link.index(*(variable.numpy() for variable in self.places))

    def dense(self) -> npt.NDArray[np.float32]:
        """The kernel as a Dense layer holds it: (inputs, outputs), 0 outside the mask."""
        return self.index.dense(self._kernel.numpy()).reshape(self.link.shape)

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
        if self.is_described:
            raise ValueError(_DESCRIBED.format(self.name))
        x = tf.convert_to_tensor(x)
        if x.dtype != tf.float32:
            raise TypeError(f"layer {self.name!r} got {x.dtype.name} inputs: the kernels multiply float32.")
        if x.shape[-1] != self.link.shape[0]:
            raise ValueError(f"inputs have shape {x.shape}: layer {self.name!r} has {self.link.shape[0]} features.")
        if in_xla():
            raise ValueError(
                f"layer {self.name!r} holds only its active weights, and XLA cannot call their kernels: compile with "
                "jit_compile=False, or use storage='masks'."
            )
        arrays = [tf.convert_to_tensor(variable.value) for variable in (*self.places, self._kernel)]
        return _product(self.link, x, *arrays)

    # Saving and loading.

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> Any:
        if save_type == "savedmodel":
            raise ValueError(
                f"layer {self.name!r} holds only its active weights, and its kernels cannot be exported: export a "
                "model of Dense layers, whose kernels take the layers' dense()."
            )
        return super()._trackable_children(save_type, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Plain data."""
        return {**super().get_config(), "active": self._active, "width": self._width}

    def save_own_variables(self, store: Any) -> None:
        """Put the variables into a store of Keras."""
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: Any) -> None:
        """Take what a layer with as many active weights saved."""
        keras.layers.Layer.load_own_variables(self, store)


_DESCRIBED = "layer {!r} was described, and has no connections: call sparsify(..., model=model, storage='active')."


def check_made(model: keras.layers.Layer) -> None:
    """Refuse a model of which a layer is described still."""
    for layer in model._flatten_layers():
        if isinstance(layer, SparseDense) and layer.is_described:
            raise ValueError(_DESCRIBED.format(layer.name))


def check_dense(model: keras.layers.Layer, *, but_described: bool = False) -> None:
    """Refuse a model of which a layer holds only its active weights: what reads dense kernels would be wrong.

    Args:
        model: the model.
        but_described: whether it may have layers that are described.
    """
    for layer in model._flatten_layers():
        if isinstance(layer, SparseDense) and not (but_described and layer.is_described):
            raise ValueError(
                f"model has the layer {layer.name!r}, which holds only its active weights: call this before sparsify."
            )


def _product(link: Link, x: tf.Tensor, *arrays: tf.Tensor) -> tf.Tensor:
    """y = x W, whose gradients both come from one pass over the active weights: pointers, columns and values."""
    *places, kernel = arrays

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def multiply(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
        y, call = call_host(link.forward, [*places, kernel, x], tf.float32, tf.int64)

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def gradients(x: tf.Tensor, kernel: tf.Tensor, dy: tf.Tensor) -> tuple[Sequence[tf.Tensor], Callable[..., Any]]:
            given = [*link.clock(), call, *places, kernel, x, dy]
            dx, own = call_host(link.backward, given, tf.float32, tf.float32)
            return (tf.ensure_shape(dx, x.shape), tf.ensure_shape(own, kernel.shape)), _refuse

        return tf.ensure_shape(y, [*x.shape[:-1], link.shape[1]]), lambda dy: gradients(x, kernel, dy)

    return multiply(x, kernel)


def _refuse(*_: tf.Tensor) -> Any:
    raise NotImplementedError(
        "a SparseDense layer is differentiable once, and this is a gradient of its gradient: use storage='masks'."
    )
