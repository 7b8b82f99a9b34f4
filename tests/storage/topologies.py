"""Topologies for the tests of their files."""

from __future__ import annotations

import numpy as np

from rigl_core import Layer, RigL, UpdateSchedule
from rigl_core.storage import Topology

LAYERS = (
    Layer("conv.weight", (6, 2, 3, 2), (1,), (0,), groups=2),
    Layer("fc.weight", (5, 7), (1,), (0,)),
    Layer("empty.weight", (0, 4), (1,), (0,)),
    Layer("stack", (3, 4, 6), (1,), (2,), stacked=(0,), fused=(2, 2)),
    Layer("größe", (9,)),
)
RECIPE = RigL(0.5, schedule=UpdateSchedule(end=90, every=10), dense=["fc*"])


def random_topology(layers: tuple[Layer, ...] = LAYERS, seed: int = 0) -> Topology:
    rng = np.random.default_rng(seed)
    masks = {layer.name: rng.random(layer.shape) < 0.4 for layer in layers}
    return Topology(layers, masks, RECIPE.to_dict(), 1234)


def assert_equal(one: Topology, other: Topology) -> None:
    assert (one.layers, one.recipe, one.step) == (other.layers, other.recipe, other.step)
    for layer in one.layers:
        np.testing.assert_array_equal(one.masks[layer.name], other.masks[layer.name], strict=True)
