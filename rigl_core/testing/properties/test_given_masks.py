"""Properties of masks that the user brings: as the tickets of a lottery, and as a start (rules M7, M3, N2 and N3)."""

from __future__ import annotations

import numpy as np

from rigl_core.methods import LotteryTicket, RigL
from rigl_core.parts.drop_fractions import Constant
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.testing.checks import checks, without_warnings
from rigl_core.testing.fixed import fixed_layers
from rigl_core.testing.harness import Harness
from rigl_core.testing.recording import assert_same_bits
from rigl_core.testing.strategies import SGD

_LAYERS = fixed_layers((4, 4), (4, 4), (4, 4))


@checks("M7", "M3", "N2")
def test_a_given_mask_is_the_initial_topology(harness: Harness, mode: str) -> None:
    """Its layers may have any numbers of connections, all or none too. Active weights stay, and the others are 0."""
    rng = np.random.default_rng(0)
    half = rng.permutation(np.arange(16) < 8).reshape(4, 4)
    given = dict(zip((layer.name for layer in _LAYERS), (np.zeros_like(half), half, np.ones_like(half)), strict=True))
    params = {name: rng.normal(size=mask.shape).astype(np.float32) for name, mask in given.items()}
    for dtype in ("bool", "float32"):
        scores = {name: mask.astype(dtype) for name, mask in given.items()}
        with without_warnings():
            session = harness.start(params, _LAYERS, LotteryTicket(0.5), SGD, mode=mode, scores=scores)
            masks, weights = session.masks(), session.weights()
        for name, mask in given.items():
            np.testing.assert_array_equal(masks[name], mask, err_msg=f"{name}, from {dtype} arrays")
            assert_same_bits(weights[name], np.where(mask, params[name], np.float32(0)), name)


@checks("N3", "B1")
def test_a_training_begins_with_given_masks(harness: Harness, mode: str) -> None:
    """Each layer has as many connections as its mask, and an update keeps that number: all, none, or any between."""
    rng = np.random.default_rng(1)
    counts = dict(zip((layer.name for layer in _LAYERS), (0, 6, 16), strict=True))
    given = {name: rng.permutation(np.arange(16) < count).reshape(4, 4) for name, count in counts.items()}
    params, *gradients = ({name: rng.normal(size=(4, 4)).astype(np.float32) for name in given} for _ in range(3))
    recipe = RigL(schedule=UpdateSchedule(end=2, every=1, begin=1), drop_fraction=Constant(0.5))
    with without_warnings():
        session = harness.start(params, _LAYERS, recipe, SGD, mode=mode, initial=given)
        weights, masks = session.weights(), [session.masks()]
        for own in gradients:
            session.step(own)
            masks.append(session.masks())
    for name, mask in given.items():
        assert_same_bits(weights[name], np.where(mask, params[name], np.float32(0)), name)
        for before in masks[:2]:
            np.testing.assert_array_equal(before[name], mask, err_msg=name)
    assert {name: int(np.count_nonzero(mask)) for name, mask in masks[2].items()} == counts
    assert (masks[2][_LAYERS[1].name] != given[_LAYERS[1].name]).any()
