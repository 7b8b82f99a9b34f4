"""The harness of a backend, through which the conformance suite runs it. The adapter's author writes it.

All arrays that go in and out are NumPy arrays, so the suite knows no framework. bfloat16 numbers are passed in float32
arrays; a harness converts them.
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

from rigl_core.arrays.connections import Connections
from rigl_core.arrays.namespace import Namespace
from rigl_core.arrays.random import random_scores
from rigl_core.model.layers import Layer
from rigl_core.parts.criteria import Criterion
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.plan import Counts
from rigl_core.recipe import Recipe
from rigl_core.step.update import move_pool
from rigl_core.testing.limits import Limits, NotOffered

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer that every framework has; its numbers have the same meaning as in PyTorch.

    Attributes:
        kind: ``"sgd"`` or ``"adam"``.
        lr: learning rate.
        momentum: momentum of SGD; 0 for none.
        weight_decay: for Adam, decoupled from the gradient: the weights are multiplied by ``1 - lr * weight_decay``
            (AdamW). For SGD, ``weight_decay * weight`` is added to the gradient; if the framework's SGD does not do
            that, the harness does.
        clip_norm: if given, clip the gradient's global norm to this number before the step, as a user would.
        centered: whether the optimizer first subtracts the mean of each parameter's gradient (gradient centralization;
            SGD only). This is not element-wise, so inactive weights get a gradient.
    """

    kind: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float | None = None
    centered: bool = False


@dataclass(frozen=True)
class Setup:
    """The start of a sparse training.

    Attributes:
        params: all parameters by name; parameters that are not among ``layers`` are trained densely. A framework whose
            arrays have strides keeps those of these arrays (`rigl_core.testing.layout.laid_out_like`).
        layers: the parameters that are layers, with their axes.
        recipe: the recipe.
        optimizer: the optimizer.
        dtype: the dtype of the parameters in the framework.
        mode: how the step runs, one of `Harness.modes`.
        scores: the scores for ``sparsify``, by layer name; None if the recipe needs none.
        micro_batches: how many calls of `Session.step` make one optimizer step, by the mean of their gradients.
    """

    params: Mapping[str, Array]
    layers: Sequence[Layer]
    recipe: Recipe
    optimizer: OptimizerSpec
    dtype: str = "float32"
    mode: str = "eager"
    scores: Mapping[str, Array] | None = None
    micro_batches: int = 1


class Session(Protocol):
    """One sparse training, driven step by step with given gradients."""

    def step(self, gradients: Mapping[str, Array | None]) -> None:
        """One optimizer step of the user's loop, with these dense gradients of the loss.

        A gradient of None says that the parameter was not used in this step. A framework that cannot tell this from a
        gradient of zeros sets ``Harness.unused_layers = False``.
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

    def write(self, weights: Mapping[str, Array]) -> None:
        """Set all parameters, as a user does who restores the model alone."""

    def masks(self) -> dict[str, Mask]:
        """The masks that the adapter gives to users, for every layer of the plan."""

    def optimizer_state(self) -> dict[str, list[Array]]:
        """Copies of the arrays that the optimizer holds for each weight, by parameter name, in a fixed order."""

    def steps(self) -> int:
        """The number of optimizer steps that the adapter has counted."""

    def save(self) -> Any:
        """Save everything that a resumed training needs, as a user does; later steps must not change the result."""

    def load(self, saved: Any) -> None:
        """Continue from the result of `save`, in this session or in a new one."""

    def sparsify_again(self) -> None:
        """Call the adapter's ``sparsify`` again on an optimizer that is sparsified already, which is an error."""


class Harness(Limits, ABC):
    """A backend under test: a subclass says how to make its arrays, and how its users train.

    Attributes:
        name: the backend's name in the table of results.
        dtypes: the floating dtypes that it supports, out of float16, bfloat16, float32, float64.
        modes: the ways in which its code can run: ``"eager"``, ``"compiled"``, or others.
        unused_layers: whether the gradient of a parameter can be missing.
        slow_modes: the modes in which a case takes long, so that properties run on fewer cases.
        xp: the adapter's namespace; None if it has none, so that nothing but whole trainings can be tested.
        session: starts a `Session`: sparsifies the parameters of a `Setup`, under their names, with the adapter's
            ``sparsify``.
    """

    name: str
    dtypes: Sequence[str]
    modes: Sequence[str]
    unused_layers: bool
    slow_modes: Sequence[str] = ()
    xp: Namespace | None = None
    session: Callable[[Setup], Session]

    @abstractmethod
    def to_backend(self, array: Array, dtype: str, /) -> Any:
        """The framework's array of these values; ``dtype`` is one of ``dtypes``, ``"bool"`` or ``"int32"``."""

    @abstractmethod
    def to_numpy(self, array: Any, /) -> Array:
        """A copy of the framework's array; bfloat16 becomes float32."""

    def to_scalar(self, number: int, /) -> Any:
        """An int32 number as the adapter gives it to the core: a Python integer, or a scalar that can be traced."""
        return number

    def in_mode(self, function: Callable[..., Any], mode: str, /) -> Callable[..., Any]:
        """The function as it runs in this mode, such as compiled; it takes arrays of the framework."""
        return function

    def settings(self, dtype: str, /) -> AbstractContextManager[Any]:
        """A context with the framework's settings that arrays of this dtype need."""
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
        """Start a session; the arguments are those of `Setup`. Raises `NotOffered` for recipes beyond `offered`."""
        self.check_offered(recipe, tuple(layers))
        return self.session(Setup(params, layers, recipe, optimizer, dtype, mode, scores))

    def updated_mask(
        self, weight: Array, gradient: Array, mask: Mask, keep: int, grow: int, *, dtype: str, mode: str
    ) -> Mask:
        """RigL's update of one layer, in the framework.

        Args:
            weight: flat.
            gradient: flat.
            mask: flat bool array.
            keep: the number of connections to keep.
            grow: the number of connections to grow.
            dtype: the dtype of weight and gradient in the framework.
            mode: how the code runs.

        Returns:
            The new mask.
        """
        return self._run(_compiled(self, mode, _updated_mask), dtype, weight, gradient, mask, keep, grow)

    def scores(self, criterion: Criterion, weight: Array, gradient: Array, *, dtype: str, mode: str) -> Array:
        """A criterion's scores for flat arrays, computed in the framework."""
        return self._run(_compiled(self, mode, _scores, criterion), dtype, weight, gradient)

    def random_scores(self, key: tuple[int, int], size: int, *, mode: str) -> npt.NDArray[np.int32]:
        """`rigl_core.arrays.random.random_scores` of the indices 0 to size - 1."""
        return self._run(_compiled(self, mode, _random_scores), "int32", np.arange(size, dtype=np.int32), *key)

    def _run(self, function: Callable[..., Any], dtype: str, *arguments: Array | int) -> Array:
        if self.xp is None:
            raise NotOffered(f"{self.name} has no function for a single update of given arrays.")
        with self.settings(dtype):
            return self.to_numpy(function(*(self._own(argument, dtype) for argument in arguments)))

    def _own(self, argument: Array | int, dtype: str) -> Any:
        if isinstance(argument, int):
            return self.to_scalar(argument)
        return self.to_backend(argument, dtype if argument.dtype.kind == "f" else argument.dtype.name)


@functools.cache
def _compiled(harness: Harness, mode: str, function: Callable[..., Any], *constants: Any) -> Callable[..., Any]:
    """A function of the core in this mode; cached, so that the framework compiles it once."""
    return harness.in_mode(functools.partial(function, harness.xp, *constants), mode)


def _updated_mask(xp: Namespace, weight: Any, gradient: Any, mask: Any, keep: Any, grow: Any) -> Any:
    (updated,) = move_pool(_RIGL, [Connections(weight, gradient)], [mask], Counts(keep, grow), xp=xp)
    return updated.mask


def _scores(xp: Namespace, criterion: Criterion, weight: Any, gradient: Any) -> Any:
    return criterion.score(Connections(weight, gradient), xp)


def _random_scores(xp: Namespace, indices: Any, first: Any, second: Any) -> Any:
    return random_scores((first, second), indices, xp=xp)


_RIGL = Recipe(schedule=UpdateSchedule(end=1)).rule
