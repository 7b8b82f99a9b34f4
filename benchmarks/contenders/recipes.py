"""The recipes that the adapters are measured with."""

from __future__ import annotations

from rigl_core import Constant, Layer, Recipe, RigL, UpdateSchedule
from subjects import DROP_FRACTION, SPARSITY, Kernels


def always_moving() -> Recipe:
    """RigL with ERK. Every step has an update, except the first, in which optimizers make their state."""
    schedule = UpdateSchedule(end=1000, every=1, begin=1)
    return RigL(SPARSITY, schedule=schedule, drop_fraction=Constant(DROP_FRACTION))


def moving_later() -> Recipe:
    """RigL with ERK. The first update comes too late to be measured, but the adapter has to prepare for it."""
    return RigL(SPARSITY, schedule=UpdateSchedule(end=10**6, every=10**5, begin=10**5))


def layers_of(kernels: Kernels) -> list[Layer]:
    """The descriptions of the kernels."""
    return [Layer(name, shape, in_axes=(1,), out_axes=(0,)) for name, shape in kernels.shapes]
