"""What the conformance suite asks of a training: its start, and what a user does in it.

All arrays are NumPy arrays; bfloat16 numbers are passed in float32 arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rigl_core.model.layers import Layer
from rigl_core.recipe import Recipe

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer that every framework has; its numbers have the same meaning as in PyTorch.

    Attributes:
        kind: ``"sgd"`` or ``"adam"``; or ``"adagrad"``, whose accumulators start at 0.1, only if ``Harness.has`` names
            it.
        lr: learning rate.
        momentum: momentum of SGD; 0 for none.
        weight_decay: for Adam, decoupled from the gradient: the weights are multiplied by ``1 - lr * weight_decay``
            (AdamW). For SGD, ``weight_decay * weight`` is added to the gradient; if the framework's SGD does not do
            that, the harness does.
        clip_norm: if given, clip the gradient's global norm to this number before the step, as a user would.
        centered: whether the optimizer first subtracts the mean of each parameter's gradient (gradient centralization;
            SGD only). This is not element-wise, so inactive weights get a gradient.
        evaluations: how often the optimizer evaluates the loss, and its gradients, in one step. With 2, it adds half
            of the first gradients to all parameters between the two, as SAM does, and brings the parameters back. Its
            step takes the second gradients. More than 1 only if ``Harness.has`` names ``"closures"``.
    """

    kind: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float | None = None
    centered: bool = False
    evaluations: int = 1


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
        scores: the scores for ``sparsify``, by layer name: floating numbers, or bools, which are masks. None if the
            recipe needs none.
        dense_steps: the gradients of steps that the optimizer makes before ``sparsify``, one after the other. There are
            some only if ``Harness.has`` names ``"dense steps"``.
        micro_batches: how many calls of `Session.step` make one optimizer step, by the mean of their gradients. It is
            1 unless ``Harness.has`` names ``"micro-batches"``.
        initial: bool arrays by layer name, the masks to begin with; only if ``Harness.has`` names ``"given masks"``.
    """

    params: Mapping[str, Array]
    layers: Sequence[Layer]
    recipe: Recipe
    optimizer: OptimizerSpec
    dtype: str = "float32"
    mode: str = "eager"
    scores: Mapping[str, Array] | None = None
    dense_steps: Sequence[Mapping[str, Array]] = ()
    micro_batches: int = 1
    initial: Mapping[str, Mask] | None = None

    @property
    def needs(self) -> list[str]:
        """The words in `rigl_core.testing.limits.ABILITIES` for what this start asks of a library."""
        asked = {
            "adagrad": self.optimizer.kind == "adagrad",
            "closures": self.optimizer.evaluations > 1,
            "dense steps": len(self.dense_steps) > 0,
            "micro-batches": self.micro_batches > 1,
            "given masks": self.initial is not None,
        }
        return [ability for ability, is_asked in asked.items() if is_asked]


class Session(Protocol):
    """One sparse training, driven step by step with given gradients."""

    def step(self, gradients: Mapping[str, Array | None]) -> None:
        """One optimizer step of the user's loop, with these dense gradients of the loss.

        A gradient of None says that the parameter was not used in this step. A framework that cannot tell this from a
        gradient of zeros sets ``Harness.unused_layers = False``.
        """

    def step_samples(self, samples: Mapping[str, Sequence[tuple[Array, Array]]]) -> None:
        """One step in which the gradients of layers come from samples; all other parameters are not used.

        Asked for only in the mode ``"active"``, if ``Harness.has`` names ``"samples"``.

        Args:
            samples: by layer name, for each of its uses, inputs (samples, in) and output gradients (samples, out), in
                float32.
        """

    def learn(self, model: str, inputs: Array, labels: Array) -> None:
        """One step of the user's loop on a model of `rigl_core.testing.models`, differentiated by the framework.

        Args:
            model: ``"mlp"`` or ``"convnet"``; the session was started with its parameters and layers.
            inputs: float64 of shape (batch, 64).
            labels: int64 of shape (batch,).
        """

    def step_past(self, gradients: Mapping[str, Array]) -> None:
        """One step that the training does not see: plain SGD, with a learning rate of 0.1, on the same parameters.

        It is the step of another optimizer of the library, in a loop of the user's with these dense gradients. Asked
        for only if ``Harness.has`` names ``"steps past"``.
        """

    def weights(self) -> dict[str, Array]:
        """Copies of all parameters."""

    def write(self, weights: Mapping[str, Array]) -> None:
        """Set all parameters, as a user does who restores the model alone."""

    def replace(self, weights: Mapping[str, Array]) -> None:
        """Put new arrays with these values in place of all parameters' arrays.

        Asked for only if ``Harness.has`` names ``"new arrays"``; often `write` does that already.
        """

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
