"""What the conformance suite asks of a backend: one harness, written by the adapter's author.

Everything goes in and out as NumPy arrays, so the suite knows no framework. bfloat16 values travel as
float32 arrays that hold bfloat16 numbers; a harness converts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rigl_core.criteria import Criterion
from rigl_core.layers import Layer
from rigl_core.recipe import Recipe

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer every framework has, with PyTorch's meaning of the numbers.

    Attributes:
        kind: ``"sgd"`` or ``"adam"``.
        lr: learning rate.
        momentum: of SGD (0: none).
        weight_decay: decoupled from the gradient, as a factor ``1 - lr * weight_decay`` on the weights
            (AdamW; for SGD without it, the harness adds ``weight_decay * weight`` to the gradient).
        clip_norm: clip the gradient's global norm to this before the step, as a user of the framework would.
    """

    kind: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float | None = None


class Session(Protocol):
    """One sparse training, driven step by step with given gradients."""

    def step(self, gradients: Mapping[str, Array | None]) -> None:
        """One optimizer step of the user's loop, with these dense gradients of the loss.

        None: the parameter was not used in this step (frameworks without that notion take zeros, and
        say so with ``Harness.unused_layers = False``).
        """

    def learn(self, model: str, inputs: Array, labels: Array) -> None:
        """One step of the user's loop on a model of `rigl_core.testing.models`, differentiated by the framework.

        Args:
            model: ``"mlp"`` or ``"convnet"``; the session was started with its parameters and layers.
            inputs: float64 of shape (batch, 64).
            labels: int64 of shape (batch,).
        """

    def weights(self) -> dict[str, Array]:
        """Copies of all parameters."""

    def masks(self) -> dict[str, Mask]:
        """The masks that the handle offers, of every layer of the plan."""

    def optimizer_state(self) -> dict[str, list[Array]]:
        """Copies of every per-weight optimizer state of each parameter, in a fixed order."""

    def steps(self) -> int:
        """The topology's step counter."""

    def save(self) -> Any:
        """Everything a resumed training needs, as the framework's user saves it; later steps must not change it."""

    def load(self, saved: Any) -> None:
        """Continue from what `save` gave, in this or in a fresh session."""


class Harness(Protocol):
    """A backend under test.

    Attributes:
        name: shown in the table.
        dtypes: floating dtypes it supports, of float16, bfloat16, float32, float64.
        modes: how its code can run: ``"eager"``, ``"compiled"`` or more of its own.
        unused_layers: whether a gradient can be missing.
    """

    name: str
    dtypes: Sequence[str]
    modes: Sequence[str]
    unused_layers: bool

    def updated_mask(
        self, weight: Array, gradient: Array, mask: Mask, keep: int, grow: int, *, dtype: str, mode: str
    ) -> Mask:
        """`rigl_core.updated_mask` with RigL's criteria on the framework's own flat arrays of this dtype."""

    def scores(self, criterion: Criterion, weight: Array, gradient: Array, *, dtype: str, mode: str) -> Array:
        """A criterion's scores of flat arrays."""

    def random_scores(self, key: tuple[int, int], size: int, *, mode: str) -> npt.NDArray[np.int32]:
        """`rigl_core.random_scores` of the indices 0 to size - 1, made by the framework."""

    def start(
        self,
        params: Mapping[str, Array],
        layers: Sequence[Layer],
        recipe: Recipe,
        optimizer: OptimizerSpec,
        *,
        dtype: str = "float32",
        mode: str = "eager",
    ) -> Session:
        """Sparsify these parameters, under these names, with the adapter's ``sparsify``.

        Args:
            params: all parameters; those not among ``layers`` are trained densely.
            layers: which parameters are layers, with their axes.
            recipe: how to train.
            optimizer: with what.
            dtype: of the parameters.
            mode: how the step runs.
        """
