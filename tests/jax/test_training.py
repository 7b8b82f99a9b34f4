"""Whole trainings: compared with NumPy's, traced once, with accumulation, donated buffers, vmap and derivatives."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rigl_backends.numpy
from rigl_backends.jax import apply_masks, masks, sparsify, step, table
from rigl_core import SET, Constant, ErdosRenyi, Layer, RigL, Static, UpdateSchedule
from rigl_core.testing.checks import checks
from tests.jax.helpers import (
    RECIPE,
    SCHEDULE,
    assert_follows_the_topology,
    by_name,
    make_gradients,
    make_params,
    make_step,
    per_weight,
    start,
)

LONG = UpdateSchedule(end=70, every=3, begin=2)
LAYERS = [Layer("fc2/kernel", (10, 6)), Layer("fc1/kernel", (12, 10))]


def flat(tree: Any) -> dict[str, Any]:
    return {name: np.array(leaf) for name, leaf in by_name(tree).items()}


def pairs(kind: str, params: dict[str, Any]) -> tuple[Any, Any]:
    """An optimizer of JAX and its equal of NumPy. SGD's factors are powers of two, so its results are exact."""
    if kind == "sgd":
        return optax.sgd(0.0625, 0.5), rigl_backends.numpy.SGD(params, 0.0625, 0.5)
    return optax.adamw(0.01), rigl_backends.numpy.Adam(params, 0.01, weight_decay=1e-4, decoupled=True)


@checks("P1", "S1", "S4", "T1", "T2", "T5", "V1", "V2", "V3", "V4", "R1", "R2", "N1")
@pytest.mark.parametrize("kind", ["sgd", "adam"])
@pytest.mark.parametrize("method", [RigL, SET])
def test_masks_are_those_of_numpy_along_a_training(method: Any, kind: str) -> None:
    """23 updates in float64 with the same gradients, some of them not finite. With SGD the weights are equal too."""
    recipe = method(
        0.75,
        schedule=LONG,
        drop_fraction=Constant(0.3),
        seed=5,
        distribution=ErdosRenyi(),
        layer_sparsity={"fc2*": 0.5},
    )
    layers = [Layer(layer.name, layer.shape, in_axes=(0,), out_axes=(1,)) for layer in LAYERS]
    with jax.enable_x64(True):
        params = make_params(jnp.float64)
        reference = flat(params)
        inner, optimizer = pairs(kind, reference)
        handle = rigl_backends.numpy.sparsify(reference, optimizer, recipe, layers=layers)
        tx = sparsify(inner, recipe, layers=layers)
        params, opt_state = start(tx, params)
        descend, moves = make_step(tx), 0
        for number in range(75):
            gradients, old = make_gradients(params, number), handle.masks
            if number % 7 == 2 and number < 70:  # where no weight is, so that the weights stay finite
                outside = np.flatnonzero(~old["fc1/kernel"].reshape(-1))[0]
                flat_gradient = gradients["fc1"]["kernel"].reshape(-1).at[outside].set(np.nan)
                gradients["fc1"]["kernel"] = flat_gradient.reshape(12, 10)
            if number % 11 == 5:
                gradients["fc2"]["bias"] = gradients["fc2"]["bias"].at[0].set(jnp.nan)
            optimizer.step(flat(gradients))
            params, opt_state = descend(params, opt_state, gradients)
            for name, mask in masks(opt_state, params).items():
                np.testing.assert_array_equal(mask, handle.masks[name], err_msg=f"{name} after step {number}")
            moves += any((old[name] != handle.masks[name]).any() for name in old)
        assert moves >= 20
        assert int(step(opt_state)) == handle.step
        assert sorted(str(table(opt_state, params)).splitlines()) == sorted(str(handle.table).splitlines())
        states = per_weight(params, opt_state)
        for name, weight in flat(params).items():
            expected = [reference[name], *(v for v in optimizer.state[name].values() if np.ndim(v))]
            for mine, other in zip((weight, *states[name]), expected, strict=True):
                tolerance = 0 if kind == "sgd" else 1e-9
                np.testing.assert_allclose(mine, other, rtol=tolerance, atol=tolerance, err_msg=name)


def test_one_trace_for_the_whole_training() -> None:
    tx, traces = sparsify(optax.adam(1e-2), RECIPE), 0

    @jax.jit
    def descend(params: Any, opt_state: Any, gradients: Any) -> Any:
        nonlocal traces
        traces += 1
        updates, opt_state = tx.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params, opt_state = start(tx, make_params())
    for number in range(SCHEDULE.end + 3):
        params, opt_state = descend(params, opt_state, make_gradients(params, number))
    assert traces == 1
    assert int(step(opt_state)) == SCHEDULE.end + 3


def test_a_scan_is_the_same_training_as_a_loop_and_as_one_outside_jit() -> None:
    tx = sparsify(optax.sgd(0.0625, 0.5), RECIPE)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(make_gradients(make_params(), n) for n in range(14)))

    def descend(carry: Any, gradients: Any) -> Any:
        params, opt_state = carry
        updates, opt_state = tx.update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    scanned, _ = jax.jit(lambda carry: jax.lax.scan(descend, carry, stacked))(start(tx, make_params()))
    looped = eager = start(tx, make_params())
    compiled = jax.jit(descend)
    for number in range(14):
        gradients = make_gradients(make_params(), number)
        looped, eager = compiled(looped, gradients)[0], descend(eager, gradients)[0]
    for other in (looped, eager):
        for a, b in zip(jax.tree.leaves(scanned), jax.tree.leaves(other), strict=True):
            np.testing.assert_array_equal(a, b)


@checks("G2")
def test_accumulation_is_outside_or_inside_alike() -> None:
    """Two micro-batches make one step with the mean gradient. Between steps nothing moves."""
    multi = optax.MultiSteps(optax.sgd(0.0625, 0.5), 2)
    arrangements = {
        "outside": optax.MultiSteps(sparsify(optax.sgd(0.0625, 0.5), RECIPE), 2),
        "inside": sparsify(multi, RECIPE),
        "inside, as a transformation": sparsify(multi.gradient_transformation(), RECIPE),
    }
    tx = sparsify(optax.sgd(0.0625, 0.5), RECIPE)
    expected, expected_state = start(tx, make_params(layers=["fc1"]))
    descend = make_step(tx)
    runs = {
        name: (*start(other, make_params(layers=["fc1"])), make_step(other)) for name, other in arrangements.items()
    }
    for number in range(10):
        micro = [make_gradients(expected, 2 * number + i) for i in range(2)]
        mean = jax.tree.map(lambda a, b: a + (b - a) / 2, *micro)
        before = by_name(expected)
        expected, expected_state = descend(expected, expected_state, mean)
        for name, (params, opt_state, descend_micro) in runs.items():
            params, opt_state = descend_micro(params, opt_state, micro[0])
            assert int(step(opt_state)) == number
            for leaf, weight in by_name(params).items():
                np.testing.assert_array_equal(weight, before[leaf])
            params, opt_state = descend_micro(params, opt_state, micro[1])
            assert int(step(opt_state)) == number + 1
            for leaf, weight in by_name(params).items():
                np.testing.assert_array_equal(weight, by_name(expected)[leaf], err_msg=f"{name}, {leaf}")
            for leaf, mask in masks(opt_state, params).items():
                np.testing.assert_array_equal(mask, masks(expected_state, expected)[leaf])
            runs[name] = params, opt_state, descend_micro


def test_donated_buffers() -> None:
    """No two arrays of the state share a buffer. Masks that were given out stay valid when the state is donated."""
    tx = sparsify(optax.adam(1e-2), RECIPE)
    params, opt_state = start(tx, make_params())
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((params, opt_state))]
    assert len(set(buffers)) == len(buffers)
    descend = jax.jit(make_step(tx), donate_argnums=(0, 1))
    given = masks(opt_state, params), step(opt_state)
    copies = jax.tree.map(np.array, given)
    gradients = make_gradients(params, 0)
    for _ in range(6):
        params, opt_state = descend(params, opt_state, gradients)
    for a, b in zip(jax.tree.leaves(given), jax.tree.leaves(copies), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("dtype", "method"),
    [(jnp.bfloat16, RigL), (jnp.float16, RigL), (jnp.float32, RigL), (jnp.float64, RigL), (jnp.bfloat16, SET)],
)
def test_every_dtype_under_strict_promotion(dtype: Any, method: Any) -> None:
    """No array is promoted, also in x64 mode, and the dtypes of the state do not change."""
    with jax.enable_x64(dtype == jnp.float64), jax.numpy_dtype_promotion("strict"):
        tx = sparsify(optax.sgd(0.0625, 0.5), method(0.7, schedule=SCHEDULE))  # optax's Adam itself promotes
        params, opt_state = start(tx, make_params(dtype, ["fc1"]))
        dtypes = [leaf.dtype for leaf in jax.tree.leaves((params, opt_state))]
        descend = make_step(tx)
        for number in range(6):
            after = descend(params, opt_state, make_gradients(params, number))
            if method is RigL:
                assert_follows_the_topology((params, opt_state), after, SCHEDULE)
            params, opt_state = after
        assert [leaf.dtype for leaf in jax.tree.leaves((params, opt_state))] == dtypes


def test_updates_in_another_dtype_than_the_parameters() -> None:
    """Weights outside the mask become exactly zero, also if the inner transformation computes in a narrower dtype."""

    def narrow(updates: Any, params: Any) -> Any:
        return jax.tree.map(lambda u: (-0.1 * u).astype(jnp.bfloat16), updates)

    for inner in (optax.stateless(narrow), optax.adam(1e-2, mu_dtype=jnp.bfloat16)):
        tx = sparsify(inner, RECIPE)
        params, opt_state = start(tx, make_params(layers=["fc1"]))
        descend = make_step(tx)
        for number in range(6):
            after = descend(params, opt_state, make_gradients(params, number))
            assert_follows_the_topology((params, opt_state), after, SCHEDULE)
            params, opt_state = after


def test_none_leaves_and_a_tree_that_is_one_array() -> None:
    recipe = RigL(0.5, schedule=SCHEDULE)
    for params in ({"w": make_params()["fc1"]["kernel"], "frozen": None}, make_params()["fc1"]["kernel"]):
        tx = sparsify(optax.adam(1e-2), recipe)
        params, opt_state = start(tx, params)
        after = make_step(tx)(params, opt_state, make_gradients(params, 0))
        assert_follows_the_topology((params, opt_state), after, SCHEDULE)


def test_a_static_topology_and_one_without_sparse_layers() -> None:
    """If no layer is sparse, the updates of a schedule still replace their gradient steps."""
    for recipe, moves in ((Static(0.7), True), (RigL(0.0, schedule=SCHEDULE), False)):
        tx = sparsify(optax.sgd(0.1), recipe)
        params, opt_state = start(tx, make_params())
        after, opt_state = make_step(tx)(params, opt_state, make_gradients(params, 0))
        assert np.array_equal(params["fc1"]["bias"], after["fc1"]["bias"]) != moves
        assert table(opt_state, after).total_active == sum(int((w != 0).sum()) for w in kernels(after))


def kernels(params: Any) -> list[Any]:
    return [layer["kernel"] for layer in params.values()]


def test_an_ensemble_under_vmap() -> None:
    """Each member follows its own topology. Under vmap a condition evaluates both branches."""
    tx = sparsify(optax.sgd(0.0625, 0.5), RECIPE)
    members = [jax.tree.map(lambda leaf, sign=sign: sign * leaf + sign, make_params(layers=["fc1"])) for sign in (1, 2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    opt_states = jax.vmap(tx.init)(stacked)
    stacked = jax.vmap(apply_masks)(stacked, opt_states)
    alone = [start(tx, member) for member in members]
    descend = make_step(tx)
    descend_together = jax.jit(jax.vmap(descend))
    for number in range(6):
        gradients = [make_gradients(member, 10 * number + i) for i, member in enumerate(members)]
        together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *gradients)
        stacked, opt_states = descend_together(stacked, opt_states, together)
        alone = [descend(*state, g) for state, g in zip(alone, gradients, strict=True)]
    for i, state in enumerate(alone):
        for a, b in zip(jax.tree.leaves((stacked, opt_states)), jax.tree.leaves(state), strict=True):
            np.testing.assert_array_equal(a[i], b)


@pytest.mark.parametrize("callbacks", [False, True])
def test_a_program_without_callbacks(callbacks: bool) -> None:
    """A program without callbacks can be exported; it moves the same connections."""
    tx, params = sparsify(optax.sgd(0.1), RECIPE, callbacks=callbacks), make_params()
    params, opt_state = start(tx, params)
    trace = str(jax.make_jaxpr(tx.update)(params, opt_state, params))
    assert ("buffer_callback" in trace) == (callbacks and jax.default_backend() == "cpu")
    after, opt_state = make_step(tx)(params, opt_state, make_gradients(params, 0))
    reference = sparsify(optax.sgd(0.1), RECIPE)
    _, expected = make_step(reference)(params, reference.init(make_params()), make_gradients(params, 0))
    for name, mask in masks(expected, after).items():
        np.testing.assert_array_equal(masks(opt_state, after)[name], mask)


def test_parameters_of_numpy() -> None:
    tx = sparsify(optax.adam(1e-2), RECIPE)
    opt_state = tx.init(jax.tree.map(np.asarray, make_params()))
    for a, b in zip(jax.tree.leaves(tx.init(make_params())), jax.tree.leaves(opt_state), strict=True):
        assert isinstance(b, jax.Array)
        np.testing.assert_array_equal(a, b)


def test_init_inside_jit_and_by_shape() -> None:
    tx, params = sparsify(optax.adam(1e-2), RECIPE), make_params()
    opt_state = tx.init(params)
    for a, b in zip(jax.tree.leaves(jax.jit(tx.init)(params)), jax.tree.leaves(opt_state), strict=True):
        np.testing.assert_array_equal(a, b)
    shapes = jax.eval_shape(tx.init, params)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shapes) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), opt_state
    )


def test_the_state_is_found_wherever_it_is() -> None:
    params = make_params()
    tx = optax.chain(optax.clip(1.0), optax.MultiSteps(sparsify(optax.adam(1e-2), RECIPE), 2).gradient_transformation())
    nested = {"train": [tx.init(params)]}
    assert set(masks(nested, params)) == {"fc1/kernel", "fc2/kernel"}
    with pytest.raises(ValueError, match="opt_state holds 0 states of sparsify"):
        step(optax.adam(1e-2).init(params))
    with pytest.raises(ValueError, match="opt_state holds 2 states of sparsify"):
        apply_masks(params, [nested, nested])


@pytest.mark.parametrize("compiled", [False, True])
def test_derivatives_through_a_training_forwards_and_backwards(compiled: bool) -> None:
    """The derivative by a learning rate. The steps are smooth as long as the chosen connections stay the same."""
    tx = sparsify(optax.chain(optax.trace(0.5), optax.scale(-1.0)), RECIPE)
    params, opt_state = start(tx, make_params(layers=["fc1"]))

    def loss(params: Any) -> Any:
        return ((jnp.ones((3, 12)) @ params["fc1"]["kernel"] - 1) ** 2).mean()

    def descend(state: Any, rate: Any) -> Any:
        updates, opt_state = tx.update(jax.tree.map(lambda g: rate * g, jax.grad(loss)(state[0])), state[1], state[0])
        return (optax.apply_updates(state[0], updates), opt_state), None

    def trained(rate: Any) -> Any:
        return loss(jax.lax.scan(descend, (params, opt_state), jnp.full(7, rate))[0][0])

    with_jit = jax.jit if compiled else lambda function: function
    forwards, backwards = (with_jit(how(trained))(0.125) for how in (jax.jacfwd, jax.grad))
    slope = (trained(0.125 + 1e-3) - trained(0.125 - 1e-3)) / 2e-3
    np.testing.assert_allclose([forwards, backwards], [slope, slope], rtol=1e-2)
