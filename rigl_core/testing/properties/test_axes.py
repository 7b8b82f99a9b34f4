"""Properties of layers whose axes lie elsewhere, and of grouped convolutions: counts, groups and updates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from rigl_core.methods import RigL
from rigl_core.model.layers import Layer
from rigl_core.parts.distributions import ErdosRenyi
from rigl_core.parts.drop_fractions import Constant
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.parts.structures import NM, Blocks, ConstantFanIn
from rigl_core.testing import budget_oracle
from rigl_core.testing.checks import checks, is_fast, runs_where
from rigl_core.testing.fixed import fixed_training
from rigl_core.testing.harness import Array, Harness, Session
from rigl_core.testing.method_memory import initial_masks, remember
from rigl_core.testing.method_oracle import as_sets
from rigl_core.testing.properties.test_methods import check_first_update
from rigl_core.testing.recording import start
from rigl_core.testing.strategies import Training

LAYERS: tuple[Layer, ...] = (
    Layer("fc0.weight", (8, 16), in_axes=(1,), out_axes=(0,)),
    Layer("conv1.weight", (8, 4, 3, 1), in_axes=(1,), out_axes=(0,), groups=2),
    Layer("conv2.weight", (1, 3, 4, 8), in_axes=(2,), out_axes=(3,), groups=4),
    Layer("fc3.weight", (4, 12), in_axes=(0,), out_axes=(1,)),
    Layer("conv4.weight", (8, 6, 2, 2), in_axes=(0,), out_axes=(1,), groups=2, grouped_axes="out"),
)
"""A dense layer, a grouped convolution, one with the channels last, a transposed layer, a transposed convolution."""
METHODS: Mapping[str, Mapping[str, Any]] = {
    "RigL": {"sparsity": 0.6, "distribution": ErdosRenyi()},
    "RigL, blocks of 2": {"sparsity": 0.6, "distribution": ErdosRenyi(), "structure": Blocks(2)},
    "SRigL": {"sparsity": 0.6, "distribution": ErdosRenyi(), "structure": ConstantFanIn()},
    "RigL 2:4": {"structure": NM(2, 4)},
}
"""How the layers choose; slow and compiled modes run SRigL alone, on two layers."""


@runs_where(lambda harness, mode, method: method == "SRigL" or is_fast(harness, mode))
@checks("B3", "B7", "B10", "N2", "M1", "P1")
@pytest.mark.parametrize("method", METHODS)
def test_layers_are_read_by_their_axes(harness: Harness, mode: str, method: str) -> None:
    """Counts by ER, initial masks and an update are the oracle's, wherever the in and out axes are."""
    layers = LAYERS[:-1] if method == "SRigL" else LAYERS  # it does not know grouped transposed convolutions
    if not is_fast(harness, mode):
        layers = LAYERS[:4:2]
    recipe = RigL(schedule=UpdateSchedule(end=2, every=2), drop_fraction=Constant(0.5), **METHODS[method])
    training = fixed_training(recipe, layers)
    check_start_and_update(training, start(harness, mode, training), training.gradients(0))


def check_start_and_update(training: Training, session: Session, gradients: dict[str, Array]) -> None:
    """Counts by ER at a sparsity of 0.6, or of 2:4, initial masks and an update are the oracle's."""
    recipe, layers = training.recipe, training.layers
    sizes = [layer.size for layer in layers]
    budget = round(sum(sizes) * 4 / 10)
    active = budget_oracle.counts([*map(budget_oracle.erdos_renyi_scale, layers)], sizes, budget)
    if isinstance(recipe.structure, NM):
        active = [size // 2 for size in sizes]
    expected = [budget_oracle.nearest(recipe, layer, n) for layer, n in zip(layers, active, strict=True)]
    masks = session.masks()
    assert [int(masks[layer.name].sum()) for layer in layers] == expected
    assert as_sets(masks) == initial_masks(training)
    check_first_update(remember(training), session, gradients)
