"""Properties of warnings: what is probably not what the user wants is told (rules B11, P4)."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from rigl_core.methods import RigL
from rigl_core.model.layers import Layer
from rigl_core.model.warnings import SparsityWarning
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.testing.checks import checks, for_all
from rigl_core.testing.harness import Harness
from rigl_core.testing.recording import start
from rigl_core.testing.strategies import SGD, Training, trainings

_LAYERS = tuple(Layer(f"fc{i}.weight", (4, 4), in_axes=(1,), out_axes=(0,)) for i in range(2))
_PARAMS = {layer.name: np.ones(layer.shape, np.float32) for layer in _LAYERS}


@checks("B11")
def test_a_layer_without_a_connection_is_told(harness: Harness, mode: str) -> None:
    """The warning names the layer and the highest sparsity at which every layer has a connection."""
    recipe = RigL(0.95, schedule=UpdateSchedule(end=10, every=2), layer_sparsity={"fc0*": 0.99})
    with pytest.warns(SparsityWarning, match=r"the plan leaves no connection in layer 'fc0\.weight'"):
        harness.start(_PARAMS, _LAYERS, recipe, SGD, mode=mode)
    recipe = RigL(0.98, schedule=UpdateSchedule(end=10, every=2))
    with pytest.warns(SparsityWarning, match=r"layer 'fc1\.weight'.* At a sparsity of 0\.953\d every layer has one"):
        harness.start(_PARAMS, _LAYERS, recipe, SGD, mode=mode)


@checks("P4")
@for_all(trainings(), eager=10, compiled=1)
def test_weights_outside_the_masks_are_told(harness: Harness, mode: str, training: Training) -> None:
    """Weights that are restored without their topology are told to whoever looks at the masks, and to nobody else."""
    session = start(harness, mode, training)
    session.step(training.gradients(0))
    weights = session.weights()
    session.write(weights)
    masks = session.masks()  # these weights fit
    outside = {name: int((~mask).sum()) for name, mask in masks.items() if not mask.all()}
    session.write({name: np.ones_like(weight) for name, weight in weights.items()})
    if not outside:
        session.masks()
        return
    with pytest.warns(SparsityWarning, match="weights lie outside their masks") as told:
        session.masks()
    text = str(told[0].message)
    assert all(f"{count:,} of {name!r}" in text for name, count in outside.items()), text
    session.write(weights)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SparsityWarning)
        session.masks()
