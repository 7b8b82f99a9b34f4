"""Mistakes of users: they are refused, or noticed later."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rigl_backends.jax import SparseState, apply_masks, masks, sparsify, step, table
from rigl_core import RigL, UpdateSchedule
from rigl_core.testing.checks import checks
from tests.jax.helpers import RECIPE, by_name, make_gradients, make_params, make_step, start

MASKED_FIRST = r"params = rigl_backends\.jax\.apply_masks\(params, opt_state\)"


def test_forgotten_masks_are_an_error_outside_jit() -> None:
    tx, params = sparsify(optax.adam(1e-2), RECIPE), make_params()
    opt_state = tx.init(params)
    with pytest.raises(ValueError, match=MASKED_FIRST):
        tx.update(make_gradients(params, 0), opt_state, params)


def test_forgotten_masks_are_noticed_inside_jit() -> None:
    """The first step zeroes the weights outside the masks, and the state records the mistake."""
    tx, params = sparsify(optax.adam(1e-2), RECIPE), make_params()
    opt_state = tx.init(params)
    params, opt_state = make_step(tx)(params, opt_state, make_gradients(params, 0))
    for name, weight in by_name(params).items():
        if name in opt_state.masks:
            assert not weight[~np.array(opt_state.masks[name])].any()
    for ask in (lambda: masks(opt_state, params), lambda: step(opt_state), lambda: table(opt_state, params)):
        with pytest.raises(ValueError, match=MASKED_FIRST):
            ask()


def test_updates_that_are_changed_afterwards_are_noticed() -> None:
    """A learning rate that follows sparsify would not bring dropped weights to zero: here half of each is left."""
    tx = optax.chain(sparsify(optax.scale_by_adam(), RECIPE), optax.scale(-0.5))
    params, opt_state = start(tx, make_params(layers=["fc1"]))
    descend = make_step(tx)
    for number in range(5):
        params, opt_state = descend(params, opt_state, make_gradients(params, number))
    with pytest.raises(ValueError, match="let nothing change the updates that sparsify gives"):
        step(opt_state)


def test_masks_heal_what_no_update_can() -> None:
    """A weight of NaN counts as 0, so it is dropped. No update can make it zero, since NaN - NaN is NaN."""
    tx = sparsify(optax.sgd(0.1), RigL(0.5, schedule=UpdateSchedule(end=9, every=1)))
    params, opt_state = start(tx, make_params(layers=["fc1"]))
    active = tuple(np.argwhere(np.array(opt_state.masks["fc1/kernel"]))[0])
    params["fc1"]["kernel"] = params["fc1"]["kernel"].at[active].set(jnp.nan)
    gradients = jax.tree.map(jnp.ones_like, params)
    gradients["fc1"]["kernel"] = gradients["fc1"]["kernel"].at[active].set(0)
    params, opt_state = make_step(tx)(params, opt_state, gradients)
    assert not opt_state.masks["fc1/kernel"][active]
    assert np.isnan(params["fc1"]["kernel"][active])
    assert apply_masks(params, opt_state)["fc1"]["kernel"][active] == 0


@checks("P3")
def test_what_cannot_work_is_refused() -> None:
    params = make_params()
    tx = sparsify(optax.adam(1e-2), RECIPE)
    params, opt_state = start(tx, params)
    gradients = make_gradients(params, 0)
    with pytest.raises(TypeError, match=r"inner is a function: it must be an optax\.GradientTransformation"):
        sparsify(optax.adam, RECIPE)
    with pytest.raises(TypeError, match=r"recipe is 0\.9: it must be a Recipe"):
        sparsify(optax.adam(1e-2), 0.9)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="inner is already sparsified"):
        sparsify(tx, RECIPE).init(params)
    with pytest.raises(ValueError, match=r"inner hides optax\.MultiSteps inside another transformation"):
        sparsify(optax.chain(optax.MultiSteps(optax.adam(1e-2), 2).gradient_transformation()), RECIPE).init(params)
    for mixing in (optax.flatten(optax.adam(1e-2)), optax.scale_by_lbfgs(3)):
        with pytest.raises(ValueError, match=r"inner holds an array of shape .* that mixes weights"):
            sparsify(mixing, RECIPE).init(params)
    with pytest.raises(ValueError, match="params has no array for layer 'fc1/kernel': give the tree that init was"):
        apply_masks({"fc2": params["fc2"]}, opt_state)
    with pytest.raises(ValueError, match=r"params is missing: call update\(gradients, opt_state, params\)"):
        tx.update(gradients, opt_state)
    with pytest.raises(ValueError, match=r"layer 'fc1/kernel'.*gradient shape \(3, 4\)"):
        tx.update({**gradients, "fc1": {"kernel": jnp.ones((3, 4))}}, opt_state, params)
    with pytest.raises(ValueError, match=r"gradients has one for each example of layer 'fc1/kernel': average them"):
        tx.update({**gradients, "fc1": {"kernel": jnp.ones((5, 12, 10))}}, opt_state, params)
    with pytest.raises(ValueError, match="gradients has none for layer 'fc1/kernel'"):
        tx.update({**gradients, "fc1": {"kernel": None}}, opt_state, params)
    with pytest.raises(ValueError, match=r"other layers than params; they differ in \['fc1/kernel'\]"):
        tx.update({"fc2": gradients["fc2"]}, opt_state, {"fc2": params["fc2"]})
    wider = {**params, "fc1": {**params["fc1"], "kernel": jnp.ones((12, 11))}}
    with pytest.raises(ValueError, match=r"layer 'fc1/kernel' had the shape \(12, 11\) and now has the mask shape"):
        tx.update(make_gradients(wider, 0), opt_state, wider)
    assert isinstance(opt_state, SparseState)
