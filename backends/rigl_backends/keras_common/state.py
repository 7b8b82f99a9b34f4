"""Where Keras's optimizers hold what belongs to each weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import keras

ZEROED_EVERY = 100
"""Steps after which everything outside the masks is zeroed, of optimizers too that leave zeros alone: anybody else may
have written there."""


def state_of(optimizer: keras.optimizers.Optimizer, variables: Sequence[Any]) -> list[list[keras.Variable]]:
    """The optimizer's variables that hold one number for each weight of a variable, for every variable.

    Keras optimizers make such a variable with ``add_variable_from_reference``, which names it after the
    weights (``dense_kernel_momentum``) and gives it their shape. Moments, accumulators and moving
    averages are found by these two, whatever the optimizer and however it keeps them.

    Args:
        optimizer: a built optimizer; one that holds further optimizers lists their variables too.
        variables: the variables it was built with, in that order.
    """
    prefixes = [f"{path_of(variable)}_" for variable in variables]
    state: list[list[keras.Variable]] = [[] for _ in variables]
    seen: Counter[str] = Counter()
    for candidate in optimizer.variables:
        owners = [
            i
            for i, variable in enumerate(variables)
            if candidate.name.startswith(prefixes[i]) and candidate.shape == variable.shape
        ]
        if owners:
            # "a/kernel" begins like "a/kernel_b", so the longest wins; equal names are made in the variables' order.
            longest = max(len(prefixes[i]) for i in owners)
            owners = [i for i in owners if len(prefixes[i]) == longest]
            state[owners[seen[candidate.name] % len(owners)]].append(candidate)
            seen[candidate.name] += 1
    return state


def single_optimizers(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """Those that a `keras.optimizers.MultiOptimizer` holds; of any other optimizer just itself."""
    return list(getattr(optimizer, "optimizers", [optimizer]))


def path_of(variable: Any) -> str:
    """A variable's name as Keras writes it into the names of optimizer variables."""
    return str(getattr(variable, "path", variable.name)).replace("/", "_").replace(":", "_")
