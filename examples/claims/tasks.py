"""What the trainings need to know of a task: its data, network and measure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor, nn

from cases import Setting

Batch = tuple[Tensor, Tensor]


class Task(Protocol):
    """A task: `images.Images` or `text.Text`.

    Attributes:
        name: of its data, for people.
    """

    name: str

    def model(self, width: float = 1.0) -> nn.Module:
        """A new network; ``width`` scales its hidden channels or units."""

    def optimizer(self, model: nn.Module, setting: Setting) -> object:
        """A new optimizer of all parameters, a `torch.optim.Optimizer`."""

    def batches(self, seed: int, steps: int) -> Iterator[Batch]:
        """Inputs and targets of each step."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean loss of a batch."""

    def score(self, model: nn.Module, part: str) -> float:
        """The measure of a trained network on the ``"validation"`` or ``"test"`` part."""

    @property
    def example(self) -> Tensor:
        """One input, with a batch axis of 1."""
