"""Properties of layers with slices: stacks of layers, and parts that are fused along an axis (rules B12 and T7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from rigl_core.methods import SET, RigL
from rigl_core.model.layers import Layer
from rigl_core.parts.distributions import ErdosRenyi
from rigl_core.parts.drop_fractions import Constant
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.parts.structures import NM, Blocks, ConstantFanIn
from rigl_core.testing.checks import checks, is_fast, runs_where
from rigl_core.testing.fixed import fixed_training
from rigl_core.testing.harness import Array, Harness
from rigl_core.testing.properties.test_axes import check_start_and_update
from rigl_core.testing.recording import start

LAYERS: tuple[Layer, ...] = (
    Layer("fc0.weight", (12, 8), in_axes=(1,), out_axes=(0,), fused=(0, 3)),
    Layer("stack1.weight", (3, 4, 8), in_axes=(1,), out_axes=(2,), stacked=(0,)),
    Layer("both2.weight", (4, 2, 12), in_axes=(0,), out_axes=(2,), stacked=(1,), fused=(2, 3)),
    Layer("fc3.weight", (8, 12), in_axes=(1,), out_axes=(0,)),
    Layer("conv4.weight", (8, 4, 3, 1), in_axes=(1,), out_axes=(0,), groups=2, fused=(0, 2)),
)
"""Fused parts, a stack, a stack along an inner axis of layers with fused parts, one without slices, a convolution."""
METHODS: Mapping[str, Any] = {
    "RigL": lambda when: RigL(0.6, schedule=when, distribution=ErdosRenyi(), drop_fraction=Constant(0.5)),
    "SET": lambda when: SET(0.6, schedule=when, distribution=ErdosRenyi(), drop_fraction=Constant(0.5)),
    "SRigL": lambda when: RigL(
        0.6, schedule=when, distribution=ErdosRenyi(), structure=ConstantFanIn(), drop_fraction=Constant(0.5)
    ),
    "RigL, blocks of 2": lambda when: RigL(
        0.6, schedule=when, distribution=ErdosRenyi(), structure=Blocks(2), drop_fraction=Constant(0.5)
    ),
    "RigL 2:4": lambda when: RigL(schedule=when, structure=NM(2, 4), drop_fraction=Constant(0.5)),
}
"""How the slices choose; slow and compiled modes run RigL alone, on two layers. Active weights know no slices (A3)."""


@runs_where(lambda harness, mode, method: mode != "active" and (method == "RigL" or is_fast(harness, mode)))
@checks("B10", "B12", "N2", "T3", "T6", "T7", "P1")
@pytest.mark.parametrize("method", METHODS)
def test_slices_are_layers_of_their_own(harness: Harness, mode: str, method: str) -> None:
    """Counts by ER, initial masks and an update are the oracle's in each slice; one without information stays."""
    layers = LAYERS if is_fast(harness, mode) else LAYERS[:2]
    recipe = METHODS[method](UpdateSchedule(end=2, every=2))
    training = fixed_training(recipe, layers)
    gradients = silent_in_a_slice(training.gradients(0))
    check_start_and_update(training, start(harness, mode, training), gradients)


def silent_in_a_slice(gradients: dict[str, Array]) -> dict[str, Array]:
    """The gradients, with zeros in the first slice of the fused layer, and in the second of the stack."""
    silent = {name: np.array(array) for name, array in gradients.items()}
    silent["fc0.weight"][:4] = 0
    silent["stack1.weight"][1] = 0
    return silent
