"""Where the variables of a training are: on one device, or on several replicas of a strategy of `tf.distribute`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from rigl_backends.keras_common.state import single_optimizers

MIRRORED = (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)
"""The strategies whose replicas all hold the same variables."""


def strategy_of(optimizers: Sequence[keras.optimizers.Optimizer], variables: Sequence[Any]) -> Any:
    """The strategy that keeps several replicas of these variables; None if there is one replica.

    Args:
        optimizers: that train them; the last one makes the gradient steps.
        variables: of a model.

    Raises:
        ValueError: if the replicas cannot have one topology.
    """
    single = [*optimizers, *single_optimizers(optimizers[-1])]
    found = [*map(_holder, variables), *(one._distribution_strategy for one in single)]
    strategy = next((one for one in [*found, tf.distribute.get_strategy()] if _replicas(one) > 1), None)
    if strategy is None:
        return None
    name = type(strategy).__name__
    if not isinstance(strategy, MIRRORED):
        raise ValueError(
            f"optimizer runs on the replicas of a {name}, which do not hold the same variables: use a "
            "MirroredStrategy or a MultiWorkerMirroredStrategy."
        )
    if any(one is not strategy for one in found):
        raise ValueError(
            f"optimizer and model do not belong to the same replicas of a {name}: make the model and its optimizer, "
            "and call sparsify, in one strategy.scope()."
        )
    if any(one.gradient_accumulation_steps for one in single):
        raise ValueError(
            f"optimizer accumulates gradients, in each replica of a {name} its own, and no checkpoint holds them all: "
            "remove gradient_accumulation_steps."
        )
    return strategy


@contextlib.contextmanager
def where_variables_are_made(strategy: Any) -> Iterator[None]:
    """Outside of any trace, which may be of the first step; with replicas, across them."""
    with tf.init_scope(), contextlib.nullcontext() if strategy is None else strategy.scope():
        yield


def across_replicas(act: Callable[[], None]) -> None:
    """Do something once, from the code that each replica runs; or where there is one replica."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        act()
    else:
        context.merge_call(lambda _: act())


def replicas_of(variable: Any) -> int:
    """The number of replicas that hold a variable of Keras."""
    return _replicas(_holder(variable))


def _holder(variable: Any) -> Any:
    return getattr(getattr(variable, "value", variable), "distribute_strategy", None)


def _replicas(strategy: Any) -> int:
    return 1 if strategy is None else int(strategy.num_replicas_in_sync)
