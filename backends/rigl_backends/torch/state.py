"""An optimizer's state for each weight, its gradients, and the optimizers that leave zeros alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import ASGD, SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop, Rprop

_ELEMENT_WISE = (SGD, Adam, AdamW, RMSprop, Adagrad, Adadelta, Adamax, NAdam, RAdam, ASGD, Rprop)
"""Where weight, gradient and state are 0 their step is 0 / (0 + eps) at most. Subclasses may do anything."""


def state_of(optimizer: Optimizer, param: nn.Parameter) -> list[Tensor]:
    """The optimizer's state for each weight: the tensors of the parameter's shape, however the state nests them."""
    return _of_shape(param.shape, optimizer.state.get(param))


def _of_shape(shape: torch.Size, state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state] if state.shape == shape else []
    values = state.values() if isinstance(state, Mapping) else state if isinstance(state, list | tuple) else ()
    return [tensor for value in values for tensor in _of_shape(shape, value)]


def gradients_of(optimizer: Optimizer) -> list[tuple[Tensor, Tensor]]:
    """The optimizer's parameters that have a gradient, and these gradients."""
    params = (param for group in optimizer.param_groups for param in group["params"])
    return [(param, param.grad) for param in params if param.grad is not None]


def keeps_zeros(optimizer: Optimizer, dtypes: Iterable[torch.dtype]) -> bool:
    """Whether weights and state that are 0, and have a gradient of 0, are 0 after the coming step of this optimizer.

    Args:
        optimizer: any.
        dtypes: of the weights: eps must not be 0 in their precision.
    """
    if type(optimizer) not in _ELEMENT_WISE or len(optimizer._optimizer_step_post_hooks) > 1:  # one of them is ours
        return False
    least = max((torch.finfo(dtype).smallest_normal for dtype in dtypes), default=0.0)
    return all(group.get("eps", 1.0) >= least for group in optimizer.param_groups)
