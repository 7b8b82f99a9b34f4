"""Properties of warnings: what is probably not what the user wants is told (rules B11, P4, P5)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from rigl_core.methods import RigL
from rigl_core.model.warnings import SparsityWarning
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.testing.checks import checks, for_all
from rigl_core.testing.fixed import fixed_layers
from rigl_core.testing.harness import Array, Harness
from rigl_core.testing.recording import start
from rigl_core.testing.strategies import SGD, Training, trainings

_LAYERS = fixed_layers((4, 4), (4, 4))
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
    assert not _is_told(session.masks), "weights that fit"


@checks("P5")
def test_steps_that_pass_the_training_by_are_told(harness: Harness, mode: str) -> None:
    """Whoever looks at the masks after such steps is told, or whoever goes on to the next update; and nobody else."""
    harness.check_has("steps past")
    recipe = RigL(0.5, schedule=UpdateSchedule(end=10, every=3))
    session = harness.start(_PARAMS, _LAYERS, recipe, SGD, mode=mode)

    def go(steps: Sequence[int], past: int = 0) -> None:
        for number in range(past):
            session.step_past(_gradients(number))
        for number in steps:
            session.step(_gradients(number))
        session.masks()

    assert not _is_told(lambda: go([0, 1]))
    weights = session.weights()
    assert _is_told(lambda: go([], past=2)), "the next look"
    session.write(weights)
    assert not _is_told(lambda: go([2]))
    assert _is_told(lambda: go([3], past=2)), "the next update, and a look after it"


def _gradients(number: int) -> dict[str, Array]:
    rng = np.random.default_rng(number)
    return {name: rng.normal(size=param.shape).astype(np.float32) for name, param in _PARAMS.items()}


def _is_told(act: Callable[[], object]) -> bool:
    """Whether there is a SparsityWarning, or an error."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", SparsityWarning)
        try:
            act()
        except (ValueError, RuntimeError):
            return True
    return any(issubclass(one.category, SparsityWarning) for one in told)
