"""The recipes that the adapters are measured with."""

from __future__ import annotations

from rigl_core import Constant, Layer, Recipe, RigL, UpdateSchedule
from subjects import DROP_FRACTION, SPARSITY, Kernels


def always_moving() -> Recipe:
    """RigL, ERK, with an update at every step after the first, which lets optimizers make their state."""
    schedule = UpdateSchedule(end=1000, every=1, begin=1)
    return RigL(SPARSITY, schedule=schedule, drop_fraction=Constant(DROP_FRACTION))


def moving_later() -> Recipe:
    """RigL, ERK, whose first update is too far away to be measured, but has to be prepared for."""
    return RigL(SPARSITY, schedule=UpdateSchedule(end=10**6, every=10**5, begin=10**5))


def layers_of(kernels: Kernels) -> list[Layer]:
    """The kernels as the core describes them."""
    return [Layer(name, shape, in_axes=(1,), out_axes=(0,)) for name, shape in kernels.shapes]
