"""Neurons that a sparse network does not use, and the smaller dense network without them.

A neuron is a feature that a layer puts out: a unit, or a channel. It is dead if nothing from the network's inputs
reaches it, or nothing of it reaches the outputs (RigL paper, appendix on MNIST, where input pixels die as well).
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
    """What is left of a chain of layers without its dead neurons. Made by `effective_architecture`.

    Attributes:
        layers: the chain.
        alive: bool arrays: which of the network's inputs are alive, then which outputs of each layer.
            The last layer's are the network's own, and always count as alive.
        active: of each layer, the active connections between neurons that are alive.
        channels_first: how features are ordered where channels and places are flattened.
    """

    layers: tuple[Layer, ...]
    alive: tuple[Bools, ...]
    active: tuple[int, ...]
    channels_first: bool = True

    @property
    def widths(self) -> tuple[int, ...]:
        """How many neurons are alive: inputs first."""
        return tuple(int(np.count_nonzero(alive)) for alive in self.alive)

    @property
    def dead(self) -> tuple[int, ...]:
        """How many neurons are dead: inputs first."""
        return tuple(alive.size - width for alive, width in zip(self.alive, self.widths, strict=True))

    def __str__(self) -> str:
        left, whole = ("-".join(map(str, sizes)) for sizes in (self.widths, [alive.size for alive in self.alive]))
        return f"{left} (of {whole}), {sum(self.active):,} active connections"

    def features(self, layer: int, neurons: Array) -> Array:
        """What there is of each of a layer's input features, given what there is of each neuron before it."""
        times = _inputs(self.layers[layer]) // neurons.size
        return np.repeat(neurons, times) if self.channels_first else np.tile(neurons, times)


def effective_architecture(
    layers: Sequence[Layer], masks: Masks, *, channels_first: bool = True
) -> EffectiveArchitecture:
    """Find the dead neurons, those that are dead without them, and so on.

    Args:
        layers: a chain: each layer reads what the one before it puts out, through norms, activations, pooling
            or a flattening of channels and places.
        masks: bool arrays by layer name, of the layers' shapes; a layer without a mask is dense.
        channels_first: whether a flattening puts the places of one channel side by side (as PyTorch does), or
            the channels of one place.

    Raises:
        ValueError: if the layers are no chain, or their in and out axes are unknown.
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
    """The smaller dense network that computes the same: weights and biases by layer name.

    A neuron that nothing reaches still says something constant, activation(bias). It moves into the biases of
    the neurons that listen to it.

    Args:
        architecture: from `effective_architecture`.
        weights: arrays by layer name, in the layers' shapes, zero outside the masks.
        biases: arrays by layer name, one number for each output; a layer without one has zeros.
        activation: of the hidden layers.

    Raises:
        ValueError: for grouped layers and layers of several in or out axes, and if a convolution listens to a
            constant other than zero, which no bias can replace at padded borders.
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
    """Input features, of all groups."""
    return layer.n_in * (layer.groups if layer.grouped_axes == "in" else 1)


def connections(layer: Layer, mask: Any) -> Array:
    """How many active connections each input feature has to each output: integers (inputs, outputs).

    At most 1 in a fully connected layer, the positions of the kernel in a convolution. Features of all groups.

    Args:
        layer: with its in and out axes.
        mask: bool array of the layer's shape.

    Raises:
        ValueError: for another shape, or axes that are unknown.
    """
    mask = np.asarray(to_numpy(mask), bool)
    if mask.shape != layer.shape:
        raise ValueError(f"masks has the shape {mask.shape} for layer {layer.name!r}: it must be {layer.shape}.")
    ordered = mask.transpose(*layer.in_axes, *layer.out_axes, *layer.kernel_axes)
    kernels = ordered.reshape(layer.n_in, layer.n_out, math.prod(ordered.shape[len(layer.in_axes + layer.out_axes) :]))
    matrix: Array = kernels.sum(2, dtype=np.int32)
    if layer.groups > 1:
        # Of the two sides, the one that is stored whole tells the group; the other starts anew in each.
        whole = 1 if layer.grouped_axes == "in" else 0
        blocks = np.split(matrix, layer.groups, axis=whole)
        matrix = np.zeros((blocks[0].shape[0] * layer.groups, blocks[0].shape[1] * layer.groups), matrix.dtype)
        for group, block in enumerate(blocks):
            rows, columns = block.shape
            matrix[group * rows : (group + 1) * rows, group * columns : (group + 1) * columns] = block
    return matrix
