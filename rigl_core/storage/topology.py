"""A topology on its own: layers with axes, their masks, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rigl_core.inspect.host import to_numpy
from rigl_core.model.layers import Layer, check_layers
from rigl_core.model.table import SparsityTable
from rigl_core.plan import Plan
from rigl_core.storage.names import check_names
from rigl_core.storage.turning import Layout, from_matrix, in_layout, to_matrix, turned

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Topology:
    """The masks of a network's layers. Nothing here belongs to a framework.

    Attributes:
        layers: the layers, whose axes say how a mask is turned for another framework.
        masks: a bool array of the layer's shape for each layer, by name; read-only copies of what was given.
        recipe: the recipe that found the topology, as `rigl_core.Recipe.to_dict` gives it; None if it is unknown.
        step: the number of the coming optimizer step when it was taken; None if it is unknown.

    Raises:
        ValueError: if two layers have one name, a name has characters that cannot be printed, or a mask is missing, is
            not bool, or has another shape than its layer.
    """

    layers: tuple[Layer, ...]
    masks: Mapping[str, Mask]
    recipe: Mapping[str, Any] | None = None
    step: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", check_layers(self.layers))
        names = [layer.name for layer in self.layers]
        if strange := sorted(set(self.masks) - set(names)):
            raise ValueError(f"masks has {', '.join(map(repr, strange))}, which no layer is called.")
        for name in names:
            if not name.isprintable():
                raise ValueError(f"layers holds the name {name!r}, which has characters that cannot be printed.")
        object.__setattr__(self, "masks", MappingProxyType({own.name: self._checked(own) for own in self.layers}))

    @classmethod
    def of(cls, plan: Plan, masks: Mapping[str, Any], step: Any = None) -> Topology:
        """The topology of a training.

        Args:
            plan: of the training.
            masks: bool arrays of any framework, by layer name.
            step: the number of the coming optimizer step.
        """
        return cls(plan.layers, masks, plan.recipe.to_dict(), None if step is None else int(step))

    @property
    def table(self) -> SparsityTable:
        """Density, active and zero weights of each layer."""
        found = None if self.recipe is None else self.recipe.get("method")
        method = [found] if isinstance(found, str) and found.isprintable() else []
        steps = [] if self.step is None else [f"step {self.step:,}"]
        active = tuple(int(np.count_nonzero(self.masks[layer.name])) for layer in self.layers)
        return SparsityTable(self.layers, active, title=", ".join(method + steps))

    def for_layers(self, layers: Sequence[Layer], names: Mapping[str, str] | None = None) -> Topology:
        """The same topology for the layers of a model, in any framework.

        A mask is turned by the axes: outputs to outputs, inputs to inputs, positions of a kernel to the same positions.
        Several axes of inputs or outputs, as those of attention, count as one that was reshaped.

        Args:
            layers: of the model.
            names: the model's names by the topology's, where they differ, as for `renamed`.

        Raises:
            ValueError: names the layers that do not fit, and proposes names.
        """
        own, layers = self if names is None else self.renamed(names), check_layers(layers)
        check_names(own.layers, layers)
        before = {layer.name: layer for layer in own.layers}
        masks = {layer.name: turned(own.masks[layer.name], before[layer.name], layer) for layer in layers}
        return replace(self, layers=layers, masks=masks)

    def renamed(self, names: Mapping[str, str]) -> Topology:
        """The same topology under other names; layers that ``names`` does not mention keep theirs.

        Args:
            names: new names by old names.

        Raises:
            ValueError: for a name that no layer has, or if two layers would have one name.
        """
        own = [layer.name for layer in self.layers]
        for name in names:
            if name not in own:
                raise ValueError(f"names holds {name!r}, which no layer is called; there are {', '.join(own)}.")
        layers = tuple(replace(layer, name=names.get(layer.name, layer.name)) for layer in self.layers)
        return replace(self, layers=layers, masks={names.get(name, name): mask for name, mask in self.masks.items()})

    def in_layout(self, layout: Layout) -> Topology:
        """The same topology as a framework stores it.

        Args:
            layout: ``"torch"``, (out, in, kernel ...); ``"jax"`` or ``"keras"``, (kernel ..., in, out).

        Raises:
            ValueError: for another layout, or if a layer's axes are unknown.
        """
        layers = tuple(in_layout(layer, layout) for layer in self.layers)
        return self.for_layers(layers)

    def reordered(self, name: str, shape: Sequence[int], order: Sequence[int]) -> Topology:
        """The same topology for a model that flattens the inputs of a layer in another order.

        Frameworks flatten images as (height, width, channels) or as (channels, height, width). Then the inputs of the
        linear layer after it are the same in another order: ``reordered("fc.weight", (7, 7, 64), (2, 0, 1))``.

        Args:
            name: of the layer that reads the flattened array.
            shape: of the array before it is flattened, in the model that the topology is of.
            order: these axes, as the other model has them.

        Raises:
            ValueError: if there is no such layer, or shape and order do not fit it.
        """
        layer = next((layer for layer in self.layers if layer.name == name), None)
        if layer is None:
            raise ValueError(f"name is {name!r}, which no layer is called.")
        matrix = to_matrix(self.masks[name], layer)
        if np.prod(shape) != matrix.shape[1] or sorted(order) != list(range(len(shape))):
            raise ValueError(
                f"shape={tuple(shape)} and order={tuple(order)} do not fit the {matrix.shape[1]} inputs of {name!r}."
            )
        outputs, _, *kernel = matrix.shape
        axes = (0, *(axis + 1 for axis in order), *range(len(shape) + 1, len(shape) + 1 + len(kernel)))
        parts = matrix.reshape(outputs, *shape, *kernel).transpose(axes)
        return replace(self, masks={**self.masks, name: from_matrix(parts.reshape(matrix.shape), layer)})

    def _checked(self, layer: Layer) -> Mask:
        if layer.name not in self.masks:
            raise ValueError(f"masks has none for layer {layer.name!r}.")
        mask = to_numpy(self.masks[layer.name])
        if mask.dtype != np.bool_ or mask.shape != layer.shape:
            raise ValueError(
                f"masks has a {mask.dtype} array of shape {mask.shape} for layer {layer.name!r}: it must be bool, of "
                f"shape {layer.shape}."
            )
        own = np.array(mask, order="C")
        own.flags.writeable = False
        return own


class Training(Protocol):
    """The handle of a training, as `sparsify` of most adapters gives it."""

    @property
    def plan(self) -> Plan:
        """The exact counts."""

    @property
    def masks(self) -> Mapping[str, Any]:
        """Bool arrays by layer name."""

    @property
    def step(self) -> int:
        """The number of the coming optimizer step."""


def topology_of(source: Topology | Training) -> Topology:
    """A topology, or that of a training.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(source, Topology):
        return source
    if not all(hasattr(source, name) for name in ("plan", "masks", "step")):
        raise TypeError(
            f"topology is a {type(source).__name__}: give a Topology, or the handle of a training. In JAX, "
            "rigl_backends.jax.topology(tx, opt_state, params) makes one."
        )
    return Topology.of(source.plan, source.masks, source.step)
