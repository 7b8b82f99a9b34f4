"""What a sparse training and its modules of active weights know of each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.parallel import DistributedDataParallel

from rigl_core.adapter import Index

Floats = npt.NDArray[np.float32]
Sample = tuple[Any, ...]
"""What a module keeps of one use, to make the dense gradient of it: see `SparseModule.products`."""


def _never() -> bool:
    return False


class Link:
    """What a training asks of a module, and a module of its training. A copy of a module has none.

    Attributes:
        reads_samples: says whether the coming step reads the dense gradient, so that samples are to be kept.
        on_index: is told of other places of the weights, before weights are loaded there.
        samples: those of the coming step whose gradient was accumulated, each after the number of its call.
        resizes: whether updates change the number of weights.
        replicas: the process group whose replicas average the gradient; None without DistributedDataParallel.
    """

    def __init__(self) -> None:
        self.reads_samples: Callable[[], bool] = _never
        self.on_index: Callable[[Index], None] | None = None
        self.samples: list[tuple[int, Sample]] = []
        self._pending: list[tuple[int, Sample]] = []
        self._calls, self._backward_pass = 0, -1
        self.resizes = False
        self.replicas: Any = None

    def called(self) -> int:
        """The module is called: the number of the call, by which samples are ordered.

        Raises:
            ValueError: if replicas would lose a parameter whose size changes.
        """
        outer: Any = DistributedDataParallel._active_ddp_module
        self.replicas = None if outer is None else outer.process_group
        if self.resizes and outer is not None:
            raise ValueError(
                "DistributedDataParallel keeps the sizes of parameters, and this recipe's ramp changes the number of "
                "active weights: use storage='masks'."
            )
        self._calls += 1
        return self._calls

    def add(self, call: int, sample: Sample) -> None:
        """A sample of a backward pass, which counts once the pass has accumulated a gradient."""
        own_pass = torch._C._current_graph_task_id()
        if own_pass != self._backward_pass:
            self._pending.clear()
            self._backward_pass = own_pass
        self._pending.append((call, sample))

    def accumulate(self) -> None:
        """The backward pass has accumulated a gradient."""
        self.samples += self._pending
        self._pending.clear()

    def __deepcopy__(self, memo: dict[int, Any]) -> Link:
        return Link()

    def __reduce__(self) -> tuple[type[Link], tuple[()]]:
        return Link, ()
