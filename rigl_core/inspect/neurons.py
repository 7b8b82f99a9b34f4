"""Dead neurons of a sparse network, and the smaller dense network without them.

A neuron is an output feature of a layer: a unit, or a channel. It is dead if no active connections lead from the
network's inputs to it, or none from it to the outputs (RigL paper, appendix on MNIST, where input pixels die as well).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_core.inspect.host import to_numpy
from rigl_core.inspect.masks import Masks
from rigl_core.model.layers import Layer, check_layers

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class EffectiveArchitecture:
    """A chain of layers without its dead neurons. Made by `effective_architecture`.

    Attributes:
        layers: the chain.
        alive: flat bool arrays: first the network's inputs that are alive, then the outputs of each layer that are
            alive. The outputs of the last layer are the network's outputs and always count as alive.
        active: for each layer, the number of active connections between neurons that are alive.
        channels_first: the order of features after channels and pixels are flattened; see `effective_architecture`.
    """

    layers: tuple[Layer, ...]
    alive: tuple[Bools, ...]
    active: tuple[int, ...]
    channels_first: bool = True

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers of neurons that are alive: of the inputs, then of each layer."""
        return tuple(int(np.count_nonzero(alive)) for alive in self.alive)

    @property
    def dead(self) -> tuple[int, ...]:
        """Numbers of dead neurons: of the inputs, then of each layer."""
        return tuple(alive.size - width for alive, width in zip(self.alive, self.widths, strict=True))

    def __str__(self) -> str:
        left, whole = ("-".join(map(str, sizes)) for sizes in (self.widths, [alive.size for alive in self.alive]))
        return f"{left} (of {whole}), {sum(self.active):,} active connections"

    def features(self, layer: int, neurons: Array) -> Array:
        """Values of a layer's input features, from values of the neurons before it.

        After a flattening, a channel becomes one input feature for each pixel; all of them get the channel's value.

        Args:
            layer: the layer's position in the chain.
            neurons: flat array, a value for each neuron before the layer.
        """
        times = _inputs(self.layers[layer]) // neurons.size
        return np.repeat(neurons, times) if self.channels_first else np.tile(neurons, times)


def effective_architecture(
    layers: Sequence[Layer], masks: Masks, *, channels_first: bool = True
) -> EffectiveArchitecture:
    """Find the dead neurons, also those that are dead because other neurons are.

    Args:
        layers: a chain: each layer reads the outputs of the layer before it, through norms, activations, pooling
            or a flattening of channels and pixels.
        masks: bool arrays by layer name, of the layers' shapes; a layer without a mask is dense.
        channels_first: whether a flattening puts all pixels of one channel side by side (as PyTorch does); otherwise
            it puts all channels of one pixel side by side.

    Raises:
        ValueError: if the layers are no chain, one is a stack of layers, or their in and out axes are unknown.
    """
    layers = check_layers(layers)
    counts = [connections(layer, masks.get(layer.name, np.ones(layer.shape, bool))) for layer in layers]
    connected = [matrix > 0 for matrix in counts]
    sizes = [_inputs(layers[0]), *(matrix.shape[1] for matrix in connected)]
    for (before, after), size in zip(pairwise(layers), sizes[1:], strict=False):
        if size == 0 or _inputs(after) % size:
            raise ValueError(
                f"layers is no chain: {before.name!r} puts out {size} features, and {after.name!r} reads "
                f"{_inputs(after)}."
            )
    whole = EffectiveArchitecture(layers, tuple(np.ones(size, bool) for size in sizes), (), channels_first)
    reached, useful = list(whole.alive), list(whole.alive)
    for i, matrix in enumerate(connected[:-1]):
        reached[i + 1] = np.asarray(matrix[whole.features(i, reached[i])].any(0))
    for i, matrix in reversed([*enumerate(connected)]):
        used = np.asarray(matrix[:, useful[i + 1]].any(1))
        useful[i] = np.asarray(
            used.reshape(sizes[i], -1).any(1) if channels_first else used.reshape(-1, sizes[i]).any(0)
        )
    alive = tuple(there & needed for there, needed in zip(reached, useful, strict=True))
    active = []
    for i, matrix in enumerate(counts):
        between = whole.features(i, alive[i])[:, None] & alive[i + 1]
        active.append(int(np.sum(matrix[between])))
    return EffectiveArchitecture(layers, alive, tuple(active), channels_first)


def shrunken(
    architecture: EffectiveArchitecture,
    weights: Mapping[str, Any],
    biases: Mapping[str, Any] | None = None,
    activation: Callable[[Array], Array] = lambda x: np.maximum(x, 0),
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The smaller dense network without dead neurons, which computes the same outputs.

    A neuron that no input reaches still has a constant output, activation(bias). This constant, times its weights, is
    added to the biases of the neurons that read it.

    Args:
        architecture: the result of `effective_architecture`.
        weights: arrays by layer name, of the layers' shapes, zero outside the masks.
        biases: arrays by layer name, one number for each output; a layer without a bias counts as having zeros.
        activation: the activation of the hidden layers.

    Returns:
        The weights and the biases of the smaller network, by layer name.

    Raises:
        ValueError: for grouped layers and layers with several in or out axes; and if a convolution reads a constant
            other than zero, which no bias can replace at padded borders.
    """
    biases = biases or {}
    small_weights, small_biases = {}, {}
    constant = np.zeros(architecture.alive[0].size)
    for i, layer in enumerate(architecture.layers):
        if layer.groups > 1 or len(layer.in_axes) != 1 or len(layer.out_axes) != 1:
            raise ValueError(f"layer {layer.name!r} is grouped, or has several in or out axes: it cannot be shrunken.")
        weight, outputs = np.asarray(weights[layer.name]), architecture.alive[i + 1]
        inputs = architecture.features(i, architecture.alive[i]).astype(bool)
        small = np.compress(outputs, weight, axis=layer.out_axes[0])
        small_weights[layer.name] = np.compress(inputs, small, axis=layer.in_axes[0])
        constants = np.where(inputs, 0, architecture.features(i, constant))
        matrix = np.moveaxis(weight, (layer.in_axes[0], layer.out_axes[0]), (0, 1))
        heard = np.tensordot(constants, matrix.reshape(*matrix.shape[:2], -1).sum(2), 1)
        if layer.kernel_axes and np.any(heard[outputs]):
            raise ValueError(
                f"layer {layer.name!r} listens to dead channels whose bias makes them constants other than zero: "
                "set those biases to 0."
            )
        total = np.asarray(biases.get(layer.name, 0.0)) + heard
        small_biases[layer.name] = total[outputs]
        constant = np.where(outputs, 0, activation(total))
    return small_weights, small_biases


def _inputs(layer: Layer) -> int:
    """The number of input features of all groups."""
    return layer.n_in * (layer.groups if layer.grouped_axes == "in" else 1)


def connections(layer: Layer, mask: Any) -> Array:
    """The number of active connections from each input feature to each output: int32 array (inputs, outputs).

    A number is at most 1 in a fully connected layer, and at most the size of the kernel in a convolution. Inputs and
    outputs are those of all groups.

    Args:
        layer: the layer; its in and out axes must be known.
        mask: bool array of the layer's shape.

    Raises:
        ValueError: for a stack of layers, another shape, or axes that are unknown.
    """
    mask = np.asarray(to_numpy(mask), bool)
    if layer.stacked:
        raise ValueError(
            f"layer {layer.name!r} is a stack of {layer.stack_size} layers: give one layer of it, without stacked, and "
            "its part of the mask."
        )
    if mask.shape != layer.shape:
        raise ValueError(f"masks has the shape {mask.shape} for layer {layer.name!r}: it must be {layer.shape}.")
    ordered = mask.transpose(*layer.in_axes, *layer.out_axes, *layer.kernel_axes)
    kernels = ordered.reshape(layer.n_in, layer.n_out, math.prod(ordered.shape[len(layer.in_axes + layer.out_axes) :]))
    matrix: Array = kernels.sum(2, dtype=np.int32)
    if layer.groups > 1:
        # One side (outputs, or inputs) is stored for all groups, so its position tells the group. The other side is
        # stored for one group.
        whole = 1 if layer.grouped_axes == "in" else 0
        blocks = np.split(matrix, layer.groups, axis=whole)
        matrix = np.zeros((blocks[0].shape[0] * layer.groups, blocks[0].shape[1] * layer.groups), matrix.dtype)
        for group, block in enumerate(blocks):
            rows, columns = block.shape
            matrix[group * rows : (group + 1) * rows, group * columns : (group + 1) * columns] = block
    return matrix
