"""Methods other than RigL and SET: trainings equal NumPy's, and JAX's own features work with the methods' memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import rigl_backends.numpy
from rigl_backends.jax import apply_masks, masks, sparsify, step
from rigl_backends.jax.handle import find_state
from rigl_backends.jax.layer import SparseLayer
from rigl_core import (
    DNS,
    DNW,
    DSR,
    MEST,
    NM,
    SNFS,
    SNIP,
    Constant,
    DeepR,
    GradientStep,
    GradualPruning,
    InitialValues,
    Layer,
    LotteryTicket,
    Recipe,
    RigL,
    SETAsPublished,
    SmallRandom,
    SRigL,
    UpdateSchedule,
)
from rigl_core.testing.checks import checks
from tests.jax.helpers import by_name, make_gradients, make_params, make_step, per_weight, start, to_numpy

WHEN = UpdateSchedule(end=9, every=2)
RECIPES: dict[str, Recipe] = {
    "RigL, small random, over all layers": RigL(0.6, schedule=WHEN, grown=SmallRandom(0.5), scope="global"),
    "RigL, gradient step, 2:4": RigL(
        schedule=WHEN, grown=GradientStep(0.25), structure=NM(2, 4), drop_fraction=Constant(0.5)
    ),
    "RigL, initial values": RigL(0.6, schedule=WHEN, grown=InitialValues(), regrown="reset"),
    "SRigL": SRigL(0.6, schedule=WHEN, drop_fraction=Constant(0.5)),
    "SET as published": SETAsPublished(0.6, schedule=WHEN),
    "Deep R": DeepR(0.6, schedule=WHEN, l1=0.125),
    "SNFS": SNFS(0.6, schedule=WHEN, momentum=0.5),
    "DSR": DSR(0.6, schedule=WHEN, drop_fraction=Constant(0.3)),
    "MEST": MEST(0.6, schedule=WHEN, share=0.5),
    "SNIP": SNIP(0.6),
    "gradual pruning": GradualPruning(0.6, schedule=WHEN, scope="global"),
    "DNW": DNW(0.6, schedule=WHEN),
    "DNS": DNS(0.6, schedule=WHEN),
}
LAYERS = [Layer("fc1/kernel", (12, 10), in_axes=(0,), out_axes=(1,)), Layer("fc2/kernel", (10, 6), (0,), (1,))]
LAYERS_OF_FOUR = [LAYERS[0], Layer("fc2/kernel", (8, 6), (0,), (1,))]


def layers_and_params(recipe: Recipe) -> tuple[list[Layer], Any]:
    """Layers and parameters that fit the recipe's structure."""
    params = make_params(jnp.float64)
    if recipe.structure.kind != "n_of_m":
        return LAYERS, params
    params["fc2"]["kernel"] = params["fc2"]["kernel"][:8]
    return LAYERS_OF_FOUR, params


@checks("P1", "M1", "M3", "M4", "M5", "M6", "M8", "V1", "V3")
@pytest.mark.parametrize("name", RECIPES)
def test_a_training_is_numpys(name: str) -> None:
    """After each of 11 compiled float64 steps the masks are equal; at the end weights and state are too."""
    recipe = RECIPES[name]
    with jax.enable_x64(True):
        layers, params = layers_and_params(recipe)
        reference = by_name(params)
        optimizer = rigl_backends.numpy.SGD(reference, 0.0625, 0.5)
        handle = rigl_backends.numpy.sparsify(reference, optimizer, recipe, layers=layers)
        tx = sparsify(optax.sgd(0.0625, 0.5), recipe, layers=layers)
        params, opt_state = start(tx, params)
        descend, moves = make_step(tx), 0
        for number in range(11):
            gradients, old = make_gradients(params, number), handle.masks
            optimizer.step(by_name(gradients))
            params, opt_state = descend(params, opt_state, gradients)
            for layer, mask in masks(opt_state, params).items():
                np.testing.assert_array_equal(mask, handle.masks[layer], err_msg=f"{layer} after step {number}")
            moves += any((old[layer] != handle.masks[layer]).any() for layer in old)
        assert moves >= (1 if name == "SNIP" else 3)
        states = per_weight(params, opt_state)
        for leaf, weight in by_name(params).items():
            expected = [reference[leaf], *(v for v in optimizer.state[leaf].values() if np.ndim(v))]
            for mine, other in zip((weight, *states[leaf]), expected, strict=True):
                np.testing.assert_allclose(mine, other, rtol=1e-12, atol=1e-14, err_msg=leaf)
        memory = handle.state_dict()["memory"]
        assert find_state(opt_state).memory.keys() == memory.keys()
        for kind, arrays in memory.items():
            for layer, values in arrays.items():
                mine = find_state(opt_state).memory[kind][layer]
                np.testing.assert_allclose(
                    mine.reshape(-1), values, rtol=1e-12, atol=1e-14, err_msg=f"{kind} of {layer}"
                )


REMEMBERING: dict[str, Recipe] = {
    **{name: RECIPES[name] for name in ("RigL, initial values", "Deep R", "DNW")},
    "SNFS": SNFS(0.6, schedule=WHEN, momentum=0.5, redistribution=None),  # which compiles in a tenth of the time
}


def test_what_is_not_remembered_is_not_there() -> None:
    params = make_params()
    assert sparsify(optax.sgd(0.1), RECIPES["DSR"]).init(params).memory == {}
    for name, recipe in REMEMBERING.items():
        memory = sparsify(optax.sgd(0.1), recipe).init(params).memory
        assert tuple(memory) == recipe.rule.memories, name
        for arrays in memory.values():
            assert {layer: array.shape for layer, array in arrays.items()} == {
                "fc1/kernel": (12, 10),
                "fc2/kernel": (10, 6),
            }


@checks("P2")
@pytest.mark.parametrize("name", REMEMBERING)
def test_memory_is_saved_as_any_state(name: str) -> None:
    """Flax saves the memory as bytes, with the other state; the rest of the training is the same."""
    tx = sparsify(optax.adam(0.01), REMEMBERING[name])
    descend = make_step(tx)
    whole = start(tx, make_params())
    for number in range(8):
        if number == 3:
            saved = flax.serialization.to_bytes(whole)
            resumed = flax.serialization.from_bytes(start(tx, make_params()), saved)
        whole = descend(*whole, make_gradients(whole[0], number))
        if number >= 3:
            resumed = descend(*resumed, make_gradients(whole[0], number))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", REMEMBERING)
def test_a_donated_scan_is_the_same_training_as_a_loop_outside_jit(name: str) -> None:
    tx = sparsify(optax.sgd(0.0625, 0.5), REMEMBERING[name])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(make_gradients(make_params(), n) for n in range(7)))

    def descend(carry: Any, gradients: Any) -> Any:
        params, opt_state = carry
        updates, opt_state = tx.update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    looped, donated = start(tx, make_params()), start(tx, make_params())
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(donated)]
    assert len(set(buffers)) == len(buffers)
    for number in range(7):
        looped = descend(looped, make_gradients(make_params(), number))[0]
    scanned, _ = jax.jit(lambda carry: jax.lax.scan(descend, carry, stacked), donate_argnums=0)(donated)
    for a, b in zip(jax.tree.leaves(scanned), jax.tree.leaves(looped), strict=True):
        np.testing.assert_array_equal(a, b)


@checks("G2")
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("name", ["SNFS", "DNW", "Deep R"])
def test_memory_sees_the_accumulated_gradient(name: str, inside: bool) -> None:
    recipe, sgd = REMEMBERING[name], optax.sgd(0.0625, 0.5)
    multi: Any = sparsify(optax.MultiSteps(sgd, 2), recipe) if inside else optax.MultiSteps(sparsify(sgd, recipe), 2)
    tx = sparsify(sgd, recipe)
    expected, accumulating = start(tx, make_params()), start(multi, make_params())
    descend, descend_micro = make_step(tx), make_step(multi)
    for number in range(5):
        micro = [make_gradients(expected[0], 2 * number + i) for i in range(2)]
        expected = descend(*expected, jax.tree.map(lambda a, b: a + (b - a) / 2, *micro))
        for gradients in micro:
            accumulating = descend_micro(*accumulating, gradients)
        states = find_state(accumulating[1]), find_state(expected[1])
        pairs = ((accumulating[0], expected[0]), *((getattr(states[0], x), getattr(states[1], x)) for x in PARTS))
        for one, other in pairs:
            for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
                np.testing.assert_array_equal(a, b)


PARTS = ("masks", "memory", "step")


def test_memory_in_the_variables_of_flax_nnx() -> None:
    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.hidden, self.out = nnx.Linear(12, 16, rngs=rngs), nnx.Linear(16, 3, rngs=rngs)

    model = Model(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, sparsify(optax.adam(0.03), REMEMBERING["SNFS"]), wrt=nnx.Param)
    nnx.update(model, apply_masks(nnx.state(model, nnx.Param), optimizer.opt_state))

    @nnx.jit
    def descend(model: Model, optimizer: Any) -> None:
        def loss(model: Model) -> Any:
            return (model.out(nnx.relu(model.hidden(jnp.ones((2, 12))))) ** 2).mean()

        optimizer.update(model, nnx.grad(loss)(model))

    for _ in range(3):
        descend(model, optimizer)
    state = find_state(optimizer.opt_state)
    assert int(step(optimizer.opt_state)) == 3
    assert {name: array.shape for name, array in state.memory["momentum"].items()} == {
        "hidden/kernel": (12, 16),
        "out/kernel": (16, 3),
    }
    assert all(np.asarray(array).any() for array in state.memory["momentum"].values())


def test_shadows_give_the_optimizer_dense_gradients_and_whole_weights() -> None:
    seen: list[Any] = []

    def spy(updates: Any, params: Any) -> Any:
        seen.append((by_name(updates), by_name(params)))
        return jax.tree.map(lambda g: -0.25 * g, updates)

    tx = sparsify(optax.stateless(spy), DNW(0.6, schedule=UpdateSchedule(end=9, every=1)))
    dense = make_params()
    params, opt_state = start(tx, dense)
    whole = by_name(dense)
    for number in range(3):
        gradients = make_gradients(params, number)
        updates, opt_state = tx.update(gradients, opt_state, params)
        params = optax.apply_updates(params, updates)
        for name, gradient in by_name(gradients).items():
            np.testing.assert_array_equal(seen[-1][0][name], gradient)
            np.testing.assert_allclose(seen[-1][1][name], whole[name], rtol=1e-6, atol=1e-7)
            whole[name] = whole[name] - np.float32(0.25) * gradient
        for name, mask in masks(opt_state, params).items():
            np.testing.assert_allclose(by_name(params)[name], np.where(mask, whole[name], 0), rtol=1e-5, atol=1e-6)


def test_no_indices_where_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """An array of indices needs as much memory as a layer, so methods without random draws make none."""
    made: list[SparseLayer] = []
    indices = SparseLayer.indices
    monkeypatch.setattr(SparseLayer, "indices", lambda layer: made.append(layer) or indices(layer))

    def makes_indices(name: str) -> bool:
        params = make_params()
        tx = sparsify(optax.sgd(0.1), replace(RECIPES[name], momentum=0.1003))  # a rule that nothing has traced
        opt_state = tx.init(params)
        made.clear()
        jax.make_jaxpr(tx.update)(params, opt_state, params)
        return bool(made)

    assert not any(map(makes_indices, ("SNFS", "gradual pruning", "DNW", "RigL, initial values")))
    assert all(map(makes_indices, ("DSR", "Deep R", "RigL, small random, over all layers")))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("RigL, small random, over all layers", jnp.float16),
        ("SNFS", jnp.bfloat16),
        ("DNW", jnp.float16),
        ("Deep R", jnp.bfloat16),
    ],
)
def test_half_precision_under_strict_promotion(name: str, dtype: Any) -> None:
    with jax.numpy_dtype_promotion("strict"):
        tx = sparsify(optax.sgd(0.0625, 0.5), RECIPES[name])
        state = start(tx, make_params(dtype))
        dtypes = [leaf.dtype for leaf in jax.tree.leaves(state)]
        descend = make_step(tx)
        for number in range(4):
            state = descend(*state, make_gradients(state[0], number))
            for layer, mask in masks(state[1], state[0]).items():
                assert not to_numpy(by_name(state[0])[layer])[~np.array(mask)].any()
        assert [leaf.dtype for leaf in jax.tree.leaves(state)] == dtypes


Change = Callable[[dict[str, Any]], Any]
WRONG: dict[str, tuple[Change, type[Exception], str]] = {
    "none": (lambda scores: None, TypeError, "scores is NoneType: the recipe asks for arrays by layer name"),
    "one is missing": (
        lambda scores: {"fc1/kernel": scores["fc1/kernel"]},
        ValueError,
        "scores has none for layer 'fc2/",
    ),
    "shape": (
        lambda scores: {**scores, "fc1/kernel": np.ones((10, 12))},
        ValueError,
        r"scores of layer 'fc1/kernel' have the shape \(10, 12\): they must have the layer's, \(12, 10\)",
    ),
}


@checks("P3", "M7")
@pytest.mark.parametrize("case", WRONG)
def test_wrong_scores_are_refused(case: str) -> None:
    change, error, message = WRONG[case]
    params = make_params()
    scores = {layer.name: np.ones(layer.shape) for layer in LAYERS}
    with pytest.raises(error, match=message):
        sparsify(optax.sgd(0.1), LotteryTicket(0.5), scores=change(scores)).init(params)


@checks("P3", "M7")
def test_scores_that_nobody_asked_for_are_refused() -> None:
    scores = {layer.name: np.ones(layer.shape) for layer in LAYERS}
    with pytest.raises(ValueError, match="scores are given, and the recipe starts from 'random': leave them out"):
        sparsify(optax.sgd(0.1), RECIPES["SNFS"], scores=scores).init(make_params())
