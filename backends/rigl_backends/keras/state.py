"""What Keras's optimizers hold for each weight and give a new one, which keep zeros, and which are refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from rigl_backends.keras_common.state import state_of
from rigl_backends.keras_common.wrapper import check_wrappable
from rigl_core.adapter import Recipe, check_recipe

ELEMENT_WISE = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "Nadam", "Lion")
"""Optimizers of Keras under which a weight that is 0 stays so, with fresh state, where its gradient is 0."""


class PerWeight(NamedTuple):
    """A variable of an optimizer that holds one number for each weight.

    Attributes:
        variable: the numbers, in the shape of the weights.
        fresh: the number that the optimizer gives a new weight; None for the value of the weight itself.
    """

    variable: keras.Variable
    fresh: float | None


def per_weight_state(optimizer: keras.optimizers.Optimizer, variables: Sequence[Any]) -> list[list[PerWeight]]:
    """The state for each weight of some variables, with what the optimizer gives a new weight.

    Args:
        optimizer: a built optimizer, which has not made a step yet: its own state is fresh.
        variables: all that it was built with.
    """
    held = state_of(optimizer, variables)
    return [
        [PerWeight(one, _fresh(one, variable)) for one in own] for own, variable in zip(held, variables, strict=True)
    ]


def _fresh(state: keras.Variable, weight: Any) -> float | None:
    values = np.asarray(ops.convert_to_numpy(ops.cast(state, "float32")))
    weights = np.asarray(ops.convert_to_numpy(ops.cast(weight, "float32")))
    if np.all(values == values.flat[0]):
        return float(values.flat[0])
    if np.array_equal(values, weights):
        return None
    raise ValueError(
        f"optimizer starts {state.name!r} with another number for each weight, so the state of a new weight is "
        "unknown: use another optimizer."
    )


def keeps_zeros(optimizer: keras.optimizers.Optimizer, variables: Sequence[Any]) -> bool:
    """Whether weights that are 0, with fresh state and a gradient of 0, stay +0 with fresh state in any step."""
    clips = optimizer.clipnorm is not None or optimizer.global_clipnorm is not None
    free = all(getattr(variable, "constraint", None) is None for variable in variables)
    rounds = any(keras.backend.standardize_dtype(one.dtype) in ("float16", "bfloat16") for one in variables)
    return type(optimizer).__name__ in ELEMENT_WISE and not (clips or rounds) and free


def check_optimizer(optimizer: Any) -> None:
    """Refuse what this adapter cannot wrap.

    Raises:
        TypeError, ValueError: naming the parameter.
    """
    check_wrappable(optimizer)
    backend, use = keras.backend.backend(), "use rigl_backends.tf, on TensorFlow"
    if type(optimizer).__module__.partition(".")[0] != "keras" or hasattr(optimizer, "optimizers"):
        raise ValueError(
            f"optimizer is a {type(optimizer).__name__}, and with Keras on {backend} only the state of Keras's own "
            f"single optimizers is known: take one of them, or {use}."
        )
    for option in ("gradient_accumulation_steps", "use_ema"):
        if getattr(optimizer, option):
            raise ValueError(f"optimizer has {option}, which is not offered on {backend}: remove it, or {use}.")
    if int(ops.convert_to_numpy(optimizer.iterations)):
        raise ValueError("optimizer has made steps already, so the state of a new weight is unknown: give a new one.")


def check_offered(recipe: Recipe) -> None:
    """Refuse recipes whose steps need more than masks."""
    check_recipe(recipe)
    rule = recipe.rule
    needs = {
        "memory": rule.memories,
        "changed gradients": rule.changes_gradient,
        "redistribution": rule.redistribution,
        "scores": rule.initial.reads_scores,
    }
    for kind, needed in needs.items():
        if needed:
            raise ValueError(
                f"recipe needs {kind}, which is not offered with Keras on {keras.backend.backend()}: use another "
                "recipe, such as RigL, or rigl_backends.tf, on TensorFlow."
            )
