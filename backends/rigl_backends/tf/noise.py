"""A last change to gradients: after all that Keras does to them, once for each step of an optimizer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras

from rigl_backends.tf.outer import single_optimizers

Change = Callable[[Any, Any], Any]
"""Maps the gradient of a variable, and the variable, to the gradient that is used."""


@contextlib.contextmanager
def changed_gradients(optimizer: keras.optimizers.Optimizer, change: Change | None) -> Iterator[None]:
    """While this lasts, an optimizer's steps take changed gradients, which are accumulated and clipped already.

    Args:
        optimizer: any of Keras; one that holds others changes theirs.
        change: None to change nothing.
    """
    changing = [] if change is None else single_optimizers(optimizer)
    for one in changing:
        vars(one)["update_step"] = _changed(one.update_step, change)
    try:
        yield
    finally:
        for one in changing:
            del vars(one)["update_step"]


def _changed(update_step: Callable[..., None], change: Any) -> Callable[..., None]:
    def step(gradient: Any, variable: Any, learning_rate: Any) -> None:
        update_step(change(gradient, variable), variable, learning_rate)

    return step
