"""Optimizers that leave zeros alone, so that nothing is to be done outside the masks after their steps."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.optim import Optimizer

_ELEMENT_WISE = (
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.RMSprop,
    torch.optim.Adagrad,
    torch.optim.Adadelta,
    torch.optim.Adamax,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.ASGD,
    torch.optim.Rprop,
)
"""Where weight, gradient and state are 0 their step is 0 / (0 + eps) at most. Subclasses may do anything."""


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
