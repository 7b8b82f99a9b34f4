"""A table of a model's sparsity, layer by layer, for people to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rigl_core.model.layers import Layer


@dataclass(frozen=True)
class SparsityTable:
    """Shape, density, active and zero weights of each layer; ``str()`` gives aligned text.

    Attributes:
        layers: the layers, in the model's order.
        active: the number of active weights of each layer.
        densities: the density to show for each layer; None shows active / size.
        title: a line above the table; an empty string for none.
    """

    layers: tuple[Layer, ...]
    active: tuple[int, ...]
    densities: tuple[float, ...] | None = None
    title: str = ""

    @property
    def total_active(self) -> int:
        """Number of active weights in all layers."""
        return sum(self.active)

    @property
    def total_size(self) -> int:
        """Number of weights in all layers."""
        return sum(layer.size for layer in self.layers)

    @property
    def rows(self) -> Sequence[tuple[str, ...]]:
        """The cells of the table as text: a row of headings, a row for each layer, a row of totals."""
        densities = self.densities or [share(n, layer.size) for n, layer in zip(self.active, self.layers, strict=True)]
        rows = [("layer", "shape", "density", "active", "zeros")]
        for layer, active, density in zip(self.layers, self.active, densities, strict=True):
            shape = layer.shape_text
            rows.append((layer.name, shape, f"{density:.4f}", f"{active:,}", f"{layer.size - active:,}"))
        active, size = self.total_active, self.total_size
        rows.append(("total", "", f"{share(active, size):.4f}", f"{active:,}", f"{size - active:,}"))
        return rows

    def __str__(self) -> str:
        return "\n".join(([self.title] if self.title else []) + aligned(self.rows))


def share(active: int, size: int) -> float:
    """active / size; 0 for an empty layer."""
    return active / size if size else 0.0


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The rows as lines of equal width: the first two columns (text) aligned left, the others (numbers) right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        texts = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        numbers = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        lines.append("  ".join(texts + numbers))
    return lines
