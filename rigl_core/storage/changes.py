"""What two topologies have in common, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rigl_core.model.table import share
from rigl_core.storage.topology import Topology


@dataclass(frozen=True)
class Change:
    """The difference between two masks of one layer.

    Attributes:
        name: of the layer.
        shape: of the layer.
        common: the number of connections that both have.
        added: the number of those that only the second mask has.
        removed: the number of those that only the first mask has.
    """

    name: str
    shape: tuple[int, ...]
    common: int
    added: int
    removed: int

    @property
    def row(self) -> tuple[str, ...]:
        """The cells of a table, with the share of the connections in either mask that both have."""
        equal = share(self.common, self.common + self.added + self.removed) if self.added or self.removed else 1.0
        size = "x".join(map(str, self.shape))
        return self.name, size, f"{100 * equal:.2f}", f"{self.added:,}", f"{self.removed:,}"


def changes(before: Topology, after: Topology) -> list[Change]:
    """The change of each layer. The second topology is first turned to the layout of the first one.

    Raises:
        ValueError: if they do not have the same layers.
    """
    other = after.for_layers(before.layers)
    found = []
    for layer in before.layers:
        old, new = before.masks[layer.name], other.masks[layer.name]
        counts = (int(np.count_nonzero(mask)) for mask in (old & new, new & ~old, old & ~new))
        found.append(Change(layer.name, layer.shape, *counts))
    return found


def rows(found: Sequence[Change]) -> list[tuple[str, ...]]:
    """The cells of a table: headings, a row for each layer, and the total."""
    total = Change("total", (), *(sum(getattr(one, key) for one in found) for key in ("common", "added", "removed")))
    return [("layer", "shape", "equal %", "added", "removed"), *(one.row for one in found), total.row]
