"""Conventions of counting operations."""

from __future__ import annotations

from dataclasses import dataclass

from rigl_core.model.layers import Layer


@dataclass(frozen=True)
class Convention:
    """A convention of counting operations.

    Attributes:
        per_connection: operations for each active weight and position.
        per_output: operations for each output and position, at any density. They are counted once for each
            position and stored output, which is wrong for transposed convolutions.
    """

    per_connection: int = 2
    per_output: int = 0

    def flops(self, layer: Layer, active: float, positions: float) -> float:
        """Operations of one layer for one example."""
        flops = self.per_connection * active * positions
        if self.per_output:
            flops += self.per_output * outputs(layer) * positions
        return flops


MULTIPLY_ADDS = Convention()
"""Two operations for each multiply-add."""

PAPER = Convention(per_output=1)
"""The convention of the paper's table: 2n + 1 operations for an output with n connections.

These are n multiplications and n - 1 additions, one more addition for a bias (even if there is none), and one operation
for the ReLU.
"""


def outputs(layer: Layer) -> int:
    """The number of features that a layer, or all layers of a stack, compute at each position."""
    return layer.n_out * layer.stack_size * (layer.groups if layer.grouped_axes == "out" else 1)
