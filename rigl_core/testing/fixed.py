"""Trainings whose numbers are fixed, for properties of which a single case tells enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rigl_core.model.layers import Layer
from rigl_core.recipe import Recipe
from rigl_core.testing.harness import Array, OptimizerSpec
from rigl_core.testing.strategies import STILL, Training

SEED = 5


def fixed_layers(*shapes: tuple[int, ...]) -> tuple[Layer, ...]:
    """Layers of these shapes, (out, in) or (out, in, height, width), under the names of their modules."""
    return tuple(
        Layer(f"{'fc' if len(shape) == 2 else 'conv'}{i}.weight", shape, in_axes=(1,), out_axes=(0,))
        for i, shape in enumerate(shapes)
    )


def fixed_training(
    recipe: Recipe,
    layers: Sequence[Layer],
    *,
    steps: int = 1,
    optimizer: OptimizerSpec = STILL,
    scores: Mapping[str, Array] | None = None,
) -> Training:
    """A training of these layers and of a dense vector; its weights are few different numbers, so there are many ties.

    Args:
        recipe: the recipe.
        layers: the layers.
        steps: the number of steps.
        optimizer: by default one that moves no weight, so that all weights at an update are known.
        scores: float32 arrays by layer name, for recipes that start from given scores.
    """
    rng = np.random.default_rng(SEED)
    params = {layer.name: rng.integers(-8, 9, layer.shape).astype(np.float32) / 8 for layer in layers}
    params["fc0.bias"] = rng.normal(size=5).astype(np.float32)
    own = None if scores is None else dict(scores)
    return Training(params, tuple(layers), recipe, optimizer, steps, SEED, own)
