"""An optimizer as it is before a step, for a step that is taken back."""

from __future__ import annotations

import copy

from torch.optim import Optimizer

from rigl_backends.torch.state import Counters
from rigl_backends.torch.twin import optimizers_in, params_of


class Rollback:
    """Copies of an optimizer's weights and state.

    They are for optimizers that may evaluate their closure several times, and between that write weights, as SAM does.
    Such an optimizer needs the gradients that an update otherwise hides from it. So it makes its step, an update takes
    the step back, and then takes its place.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._weights = [(param, param.detach().clone()) for param in set(params_of(optimizer))]
        self._states = [
            (inner, {param: copy.deepcopy(values) for param, values in inner.state.items()})
            for _, inner in optimizers_in(optimizer)
        ]
        self._counters = Counters(optimizer)

    def restore(self) -> None:
        """Take the step back, bit for bit."""
        for param, weight in self._weights:
            param.detach().copy_(weight)
        for optimizer, state in self._states:
            optimizer.state.clear()
            optimizer.state.update(state)
        self._counters.restore()


def evaluates_once(optimizer: Optimizer) -> bool:
    """Whether the optimizer evaluates its closure first of all, and once, as those of PyTorch do (without L-BFGS)."""
    return type(optimizer).__module__.startswith("torch.optim.")
