"""Paths between two trained networks: a straight line, and a Bézier curve that is trained to have a low loss.

The module knows nothing of this example: give it the weights of two trainings of your own, and their loss. RigL paper,
section 4.4; the curves are those of Garipov et al. 2018, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

B = TypeVar("B")
Weights = Mapping[str, Tensor]
Loss = Callable[[Weights, B], Tensor]
"""The loss of a network with these weights on a batch, such as
``lambda weights, batch: cross_entropy(torch.func.functional_call(model, weights, batch[0]), batch[1])``."""


@dataclass(frozen=True)
class Path:
    """A Bézier curve in the space of weights; with two points, a straight line.

    Attributes:
        points: the curve starts at the first and ends at the last; those between pull it towards them.
    """

    points: Sequence[Weights]

    def at(self, position: float) -> dict[str, Tensor]:
        """The weights at a position from 0, the start, to 1, the end."""
        degree = len(self.points) - 1
        shares = [math.comb(degree, i) * position**i * (1 - position) ** (degree - i) for i in range(len(self.points))]
        return {
            name: sum(
                (share * point[name] for share, point in zip(shares[1:], self.points[1:], strict=True)),
                start=shares[0] * self.points[0][name],
            )
            for name in self.points[0]
        }


def straight(start: Weights, end: Weights) -> Path:
    """The straight line between two networks with the same parameters."""
    return Path((start, end))


def bent(
    start: Weights,
    end: Weights,
    loss: Loss[B],
    batches: Iterable[B],
    *,
    controls: int = 1,
    learning_rate: float = 0.01,
    only: Mapping[str, Tensor] | None = None,
) -> Path:
    """A curve of low loss: its control points are trained, by Adam, on the loss at random positions.

    Args:
        start: weights by name.
        end: weights of the same names and shapes.
        loss: of weights on a batch.
        batches: one for each step of the training.
        controls: control points: 1 for a quadratic curve, 2 for a cubic one.
        learning_rate: of Adam.
        only: bool masks by name: the curve stays 0 where they are False. Give the union of both networks' masks to stay
            among sparse networks.
    """
    line, masks = straight(start, end), only or {}
    between = [line.at((i + 1) / (controls + 1)) for i in range(controls)]
    trained = [{name: weight.detach().clone().requires_grad_() for name, weight in point.items()} for point in between]

    def path() -> Path:
        kept = [{name: w * masks[name] if name in masks else w for name, w in point.items()} for point in trained]
        return Path((start, *kept, end))

    optimizer = torch.optim.Adam([weight for point in trained for weight in point.values()], lr=learning_rate)
    positions = torch.Generator().manual_seed(0)
    for batch in batches:
        optimizer.zero_grad()
        loss(path().at(float(torch.rand((), generator=positions))), batch).backward()
        optimizer.step()
    return Path([{name: weight.detach() for name, weight in point.items()} for point in path().points])


@torch.no_grad()
def losses(path: Path, loss: Loss[B], batches: Sequence[B], *, positions: int = 21) -> list[float]:
    """The mean loss over the batches, at equally spaced positions from start to end."""
    found = []
    for i in range(positions):
        weights = path.at(i / (positions - 1))
        found.append(sum(float(loss(weights, batch)) for batch in batches) / len(batches))
    return found


def barrier(heights: Sequence[float]) -> float:
    """How far the path rises above the higher one of its ends."""
    return max(heights) - max(heights[0], heights[-1])
