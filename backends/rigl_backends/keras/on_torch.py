"""What is PyTorch's own in a step of Keras: branches are Python's, and gradients are recorded unless told otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import torch

from rigl_backends.torch import namespace as xp
from rigl_core.adapter import Counts, Plan

__all__ = ["choose", "counts", "either", "no_gradients", "not_finite", "number", "xp"]

no_gradients = torch.no_grad


def number(variable: keras.Variable) -> Any:
    """A variable's number."""
    return variable.value.item()


def counts(plan: Plan, update: int, pool: int) -> Counts:
    """How many connections an update keeps and grows in a pool."""
    return plan.counts(update, pool)


def not_finite(arrays: Sequence[torch.Tensor]) -> bool:
    """Whether any number is NaN or infinite."""
    return not xp.all_finite(arrays)


def choose(condition: bool, then: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
    """One of two results."""
    return then() if condition else otherwise()


def either(condition: bool, then: Callable[[], None], otherwise: Callable[[], None], variables: Sequence[Any]) -> None:
    """One of two changes of some variables."""
    choose(condition, then, otherwise)
