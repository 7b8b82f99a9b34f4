"""What is probably not what the user wants is told: warnings, at the first look."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from rigl_backends.jax import apply_masks, masks, plan, sparsify, table
from rigl_core import RigL, SparsityWarning, UpdateSchedule
from rigl_core.testing.checks import checks
from tests.jax.helpers import RECIPE, make_gradients, make_params, make_step, start


@checks("P4")
def test_weights_outside_the_masks_are_told() -> None:
    """As after restoring the weights alone; `apply_masks` mends it, and is silent, since it masks any tree."""
    tx = sparsify(optax.adam(1e-2), RECIPE)
    params, opt_state = start(tx, make_params())
    dense = make_params()
    masks(opt_state, dense)  # before the first step dense parameters are no mistake
    params, opt_state = make_step(tx)(params, opt_state, make_gradients(params, 0))
    count = int((~opt_state.masks["fc1/kernel"]).sum())
    for ask in (masks, table):
        with pytest.warns(SparsityWarning, match=rf"outside their masks: {count} of 'fc1/kernel', \d+ of 'fc2/kernel'"):
            ask(opt_state, dense)
    masks(opt_state, apply_masks(dense, opt_state))
    masks(opt_state, jax.eval_shape(lambda: dense))
    jax.jit(lambda params: masks(opt_state, params))(dense)
    with pytest.warns(SparsityWarning):
        jax.jit(lambda: masks(opt_state, dense))()


@checks("P4")
def test_a_step_outside_jit_refuses_weights_outside_the_masks() -> None:
    tx = sparsify(optax.sgd(0.1), RECIPE)
    params, opt_state = start(tx, make_params())
    params, opt_state = make_step(tx)(params, opt_state, make_gradients(params, 0))
    with pytest.raises(ValueError, match="weights outside the masks were not zero"):
        tx.update(make_gradients(params, 1), opt_state, make_params())


@checks("B11")
def test_plans_that_nobody_wants_are_told() -> None:
    params = make_params()
    with pytest.warns(SparsityWarning, match="the plan leaves no connection in layer 'fc2/kernel'"):
        sparsify(optax.sgd(0.1), RigL(0.7, schedule=RECIPE.schedule, layer_sparsity={"fc2*": 0.999})).init(params)
    large = {**params, "table": {"embedding": jnp.ones((100, 10))}}
    with pytest.warns(SparsityWarning, match="the layers hold 180 of the model's 1,196 parameters"):
        sparsify(optax.sgd(0.1), RECIPE).init(large)
    assert plan(large, RECIPE).others == {"fc1/bias": 10, "fc2/bias": 6, "table/embedding": 1000}
    sparsify(optax.sgd(0.1), RECIPE, layers=plan(large, RECIPE).layers).init(large)


OFTEN = RigL(0.7, schedule=UpdateSchedule(end=40, every=4))
ADVERSARY = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))


@checks("P3", "P5")
def test_lookahead_belongs_outside() -> None:
    params = optax.LookaheadParams.init_synced(make_params(layers=["fc1"]))
    with pytest.raises(ValueError, match=r"put it outside, lookahead\(sparsify"):
        sparsify(optax.lookahead(optax.adam(1e-2), 3, 0.5), OFTEN).init(params)


@checks("Z1", "P5")
@pytest.mark.parametrize("compiled", [True, False])
def test_lookahead_with_masks_after_every_step(compiled: bool) -> None:
    """Without them its slow weights bring dropped weights back, which is noticed."""
    tx = optax.lookahead(sparsify(optax.adam(1e-2), OFTEN), 3, 0.5)
    for masked in (True, False):
        params = optax.LookaheadParams.init_synced(make_params(layers=["fc1"]))
        opt_state = tx.init(params)
        params = optax.LookaheadParams(*(apply_masks(own, opt_state) for own in params))
        update, told = jax.jit(tx.update) if compiled else tx.update, False
        for number in range(26):
            try:
                updates, opt_state = update(make_gradients(params.fast, number), opt_state, params)
                told = told or bool(opt_state.fast_state.unmasked)
            except ValueError:
                told = True
                break
            params = optax.apply_updates(params, updates)
            if masked:
                params = optax.LookaheadParams(*(apply_masks(own, opt_state) for own in params))
                for own in params:
                    masks(opt_state, own)  # without a warning
                    assert int((own["fc1"]["kernel"] != 0).sum()) <= 36
        assert told != masked


@checks("P3", "Z1", "V4")
def test_sam_belongs_outside_and_passes_whole_states_on() -> None:
    def loss(params: Any, _: Any = None) -> Any:
        return ((jnp.ones((3, 12)) @ params["fc1"]["kernel"] - 1) ** 2).mean()

    with pytest.raises(ValueError, match=r"put it outside, sam\(sparsify"):
        sparsify(optax.contrib.sam(optax.sgd(0.1), ADVERSARY), OFTEN).init(make_params(layers=["fc1"]))
    for opaque in (True, False):
        tx = optax.contrib.sam(sparsify(optax.sgd(0.1), OFTEN), ADVERSARY, opaque_mode=opaque)
        params = make_params(layers=["fc1"])
        params = apply_masks(params, tx.init(params))
        opt_state = tx.init(params)
        update = jax.jit(lambda g, state, params, tx=tx: tx.update(g, state, params, grad_fn=jax.grad(loss)))
        updates, opt_state = update(jax.grad(loss)(params), opt_state, params)
        if not opaque:
            with pytest.raises(ValueError, match=r"a wrapper computed with them.*opaque_mode=True"):
                update(jax.grad(loss)(params), opt_state, params)
        for _ in range(10 * opaque):
            params = optax.apply_updates(params, updates)
            assert not params["fc1"]["kernel"][~masks(opt_state, params)["fc1/kernel"]].any()
            updates, opt_state = update(jax.grad(loss)(params), opt_state, params)
