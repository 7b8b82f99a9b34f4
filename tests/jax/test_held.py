"""What an optimizer holds for each weight is told by evidence, not by shapes; what it does not train does not move."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rigl_backends.jax import apply_masks, masks, sparsify
from rigl_backends.jax.handle import find_state
from rigl_core import SET, SNFS, RigL, Static, UpdateSchedule
from rigl_core.testing.checks import checks
from tests.jax.helpers import SCHEDULE, by_name, make_gradients, make_step, start

SQUARE = {"a": jnp.asarray(np.random.default_rng(0).normal(size=(12, 12)), jnp.float32)}
METHODS = {"RigL": RigL, "SET": SET, "SNFS": SNFS}


class Statistics(NamedTuple):
    rows: Any
    columns: Any
    rotated: Any
    momentum: Any


def soap(period: int = 1) -> optax.GradientTransformation:
    """An optimizer with all that SOAP and Shampoo hold: matrices, a rotated second moment, and a momentum.

    The matrices start as zeros, and take a gradient in at each ``period`` steps.
    """

    def init(params: Any) -> Any:
        zeros = jax.tree.map(jnp.zeros_like, params)
        count = jnp.zeros((), jnp.int32)
        rows = jax.tree.map(lambda x: jnp.zeros((len(x), len(x))), params)
        columns = jax.tree.map(lambda x: jnp.zeros((x.shape[1], x.shape[1])), params)
        return count, Statistics(rows, columns, zeros, zeros)

    def take_in(g: Any, rows: Any, columns: Any, rotated: Any, momentum: Any, now: Any) -> Any:
        rows, columns = rows + jnp.where(now, g @ g.T, 0), columns + jnp.where(now, g.T @ g, 0)
        left, right = (jnp.linalg.eigh(x + jnp.eye(len(x)))[1] for x in (rows, columns))
        turned = left.T @ g @ right
        rotated = 0.9 * rotated + turned**2
        step = left @ (turned / jnp.sqrt(rotated + 1e-8)) @ right.T
        return rows, columns, rotated, 0.9 * momentum + step

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        count, held = state
        now = count % period == period - 1
        new = {name: take_in(g, *(tree[name] for tree in held), now) for name, g in updates.items()}
        held = Statistics(*({name: own[i] for name, own in new.items()} for i in range(4)))
        return jax.tree.map(lambda m: -0.01 * m, held.momentum), (count + 1, held)

    return optax.GradientTransformation(init, update)


@checks("V1", "V3", "V4")
@pytest.mark.parametrize("recipe", [Static(0.7), RigL(0.7, schedule=SCHEDULE)], ids=["Static", "RigL"])
def test_matrices_with_the_shape_of_a_layer_are_left_alone(recipe: Any) -> None:
    """They are those of the optimizer alone, fed with the sparse gradients; the momentum of the steps is masked."""
    inner = soap()
    tx = sparsify(inner, recipe)
    params, opt_state = start(tx, SQUARE)
    descend, alone = make_step(tx), inner.init(params)
    for number in range(7):
        gradients = make_gradients(params, number)
        if recipe.schedule is None or not SCHEDULE.fires(number):
            _, alone = inner.update(apply_masks(gradients, opt_state), alone, params)
        params, opt_state = descend(params, opt_state, gradients)
        held, expected = find_state(opt_state).inner_state[1], alone[1]
        for own, other in zip(held[:3], expected[:3], strict=True):
            np.testing.assert_allclose(own["a"], other["a"], rtol=1e-4, atol=1e-5)
        assert not held.momentum["a"][~masks(opt_state, params)["a"]].any()


@checks("P3")
def test_what_nothing_tells_is_refused() -> None:
    """A matrix that is still 0 when it is looked at, and numbers for each weight in another shape."""

    def flat(params: Any) -> Any:
        return optax.TraceState(jax.tree.map(lambda x: jnp.zeros(x.size), params))

    def add(updates: Any, state: Any, params: Any = None) -> Any:
        trace = jax.tree.map(lambda g, m: 0.9 * m + g.reshape(-1), updates, state.trace)
        return updates, optax.TraceState(trace)

    for inner in (soap(period=50), optax.GradientTransformation(flat, add)):
        tx = sparsify(inner, Static(0.7))
        params, opt_state = start(tx, SQUARE)
        with pytest.raises(ValueError, match=r"nothing tells whether each of its numbers belongs to one weight"):
            tx.update(params, opt_state, params)


@checks("V3")
def test_state_in_a_list_follows_the_topology() -> None:
    """No path names its layer; the trace does."""

    def init(params: Any) -> Any:
        return [jnp.zeros_like(x) for x in jax.tree.leaves(params)]

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        leaves, structure = jax.tree.flatten(updates)
        state = [0.9 * m + g for m, g in zip(state, leaves, strict=True)]
        return jax.tree.unflatten(structure, [-0.1 * m for m in state]), state

    tx = sparsify(optax.GradientTransformation(init, update), RigL(0.7, schedule=SCHEDULE))
    params, opt_state = start(tx, {**SQUARE, "b": SQUARE["a"].T})
    descend = make_step(tx)
    for number in range(6):
        params, opt_state = descend(params, opt_state, make_gradients(params, number))
        for held, mask in zip(opt_state.inner_state, masks(opt_state, params).values(), strict=True):
            assert not held[~mask].any()


LABELS = {"a": "on", "b": "off"}
FREEZING: dict[str, Any] = {
    "multi_transform": optax.multi_transform({"on": optax.adam(0.01), "off": optax.set_to_zero()}, LABELS),
    "masked": optax.chain(optax.sgd(0.1, 0.9), optax.masked(optax.set_to_zero(), {"a": False, "b": True})),
    "rate 0": optax.multi_transform({"on": optax.adam(0.01), "off": optax.adam(0.0)}, LABELS),
}


@checks("T6")
@pytest.mark.parametrize(("scope", "callbacks"), [("layer", True), ("layer", False), ("global", True)])
@pytest.mark.parametrize("method", METHODS)
def test_what_the_optimizer_does_not_train_does_not_move(method: str, scope: Any, callbacks: bool) -> None:
    options = {"redistribution": None} if method == "SNFS" else {}
    recipe = METHODS[method](0.7, schedule=UpdateSchedule(end=40, every=2), scope=scope, **options)
    for name, inner in FREEZING.items():
        tx = sparsify(inner, recipe, callbacks=callbacks)
        params, opt_state = start(tx, {**SQUARE, "b": SQUARE["a"].T + 1})
        before, first = by_name(params), masks(opt_state, params)
        descend = make_step(tx)
        for number in range(5):
            params, opt_state = descend(params, opt_state, make_gradients(params, number))
        after = masks(opt_state, params)
        np.testing.assert_array_equal(params["b"], before["b"], err_msg=name)
        np.testing.assert_array_equal(after["b"], first["b"], err_msg=name)
        assert (after["a"] != first["a"]).any()
        assert after["a"].sum() == first["a"].sum()


@checks("T6")
def test_a_learning_rate_of_zero_is_no_evidence() -> None:
    """Nor in a warm-up, nor of all layers: the topology moves by the gradients."""
    for rate in (0.0, optax.linear_schedule(0.0, 0.1, 100)):
        tx = sparsify(optax.sgd(rate), RigL(0.7, schedule=UpdateSchedule(end=40, every=1)))
        params, opt_state = start(tx, SQUARE)
        first = masks(opt_state, params)
        for number in range(2):
            params, opt_state = make_step(tx)(params, opt_state, make_gradients(params, number))
        assert (masks(opt_state, params)["a"] != first["a"]).any()


@checks("V1")
def test_first_steps_of_grown_connections_are_those_of_new_weights() -> None:
    """ACProp divides by its state: a step without a gradient makes more than 0 of it."""
    tx = sparsify(optax.contrib.acprop(1e-2), RigL(0.7, schedule=UpdateSchedule(end=9, every=2)))
    params, opt_state = start(tx, SQUARE)
    for number in range(6):
        params, opt_state = make_step(tx)(params, opt_state, make_gradients(params, number))
        assert np.isfinite(params["a"]).all()


def test_an_optimizer_that_needs_numbers_runs_outside_jit() -> None:
    seen: list[float] = []

    def spy(updates: Any, params: Any) -> Any:
        seen.append(float(optax.tree.norm(updates)))
        return updates

    tx = sparsify(optax.chain(optax.stateless(spy), optax.sgd(0.1, 0.9)), RigL(0.7, schedule=SCHEDULE))
    params, opt_state = start(tx, SQUARE)
    for number in range(5):
        updates, opt_state = tx.update(make_gradients(params, number), opt_state, params)
        params = optax.apply_updates(params, updates)
        assert not opt_state.inner_state[1][0].trace["a"][~masks(opt_state, params)["a"]].any()
    assert len(seen) == 3  # the other two were updates
