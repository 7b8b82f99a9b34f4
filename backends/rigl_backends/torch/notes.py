"""What the hook before an optimizer's step leaves to the hook after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from rigl_backends.torch.rollback import Rollback
from rigl_backends.torch.state import Counters


class Step(NamedTuple):
    """A step in progress.

    Attributes:
        update: the number of the update that the step makes, or None.
        gradients: copies of the dense gradients, flat, by position, for an update after the gradient step.
        hidden: parameters, and the gradients that an update in place of the gradient step has taken from them.
        counters: what such an update must not advance.
        rollback: takes the optimizer's step back, if an update in its place can only come after it.
    """

    update: int | None
    gradients: Mapping[int, Any] = {}
    hidden: Sequence[tuple[Tensor, Tensor]] = ()
    counters: Counters | None = None
    rollback: Rollback | None = None
