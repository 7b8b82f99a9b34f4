"""A compiled step calls nothing on the host and copies nothing to it, on any device but a CPU."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax
import pytest

from rigl_backends.jax import sparsify
from rigl_core import DSR, SNFS, DeepR, Recipe, RigL
from tests.jax.helpers import SCHEDULE, make_gradients, make_params, make_step, start

SIGNS = ("callback", "infeed", "outfeed", "stablehlo.send", "stablehlo.recv")
"""How programs name what the host has to do for them."""

# JAX keeps what it traced for a rule, so each test has rules of its own.
RECIPES: dict[str, Recipe] = {
    "RigL": RigL(0.7, schedule=SCHEDULE, momentum=0.1001),
    "global": RigL(0.7, schedule=SCHEDULE, scope="global", momentum=0.1001),
    "SNFS": SNFS(0.7, schedule=SCHEDULE, momentum=0.1001),
    "DSR": DSR(0.7, schedule=SCHEDULE, momentum=0.1001),
    "Deep R": DeepR(0.7, schedule=SCHEDULE, l1=0.01, noise=0.1, momentum=0.1001),
}


def signs_in(recipe: Recipe, platform: str, **options: Any) -> list[str]:
    """The signs of the host in a step's program for a platform; no device is needed to make one."""
    tx, params = sparsify(optax.adam(0.1), recipe, **options), make_params()
    params, opt_state = start(tx, params)
    traced = make_step(tx).trace(params, opt_state, make_gradients(params, 0))
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert "stablehlo.while" in text  # an update
    return [sign for sign in SIGNS if sign in text]


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_on_a_gpu_needs_no_host(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert signs_in(RECIPES[name], "cuda") == []


def test_calls_on_a_cpu_are_seen_and_can_be_left_out() -> None:
    recipe = RigL(0.7, schedule=SCHEDULE, momentum=0.1002)
    assert signs_in(recipe, "cpu") == signs_in(recipe, "cuda") == ["callback"]
    assert signs_in(recipe, "cuda", callbacks=False) == signs_in(recipe, "cpu", callbacks=False) == []


def test_steps_copy_nothing_between_host_and_device() -> None:
    tx, params = sparsify(optax.adam(0.1), RigL(0.7, schedule=SCHEDULE), callbacks=False), make_params()
    params, opt_state = start(tx, params)
    gradients, step = make_gradients(params, 0), make_step(tx)
    params, opt_state = step(params, opt_state, gradients)  # compiles
    with jax.transfer_guard("disallow"):
        for _ in range(5):  # the schedule has an update at step 4
            params, opt_state = step(params, opt_state, gradients)
        with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
            step(params, opt_state, jax.tree.map(np.asarray, gradients))
