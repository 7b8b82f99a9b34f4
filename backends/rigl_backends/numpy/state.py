"""What an optimizer holds for each weight, and gives a new weight; and which optimizers leave zeros alone."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt

from rigl_backends.numpy.optimizers import SGD, Adam, Optimizer

Array = npt.NDArray[Any]


def state_of(optimizer: Optimizer, name: str, shape: tuple[int, ...]) -> dict[str, Array]:
    """The arrays of the parameter's shape among its state, by key: they hold one number for each weight."""
    return {key: values for key, values in optimizer.state[name].items() if np.shape(values) == shape}


def fresh_state(optimizer: Optimizer, name: str, axes: int) -> dict[str, float]:
    """What the optimizer gives a new weight of a parameter, by key, except for zeros.

    A copy of the optimizer shows it, which makes a step on a weight of 0, of so many axes, with a gradient of 0.

    Raises:
        ValueError: naming ``optimizer``, if this step fails.
    """
    if keeps_zeros(optimizer):
        return {}
    zero = np.zeros([1] * axes, optimizer.params[name].dtype)
    alone = copy.copy(optimizer)
    own = {key: value for key, value in vars(optimizer).items() if key not in ("params", "state", "step")}
    vars(alone).update(copy.deepcopy(own), params={name: zero.copy()}, state={name: {}})
    try:
        with np.errstate(all="ignore"):  # 0 / 0 in the weight, where eps is 0 in its precision
            type(alone).step(alone, {name: zero})
    except Exception as error:  # a user's own class may raise anything
        raise ValueError(
            f"optimizer {type(optimizer).__name__} cannot show what it gives a new weight of layer {name!r}: a "
            f"copy of it fails at a step with this parameter alone, by {error!r}. Make step work for any parameters."
        ) from error
    new = alone.state[name]
    return {key: values.item() for key, values in new.items() if np.shape(values) == zero.shape and values.any()}


def keeps_zeros(optimizer: Optimizer) -> bool:
    """Whether weights that are 0 and their state, which is 0, stay so in a step without a gradient."""
    return type(optimizer) in (SGD, Adam)  # a subclass may do anything
