"""Multiply-adds counted for each weight, for adapters that trace a model's operations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rigl_core.model.layers import Layer
from rigl_core.model.numbers import check_integer

Parts = Mapping[str, int]
"""The weights that a value is computed from: their sizes by name. It is empty for a constant.

A value that depends on the model's inputs has None in place of a mapping.
"""


class MultiplyAdds:
    """Counts the multiply-adds that use each weight.

    Args:
        layers: the layers that are chosen to be sparsified.

    Attributes:
        by_name: the counts by the weight's name.
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        self.by_name: Counter[str] = Counter()
        self.layers = tuple(layers)
        self._chosen = {layer.name for layer in self.layers}

    def add(self, factors: Iterable[Parts | None], multiply_adds: int) -> None:
        """Count a product of several factors for the factor that is computed from weights alone.

        If there are several such factors, the first that contains a chosen layer counts, or else the first.

        Args:
            factors: the weights of each factor, as `Parts`; None for a factor that depends on the model's inputs.
            multiply_adds: the multiply-adds of the product. Each weight of the factor gets a share by its size.
        """
        made_of_weights = [factor for factor in factors if factor]
        if not made_of_weights:
            return
        factor = max(made_of_weights, key=lambda parts: not self._chosen.isdisjoint(parts))
        for name, size in factor.items():
            self.by_name[name] += multiply_adds * size // sum(factor.values())

    def add_costliest(self, branches: Iterable[MultiplyAdds]) -> None:
        """Count the branch that has the most multiply-adds, out of several branches of which only one runs."""
        self.by_name += max(branches, key=lambda branch: branch.by_name.total()).by_name


def made_of(inputs: Sequence[Parts | None], *, joined: bool = False) -> Parts | None:
    """The weights that the result of an operation is computed from; None if it depends on the model's inputs.

    Args:
        inputs: the weights of each input of the operation.
        joined: whether the operation concatenates its inputs; the result then has the weights of all. Otherwise
            (casts, masks, normalizations) it has the weights of the largest input.
    """
    known = [parts for parts in inputs if parts is not None]
    if len(known) < len(inputs):
        return None
    if joined:
        return {name: size for parts in known for name, size in parts.items()}
    return max(known, key=lambda parts: sum(parts.values()), default={})


def positions_of(layers: Iterable[Layer], multiply_adds: Mapping[str, int], examples: int = 1) -> dict[str, float]:
    """How often one example uses each weight of a layer, on average, by layer name.

    Args:
        layers: the layers.
        multiply_adds: the counted multiply-adds by layer name; a layer without a count is not used.
        examples: the number of examples that were counted.
    """
    examples = check_integer("examples", examples, 1)
    positions: dict[str, float] = {}
    for layer in layers:
        uses, weights = multiply_adds.get(layer.name, 0), max(layer.size, 1) * examples
        positions[layer.name] = uses // weights if uses % weights == 0 else uses / weights
    return positions
