"""What Keras's optimizers hold for each weight, and give a new one; and which keep zeros."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from rigl_backends.keras_common.state import path_of, single_optimizers, state_of
from rigl_backends.tf.namespace import finfo
from rigl_core.adapter import Recipe

_ELEMENT_WISE = (
    keras.optimizers.SGD,
    keras.optimizers.Adam,
    keras.optimizers.AdamW,
    keras.optimizers.RMSprop,
    keras.optimizers.Adagrad,
    keras.optimizers.Adadelta,
    keras.optimizers.Adamax,
    keras.optimizers.Nadam,
    keras.optimizers.Lion,
)
"""Where weight and gradient are 0, and state is fresh, all stays so: the step is 0 / (0 + epsilon) at most. Subclasses
may do anything."""

PROBE_STEPS = 12
"""The gradient steps of a probe: some optimizers change a part of their state at every tenth step only."""


class PerWeight(NamedTuple):
    """A variable of an optimizer that holds one number for each weight.

    Attributes:
        variable: the numbers, in the shape of the weights.
        fresh: the number that the optimizer gives a new weight; None for the value of the weight itself.
    """

    variable: keras.Variable
    fresh: float | None


def per_weight_state(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[Any], layers: Collection[int]
) -> dict[int, list[PerWeight]]:
    """The state for each weight of some variables, with what the optimizer gives a new weight.

    Its own state tells that until it has made a step; then, a new optimizer of the same configuration does.

    Args:
        optimizer: a built optimizer.
        variables: all that it was built with.
        layers: the positions of the variables to look at.

    Raises:
        ValueError: if the configuration of an optimizer that has made steps does not make it again; or if an optimizer
            gives each weight another number.
    """
    new = _made_again(optimizer) if int(optimizer._iterations.numpy()) else optimizer
    if new is None:
        raise ValueError(
            "optimizer has made steps already, and its configuration does not make a new one, which would show the "
            "state of a new weight: give sparsify a new optimizer, or write its get_config()."
        )
    if not new.built:
        new.build(list(variables))
    held, first = state_of(optimizer, variables), state_of(new, variables)
    squares = {len(variables[i].shape) for i in layers if len(set(variables[i].shape)) < len(variables[i].shape)}
    others = {rank: _kinds_of_matrices(optimizer, rank) for rank in squares}
    return {
        i: [
            PerWeight(own, _fresh(its, variables[i]))
            for own, its in zip(held[i], first[i], strict=True)
            if _kind(own, variables[i]) not in others.get(len(variables[i].shape), ())
        ]
        for i in layers
    }


def _fresh(state: keras.Variable, weight: Any) -> float | None:
    values, weights = tf.convert_to_tensor(state), tf.convert_to_tensor(weight)
    first = tf.reshape(values, [-1])[:1]
    if tf.reduce_all(values == 0):
        return 0.0
    if tf.reduce_all(values == weights):
        return None
    if tf.reduce_all(values == first):
        return float(first[0])
    raise ValueError(
        f"optimizer starts {state.name!r} with another number for each weight, so the state of a new weight is "
        "unknown: use another optimizer."
    )


def _kinds_of_matrices(optimizer: keras.optimizers.Optimizer, rank: int) -> set[str]:
    """The kinds of state that have the shape of a square weight without belonging to single weights.

    Keras's own optimizers have none. Others are tried out: what belongs to single weights moves with them when all
    axes are rolled, each by another distance. If an optimizer cannot be tried out, or draws at random, names decide.
    """
    foreign = [one for one in single_optimizers(optimizer) if type(one).__module__.partition(".")[0] != "keras"]
    return {kind for one in foreign for kind in _kinds_that_stay(one, rank)}


def _kinds_that_stay(optimizer: keras.optimizers.Optimizer, rank: int) -> set[str]:
    drawn = np.random.default_rng(0).normal(size=(1 + PROBE_STEPS, *[rank + 1] * rank))
    shifts, axes = tuple(range(1, rank + 1)), tuple(range(rank))
    first, again = _probe(optimizer, drawn), _probe(optimizer, drawn)
    rolled = _probe(optimizer, np.roll(drawn, (0, *shifts), (0, *(axis + 1 for axis in axes))))
    return {
        kind
        for kind in first.keys() & again.keys() & rolled.keys()
        if _near(first[kind], again[kind]) and not _near(np.roll(first[kind], shifts, axes), rolled[kind])
    }


def _near(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> bool:
    return np.allclose(x, y, rtol=0, atol=1e-3 * float(np.abs(x).max()), equal_nan=True)


def _probe(optimizer: keras.optimizers.Optimizer, drawn: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """The state of a small weight after some steps, by its kind; nothing if the optimizer cannot be tried out.

    Args:
        optimizer: the optimizer, which stays as it is.
        drawn: the weight, and the gradient of each step.
    """
    weight = keras.Variable(drawn[0], name="probe", dtype="float32")
    try:
        probe = _made_again(optimizer)
        assert probe is not None
        probe.build([weight])
        for gradient in drawn[1:]:
            probe.apply([tf.constant(gradient, tf.float32)], [weight])
    except Exception:  # a user's own class may raise anything
        return {}
    (state,) = state_of(probe, [weight])
    return {_kind(one, weight): one.numpy() for one in state}


def _made_again(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer | None:
    """A new optimizer of the same configuration, except for a schedule; None if the configuration makes none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            config = optimizer.get_config()
            if not isinstance(config.get("learning_rate", 0.1), float):
                config["learning_rate"] = 0.1
            return type(optimizer).from_config(config)
        except Exception:  # a user's own class may raise anything
            return None


def _kind(state: keras.Variable, weight: Any) -> str:
    return str(state.name).removeprefix(f"{path_of(weight)}_")


def keeps_zeros(optimizer: keras.optimizers.Optimizer, variables: Sequence[Any]) -> bool:
    """Whether weights that are 0, with fresh state and a gradient of 0, stay +0 with fresh state in any step.

    Clipping by a norm does not keep them where the norm is not finite: 0 * NaN. Nor does a constraint that moves the
    weights, or an epsilon that is 0 in their precision.
    """
    clips = optimizer.clipnorm is not None or optimizer.global_clipnorm is not None
    free = all(getattr(variable, "constraint", None) is None for variable in variables)
    least = max((finfo(tf.as_dtype(variable.dtype)).smallest_normal for variable in variables), default=0.0)
    return type(optimizer) in _ELEMENT_WISE and not clips and free and getattr(optimizer, "epsilon", 1.0) >= least


def check_averages(optimizer: keras.optimizers.Optimizer, recipe: Recipe) -> None:
    """Refuse averages of weights, if the recipe lets weights outside the masks learn."""
    if recipe.rule.shadow and any(one.use_ema for one in single_optimizers(optimizer)):
        raise ValueError(
            "optimizer averages weights (use_ema), and with this recipe those outside the mask learn too: the average "
            "would be dense. Leave use_ema out, or take a recipe without shadow."
        )
