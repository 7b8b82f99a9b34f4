"""Counting multiply-adds by weight, for adapters that watch a model compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rigl_core.model.layers import Layer
from rigl_core.model.numbers import check_integer

Parts = Mapping[str, int]
"""What a value that is computed from parameters alone is made of: sizes by weight. Constants are made of nothing.

None in its place is a value that depends on the model's inputs.
"""


class MultiplyAdds:
    """The multiply-adds with each weight.

    Args:
        layers: those that were chosen to be sparsified.

    Attributes:
        by_name: the counts.
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        self.by_name: Counter[str] = Counter()
        self.layers = tuple(layers)
        self._chosen = {layer.name for layer in self.layers}

    def add(self, factors: Iterable[Parts | None], multiply_adds: int) -> None:
        """Count a product for the factor that is made of weights.

        If several are, it is for one that holds chosen layers, and among those for the first given.
        """
        made_of_weights = [factor for factor in factors if factor]
        if not made_of_weights:
            return
        factor = max(made_of_weights, key=lambda parts: not self._chosen.isdisjoint(parts))
        for name, size in factor.items():
            self.by_name[name] += multiply_adds * size // sum(factor.values())

    def add_costliest(self, branches: Iterable[MultiplyAdds]) -> None:
        """Count the one of several branches that has the most multiply-adds."""
        self.by_name += max(branches, key=lambda branch: branch.by_name.total()).by_name


def made_of(inputs: Sequence[Parts | None], *, joined: bool = False) -> Parts | None:
    """What the result of an operation is made of.

    Args:
        inputs: of the operation.
        joined: whether it puts them side by side, so that each stays what it is. Otherwise (casts, masks,
            normalizations) the result is used as often as the largest of them.
    """
    known = [parts for parts in inputs if parts is not None]
    if len(known) < len(inputs):
        return None
    if joined:
        return {name: size for parts in known for name, size in parts.items()}
    return max(known, key=lambda parts: sum(parts.values()), default={})


def positions_of(layers: Iterable[Layer], multiply_adds: Mapping[str, int], examples: int = 1) -> dict[str, float]:
    """How often one example uses each weight of the layers.

    Args:
        layers: the layers.
        multiply_adds: by layer name; a layer that is not named is not used.
        examples: how many examples they are for.
    """
    examples = check_integer("examples", examples, 1)
    positions: dict[str, float] = {}
    for layer in layers:
        uses, weights = multiply_adds.get(layer.name, 0), max(layer.size, 1) * examples
        positions[layer.name] = uses // weights if uses % weights == 0 else uses / weights
    return positions
