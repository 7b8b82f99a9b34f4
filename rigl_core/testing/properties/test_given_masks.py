"""Properties of masks that the user brings, as the tickets of a lottery (rules M7, M3 and N2)."""

from __future__ import annotations

import numpy as np

from rigl_core.methods import LotteryTicket
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
