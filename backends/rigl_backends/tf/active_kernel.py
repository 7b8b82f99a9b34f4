"""What layers of Keras share that hold only the active weights of their kernel."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from rigl_backends.keras_common.variables import shape_of
from rigl_backends.tf.link import Link, call_host
from rigl_backends.tf.moving import exchange
from rigl_backends.tf.multiplying import Multiplier
from rigl_backends.tf.namespace import in_xla
from rigl_core.adapter import Index


class ActiveKernel(keras.layers.Layer):  # type: ignore[misc]
    """A base beside the layer of Keras whose kernel it holds.

    Its variables are ``kernel``, float32 (active,), in storage order (`rigl_core.sparse.index`); ``bias``; and two that
    are not trained and say where the weights are: ``pointers``, int32, and ``columns``, uint16 (active,). So whatever
    saves variables saves the topology too.
    """

    @property
    @abstractmethod
    def _multiplier(self) -> Multiplier:
        """What the host multiplies with."""

    def _describe(self, active: int | None, width: int) -> None:
        """Take the number of active weights, None if it is still to be chosen, and the width of the index's tiles."""
        self._active, self._width, self.supports_jit = active, width, False

    @property
    def is_described(self) -> bool:
        """Whether it awaits its connections."""
        return self._active is None

    @classmethod
    def become(cls, layer: keras.layers.Layer, index: Index, values: npt.NDArray[np.float32]) -> None:
        """Make a built layer sparse: the same object, with the same kernel variable, of another shape.

        Args:
            layer: a dense layer, or a described one.
            index: where its active weights are.
            values: these, in storage order.
        """
        shape, layer.__class__ = shape_of(layer._kernel), cls
        layer._describe(index.size, index.width)
        exchange(layer._kernel, values)
        layer._tracker.unlock()
        layer._add_places(shape)
        layer._tracker.lock()
        for variable, array in zip(layer.places, (index.pointers, index.columns), strict=True):
            variable.assign(array)

    def become_dense(self) -> None:
        """Be the dense layer of Keras that it was made of, with zeros outside the mask."""
        kernel, variable = self.dense(), self._kernel
        for name in ("_pointers", "_columns"):
            self._untrack_variable(getattr(self, name))
            super(keras.layers.Layer, self).__delattr__(name)  # as Keras does, without collecting all garbage
        self.__class__ = next(cls for cls in type(self).__bases__ if cls is not ActiveKernel)
        del variable.link, self._active, self._width
        self.supports_jit = True
        exchange(variable, kernel)

    def _add_variables(self, shape: tuple[int, ...]) -> None:
        """Make the variables, given the dense kernel's shape; a kernel without connections has no numbers."""
        self._kernel = self.add_weight(name="kernel", shape=(self._active or 0,), initializer="zeros")
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=shape[-1:],
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        if self.is_described:
            self._kernel.link = Link(shape, self._width, (), self._multiplier)
        else:
            self._add_places(shape)
        self.built = True

    def _add_places(self, shape: tuple[int, ...]) -> None:
        """Make the variables of the places, and the host's side of the layer."""
        segments = -(-int(np.prod(shape[:-1])) // self._width) * shape[-1]
        self._pointers = self._add("pointers", segments + 1, "int32")
        self._columns = self._add("columns", self._active, "uint16")
        self._kernel.link = Link(shape, self._width, self.places, self._multiplier)

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
        """The kernel as a dense layer holds it, 0 outside the mask."""
        return self.index.dense(self._kernel.numpy()).reshape(self.link.shape)

    def _multiplied(self, x: Any, shape: Callable[[tf.Tensor], Sequence[int | None]]) -> tf.Tensor:
        """The outputs without bias and activation.

        Args:
            x: the inputs.
            shape: gives the outputs' shape, or raises a ValueError if inputs have another one than the layer reads.

        Raises:
            TypeError, ValueError: for inputs of another dtype or size, or if XLA compiles the call.
        """
        if self.is_described:
            raise ValueError(_DESCRIBED.format(self.name))
        x = tf.convert_to_tensor(x)
        if x.dtype != tf.float32:
            raise TypeError(f"layer {self.name!r} got {x.dtype.name} inputs: the kernels multiply float32.")
        outputs = shape(x)
        if in_xla():
            raise ValueError(
                f"layer {self.name!r} holds only its active weights, and XLA cannot call their kernels: compile with "
                "jit_compile=False, or use storage='masks'."
            )
        arrays = [tf.convert_to_tensor(variable.value) for variable in (*self.places, self._kernel)]
        return _product(self.link, outputs, x, *arrays)

    # Saving and loading.

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> Any:
        if save_type == "savedmodel":
            raise ValueError(
                f"layer {self.name!r} holds only its active weights, and its kernels cannot be exported: call "
                "rigl_backends.tf.resume(..., storage='masks') first, or export dense layers with the layers' dense()."
            )
        return super()._trackable_children(save_type, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Plain data."""
        return {**super().get_config(), "active": self._active, "width": self._width}

    def save_own_variables(self, store: Any) -> None:
        """Put the variables into a store of Keras."""
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: Any) -> None:
        """Take what a layer with as many active weights saved.

        Raises:
            ValueError: if it was a dense layer, which Keras saves under the name of its own class.
        """
        is_empty = not list(store.keys())
        if self.built and not self.is_described and (is_empty or store["0"].shape == self.link.shape):
            raise ValueError(
                f"layer {self.name!r} holds active weights, and the file has none for it. If it is of a run with "
                "masks, load it with storage='masks', and call rigl_backends.tf.resume, which changes the storage."
            )
        keras.layers.Layer.load_own_variables(self, store)


_DESCRIBED = "layer {!r} was described, and has no connections: call sparsify(..., model=model, storage='active')."


def check_made(model: keras.layers.Layer) -> None:
    """Refuse a model of which a layer is described still."""
    for layer in model._flatten_layers():
        if isinstance(layer, ActiveKernel) and layer.is_described:
            raise ValueError(_DESCRIBED.format(layer.name))


def check_dense(model: keras.layers.Layer, *, but_described: bool = False) -> None:
    """Refuse a model of which a layer holds only its active weights: what reads dense kernels would be wrong.

    Args:
        model: the model.
        but_described: whether it may have layers that are described.
    """
    for layer in model._flatten_layers():
        if isinstance(layer, ActiveKernel) and not (but_described and layer.is_described):
            raise ValueError(
                f"model has the layer {layer.name!r}, which holds only its active weights: call this before sparsify."
            )


def _product(link: Link, shape: Sequence[int | None], x: tf.Tensor, *arrays: tf.Tensor) -> tf.Tensor:
    """The outputs, of this shape, whose gradients both come from one pass over the active weights.

    The arrays are pointers, columns and values.
    """
    *places, kernel = arrays

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def multiply(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
        y, call = call_host(link.forward, [*places, kernel, x], tf.float32, tf.int64)

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def gradients(x: tf.Tensor, kernel: tf.Tensor, dy: tf.Tensor) -> tuple[Sequence[tf.Tensor], Callable[..., Any]]:
            given = [*link.clock(), call, *places, kernel, x, dy]
            dx, own = call_host(link.backward, given, tf.float32, tf.float32)
            return (tf.ensure_shape(dx, x.shape), tf.ensure_shape(own, kernel.shape)), _refuse

        return tf.ensure_shape(y, shape), lambda dy: gradients(x, kernel, dy)

    return multiply(x, kernel)


def _refuse(*_: tf.Tensor) -> Any:
    raise NotImplementedError(
        "a layer of active weights is differentiable once, and this is a gradient of its gradient: use storage='masks'."
    )
