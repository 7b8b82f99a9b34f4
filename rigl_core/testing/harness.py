"""What the conformance suite asks of a backend: one harness, written by the adapter's author.

Everything goes in and out as NumPy arrays, so the suite knows no framework. bfloat16 values travel as
float32 arrays that hold bfloat16 numbers; a harness converts them.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rigl_core.arrays.namespace import Namespace
from rigl_core.arrays.random import random_scores
from rigl_core.model.layers import Layer
from rigl_core.parts.criteria import Connections, Criterion
from rigl_core.recipe import Recipe
from rigl_core.step.update import Counts, move_pool

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
        centered: subtract the mean of each parameter's gradient before anything else the optimizer does (gradient
            centralization; SGD only): not element-wise, so inactive weights get a gradient.
    """

    kind: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float | None = None
    centered: bool = False


@dataclass(frozen=True)
class Setup:
    """What a sparse training starts with.

    Attributes:
        params: all parameters; those not among ``layers`` are trained densely.
        layers: which parameters are layers, with their axes.
        recipe: how to train.
        optimizer: with what.
        dtype: of the parameters.
        mode: how the step runs.
        scores: for ``sparsify``, by layer name; None if the recipe asks for none.
    """

    params: Mapping[str, Array]
    layers: Sequence[Layer]
    recipe: Recipe
    optimizer: OptimizerSpec
    dtype: str = "float32"
    mode: str = "eager"
    scores: Mapping[str, Array] | None = None


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

    def sparsify_again(self) -> None:
        """Give what is sparse already to the adapter's ``sparsify`` once more: a mistake."""


class Harness(ABC):
    """A backend under test: a subclass says what its arrays are and how its user trains.

    Attributes:
        name: shown in the table.
        dtypes: floating dtypes it supports, of float16, bfloat16, float32, float64.
        modes: how its code can run: ``"eager"``, ``"compiled"`` or more of its own.
        unused_layers: whether a gradient can be missing.
        xp: the adapter's namespace.
        session: sparsifies the parameters of a setup, under their names, with the adapter's ``sparsify``.
    """

    name: str
    dtypes: Sequence[str]
    modes: Sequence[str]
    unused_layers: bool
    xp: Namespace
    session: Callable[[Setup], Session]

    @abstractmethod
    def to_backend(self, array: Array, dtype: str, /) -> Any:
        """The framework's array of these values; ``dtype`` is one of ``dtypes``, ``"bool"`` or ``"int32"``."""

    @abstractmethod
    def to_numpy(self, array: Any, /) -> Array:
        """A copy of the framework's array; of bfloat16, as float32."""

    def to_scalar(self, number: int, /) -> Any:
        """An int32 number as the adapter gives it to the core: a Python integer, or what its compiler traces."""
        return number

    def in_mode(self, function: Callable[..., Any], mode: str, /) -> Callable[..., Any]:
        """The function, of the framework's arrays, as it runs in this mode."""
        return function

    def settings(self, dtype: str, /) -> AbstractContextManager[Any]:
        """What the framework must be set to, to work with arrays of this dtype."""
        return nullcontext()

    def start(
        self,
        params: Mapping[str, Array],
        layers: Sequence[Layer],
        recipe: Recipe,
        optimizer: OptimizerSpec,
        *,
        dtype: str = "float32",
        mode: str = "eager",
        scores: Mapping[str, Array] | None = None,
    ) -> Session:
        """A session of this `Setup`."""
        return self.session(Setup(params, layers, recipe, optimizer, dtype, mode, scores))

    def updated_mask(
        self, weight: Array, gradient: Array, mask: Mask, keep: int, grow: int, *, dtype: str, mode: str
    ) -> Mask:
        """RigL's update of flat arrays, of which the floating ones get this dtype."""
        return self._run(_compiled(self, mode, _updated_mask), dtype, weight, gradient, mask, keep, grow)

    def scores(self, criterion: Criterion, weight: Array, gradient: Array, *, dtype: str, mode: str) -> Array:
        """A criterion's scores of flat arrays."""
        return self._run(_compiled(self, mode, _scores, criterion), dtype, weight, gradient)

    def random_scores(self, key: tuple[int, int], size: int, *, mode: str) -> npt.NDArray[np.int32]:
        """`rigl_core.random_scores` of the indices 0 to size - 1."""
        return self._run(_compiled(self, mode, _random_scores), "int32", np.arange(size, dtype=np.int32), *key)

    def _run(self, function: Callable[..., Any], dtype: str, *arguments: Array | int) -> Array:
        with self.settings(dtype):
            return self.to_numpy(function(*(self._own(argument, dtype) for argument in arguments)))

    def _own(self, argument: Array | int, dtype: str) -> Any:
        if isinstance(argument, int):
            return self.to_scalar(argument)
        return self.to_backend(argument, dtype if argument.dtype.kind == "f" else argument.dtype.name)


@functools.cache
def _compiled(harness: Harness, mode: str, function: Callable[..., Any], *constants: Any) -> Callable[..., Any]:
    """One of the core's functions in this mode; cached, so that the framework's compiler knows it again."""
    return harness.in_mode(functools.partial(function, harness.xp, *constants), mode)


def _updated_mask(xp: Namespace, weight: Any, gradient: Any, mask: Any, keep: Any, grow: Any) -> Any:
    (moved,) = move_pool(_RIGL, [Connections(weight, gradient)], [mask], Counts(keep, grow), xp=xp)
    return moved.mask


def _scores(xp: Namespace, criterion: Criterion, weight: Any, gradient: Any) -> Any:
    return criterion.score(Connections(weight, gradient), xp)


def _random_scores(xp: Namespace, indices: Any, first: Any, second: Any) -> Any:
    return random_scores((first, second), indices, xp=xp)


_RIGL = Recipe()
