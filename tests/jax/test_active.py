"""Truly sparse layers in JAX: whole trainings, compiled or not, other libraries, and what users do wrong."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array, lax

from rigl_backends.jax import (
    ActiveWeight,
    apply_masks,
    begin,
    dense,
    masks,
    resume,
    sparse_linear,
    sparsify,
    step,
    table,
)
from rigl_backends.jax.handle import find_state
from rigl_backends.jax.trees import named_leaves
from rigl_core import (
    SET,
    SNFS,
    Constant,
    CubicRamp,
    GradualPruning,
    Recipe,
    RigL,
    SparsityWarning,
    Uniform,
    UpdateSchedule,
)
from rigl_core.testing.checks import checks

SCHEDULE = UpdateSchedule(end=40, every=3)
FREE = Uniform(first_dense=False)
RIGL = RigL(0.8, schedule=SCHEDULE, drop_fraction=Constant(0.4), distribution=FREE)
RECIPES: dict[str, Recipe] = {
    "RigL": RIGL,
    "SET": SET(0.8, schedule=SCHEDULE, distribution=FREE),
}
ACTIVE: Any = {"fc*/kernel": "active"}
Loss = Callable[[Any, Any], Array]


def make_params() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = {"fc1": (20, 60), "fc2": (60, 10)}
    kernels = {name: jnp.array(rng.normal(size=shape) / 5, jnp.float32) for name, shape in shapes.items()}
    return {name: {"kernel": kernel, "bias": jnp.zeros(kernel.shape[1])} for name, kernel in kernels.items()}


def batches(steps: range, size: int = 16) -> tuple[Array, Array]:
    rngs = [np.random.default_rng(step) for step in steps]
    x = np.stack([rng.normal(size=(2, size // 2, 20)) for rng in rngs]).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(np.tanh(x[..., :10] * x[..., 10:]))


def loss_of(params: Any, batch: Any) -> Array:
    x, target = batch
    hidden = jax.nn.relu(sparse_linear(params["fc1"]["kernel"], x) + params["fc1"]["bias"])
    return jnp.mean((sparse_linear(params["fc2"]["kernel"], hidden) + params["fc2"]["bias"] - target) ** 2)


def start(storage: Any = ACTIVE, recipe: Recipe = RIGL, inner: Any = None) -> tuple[Any, Any, Any]:
    tx = sparsify(optax.adam(0.01) if inner is None else inner, recipe, storage=storage)
    params = make_params()
    opt_state = tx.init(params)
    return tx, apply_masks(params, opt_state), opt_state


def in_a_scan(tx: Any, loss: Loss = loss_of) -> tuple[Any, list[int]]:
    """Steps of a training in one compiled loop, whose arguments are donated; and how often it is traced."""
    traces: list[int] = []

    def one(carry: Any, batch: Any) -> tuple[Any, Array]:
        params, opt_state = carry
        value, gradients = jax.value_and_grad(loss)(params, batch)
        updates, opt_state = tx.update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    def run(carry: Any, batches: Any) -> Any:
        traces.append(0)
        return lax.scan(one, carry, batches)

    return jax.jit(run, donate_argnums=0), traces


def assert_same_masks(one: tuple[Any, Any], other: tuple[Any, Any]) -> None:
    own, others = masks(one[1], one[0]), masks(other[1], other[0])
    assert own.keys() == others.keys()
    for name, mask in own.items():
        np.testing.assert_array_equal(mask, others[name], err_msg=name)


@checks("A1", "A2", "V1", "V2")
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_training_is_that_with_masks(recipe: str) -> None:
    """In a donated scan, by one trace for all steps."""
    results = []
    for storage in (ACTIVE, "masks"):
        tx, *carry = start(storage, RECIPES[recipe])
        run, traces = in_a_scan(tx)
        losses = []
        for steps in (range(13), range(13, 26)):
            carry, values = run(tuple(carry), batches(steps))
            losses.append(values)
        results.append((carry, losses))
        assert len(traces) == 1
    (active, losses), (masked, others) = results
    np.testing.assert_allclose(losses, others, rtol=1e-3)
    assert_same_masks(active, masked)
    assert str(table(active[1], active[0])) == str(table(masked[1], masked[0]))
    assert int(step(active[1])) == 26
    for name, weight in named_leaves(dense(active[0])).items():
        np.testing.assert_allclose(weight, named_leaves(masked[0])[name], atol=1e-4)


@checks("A1")
def test_arrays_are_of_active_weights_alone() -> None:
    """Weights, gradients and the optimizer's state; the index is nobody's gradient."""
    _, params, opt_state = start()
    gradients = jax.grad(loss_of)(params, jax.tree.map(lambda array: array[0], batches(range(1))))
    weight, gradient = params["fc1"]["kernel"], gradients["fc1"]["kernel"]
    assert weight.values.shape == gradient.values.shape == (240,)
    assert not any(np.any(array) for array in (gradient.columns, gradient.pointers, gradient.marks))
    assert {
        leaf.shape for name, leaf in named_leaves(find_state(opt_state).inner_state).items() if "fc1/k" in name
    } == {(240,)}


@checks("A2", "P2")
def test_eager_steps_and_pickled_compiled_ones_are_one_training() -> None:
    """The same bits of gradients, by callbacks or without; the training was pickled."""
    batch = jax.tree.map(lambda array: array[0], batches(range(1)))
    params = start()[1]
    one, other = jax.grad(loss_of)(params, batch), jax.jit(jax.grad(loss_of))(params, batch)
    np.testing.assert_array_equal(one["fc2"]["kernel"].values, other["fc2"]["kernel"].values)
    tx, *carry = start()
    for number in range(2):
        own = jax.tree.map(lambda array: array[0], batches(range(number, number + 1)))
        updates, carry[1] = tx.update(jax.grad(loss_of)(carry[0], own), carry[1], carry[0])
        carry[0] = optax.apply_updates(carry[0], updates)
    tx, *other = start()
    params, opt_state = pickle.loads(pickle.dumps(other))
    other, _ = in_a_scan(tx)[0]((params, resume(tx, opt_state, params)), batches(range(2)))
    assert_same_masks(tuple(carry), tuple(other))


@checks("A2")
def test_samples_are_added_use_after_use() -> None:
    """In the order of the uses in the model, and not that of their gradients; micro-batch after micro-batch."""
    params = start()[1]
    link = params["fc1"]["kernel"].link

    def loss(kernel: Any, x: Any) -> Array:
        return jnp.sum(jnp.sin(sparse_linear(kernel, x)) + jnp.sin(sparse_linear(kernel, 2 * x)))

    gradient = jax.jit(jax.grad(loss))
    own = [gradient(params["fc1"]["kernel"], scale * batches(range(1))[0][0]).values for scale in (1, 5)]
    index = params["fc1"]["kernel"].topology.index()
    found = link.gradient(params["fc1"]["kernel"].layout, index, np.asarray(own[0] + own[1]))
    scales = [float(x[0, 0]) for x, _ in found._pairs]
    assert np.divide(scales, scales[0]).tolist() == pytest.approx([1, 2, 5, 10])


def twice(params: Any, batch: Any) -> Array:
    """A layer that is used twice, the second time in a checkpoint."""
    kernel = params["fc"]["kernel"]
    half = jax.checkpoint(lambda kernel, x: jnp.tanh(sparse_linear(kernel, x)))
    return jnp.sum(half(kernel, jnp.tanh(sparse_linear(kernel, batch))) ** 2)


@checks("A2")
def test_several_uses_of_a_layer() -> None:
    results = []
    for storage in (ACTIVE, "masks"):
        tx = sparsify(optax.sgd(0.1), RIGL, storage=storage)
        params = {"fc": {"kernel": jnp.array(np.random.default_rng(0).normal(size=(30, 30)), jnp.float32) / 4}}
        opt_state = tx.init(params)
        x = jnp.array(np.random.default_rng(1).normal(size=(8, 16, 30)), jnp.float32)
        carry, _ = in_a_scan(tx, twice)[0]((apply_masks(params, opt_state), opt_state), x)
        results.append(carry)
    assert_same_masks(*results)


@checks("G2", "A2")
def test_micro_batches() -> None:
    """Of optax, whose transformation is called for each, and whose updates of the first ones are thrown away."""
    results = []
    for storage in (ACTIVE, "masks"):
        tx, *carry = start(storage, inner=optax.MultiSteps(optax.adam(0.01), 2))
        results.append(in_a_scan(tx)[0](tuple(carry), batches(range(16)))[0])
    assert_same_masks(*results)
    assert int(step(results[0][1])) == 8


@checks("A2", "G2")
def test_only_the_samples_of_the_step_count() -> None:
    """Those of other gradients, before and after, are not taken; a common factor changes no choice."""
    tx, *carry = start(inner=optax.chain(optax.clip_by_global_norm(0.1), optax.adam(0.01)))
    _, *other = start(inner=optax.chain(optax.clip_by_global_norm(0.1), optax.adam(0.01)))
    gradient = jax.jit(jax.grad(loss_of))
    for number in range(7):
        x, target = (array[0] for array in batches(range(number, number + 1)))
        gradient(carry[0], (5 * x, target))  # as an evaluation
        own = jax.tree.map(lambda array: 2 * array, gradient(carry[0], (x, target)))
        for training, scaled in ((carry, own), (other, gradient(other[0], (x, target)))):
            updates, training[1] = tx.update(scaled, training[1], training[0])
            training[0] = optax.apply_updates(training[0], updates)
    assert_same_masks(tuple(carry), tuple(other))


@checks("P3", "A2")
@pytest.mark.parametrize("compiled", [True, False])
def test_a_gradient_of_unknown_origin_is_refused(compiled: bool) -> None:
    tx, params, opt_state = start()
    update = jax.jit(tx.update) if compiled else tx.update
    gradients = jax.tree.map(jnp.ones_like, params)
    with pytest.raises(
        jax.errors.JaxRuntimeError if compiled else ValueError, match="'fc1/kernel' is not that of its latest products"
    ):
        jax.block_until_ready(update(gradients, opt_state, params))


@checks("P2", "A1")
def test_a_state_changes_its_storage() -> None:
    """To active weights and back: masks, weights and optimizer state are the same bits, and outside what is new."""
    adagrad = optax.adagrad(0.1, initial_accumulator_value=0.1)
    tx, *carry = start("masks", inner=adagrad)
    (params, opt_state), _ = in_a_scan(tx)[0](tuple(carry), batches(range(5)))
    active = sparsify(adagrad, RIGL, storage=ACTIVE)
    own_state = resume(active, opt_state, params)
    own = apply_masks(params, own_state)
    assert isinstance(own["fc1"]["kernel"], ActiveWeight)
    assert_same_masks((params, opt_state), (own, own_state))
    moments, sums = (named_leaves(find_state(state).inner_state) for state in (own_state, opt_state))
    for name, mask in masks(opt_state, params).items():
        (leaf,) = (leaf for leaf in sums if name in leaf)
        place = own["fc1" if "fc1" in name else "fc2"]["kernel"].topology.index()
        np.testing.assert_array_equal(moments[leaf], place.values(np.asarray(sums[leaf])))
        assert (np.asarray(sums[leaf])[~np.asarray(mask)] == np.float32(0.1)).all()
    back = resume(tx, own_state, own)
    restored = apply_masks(own, back)
    for one, other in zip(jax.tree.leaves((params, opt_state)), jax.tree.leaves((restored, back)), strict=True):
        np.testing.assert_array_equal(one, other)
    accumulating = optax.MultiSteps(tx, 2).init(params)
    with pytest.raises(ValueError, match=r"optax\.MultiSteps accumulates, in the form of another storage"):
        resume(active, accumulating, params)


@checks("P2", "T6")
def test_resume_with_another_sparsity() -> None:
    """The largest weights stay, with their optimizer state."""
    tx, params, opt_state = start()
    sparser = RigL(0.9, schedule=SCHEDULE, drop_fraction=Constant(0.4), distribution=FREE)
    tx = sparsify(optax.adam(0.01), sparser, storage=ACTIVE)
    opt_state = resume(tx, opt_state, params, changed=["sparsity"])
    brought = apply_masks(params, opt_state)
    for layer, size in (("fc1", 120), ("fc2", 60)):
        before, after = (np.asarray(dense(tree)[layer]["kernel"]).reshape(-1) for tree in (params, brought))
        kept = np.sort(np.argsort(-np.abs(before), kind="stable")[:size])
        np.testing.assert_array_equal(np.flatnonzero(after), kept)
        np.testing.assert_array_equal(after[kept], before[kept])
    in_a_scan(tx)[0]((brought, opt_state), batches(range(2)))


@checks("P4")
def test_weights_of_another_topology_are_told() -> None:
    """Of an earlier step, without their state; `apply_masks` brings them to the state's topology."""
    tx, params, opt_state = start()
    opt_state = in_a_scan(tx)[0](jax.tree.map(jnp.array, (params, opt_state)), batches(range(5)))[0][1]
    with pytest.warns(SparsityWarning, match="weights lie outside their masks"):
        masks(opt_state, params)
    gradients = jax.tree.map(jnp.zeros_like, params)
    with pytest.raises(ValueError, match="Active weights must have the topology of the state"):
        tx.update(gradients, opt_state, params)
    unseen = jax.jit(tx.update)(gradients, opt_state, params)[1]
    with pytest.raises(ValueError, match="Active weights must have the topology of the state"):
        step(unseen)
    brought = apply_masks(params, opt_state)
    mask = masks(opt_state, brought)["fc1/kernel"]
    own = jnp.where(mask, dense(params)["fc1"]["kernel"], 0)
    np.testing.assert_array_equal(dense(brought)["fc1"]["kernel"], own)


@checks("P3")
def test_what_computes_with_an_index_is_refused() -> None:
    tx, params, opt_state = start()
    batch = jax.tree.map(lambda array: array[0], batches(range(1)))
    average = jax.tree.map(lambda array: array * 0.5, params)
    with pytest.raises(ValueError, match=r"Average the dense\(\) weights"):
        loss_of(average, batch)
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"Average the dense\(\) weights"):
        jax.jit(loss_of)(average, batch).block_until_ready()
    cast = jax.tree.map(lambda array: array.astype(jnp.bfloat16), params)
    with pytest.raises(TypeError, match="the values of 'fc1/kernel' are bfloat16 in place of float32"):
        loss_of(cast, batch)
    updates, _ = tx.update(jax.grad(loss_of)(params, batch), opt_state, params)
    with pytest.raises(TypeError, match="something has computed with the updates of active weights"):
        optax.apply_updates(params, jax.tree.map(lambda array: 0.5 * array, updates))


@checks("P3")
def test_mistakes_are_named() -> None:
    _, params, _ = start()
    kernel, x = params["fc1"]["kernel"], batches(range(1))[0][0]
    with pytest.raises(TypeError, match="x is float16: the kernels of sparse layers multiply float32"):
        sparse_linear(kernel, x.astype(jnp.float16))
    with pytest.raises(ValueError, match=r"x has shape \(2, 8, 19\): layer 'fc1/kernel' has 20 inputs"):
        sparse_linear(kernel, x[..., :19])
    with pytest.raises(ValueError, match=r"is of shape \(20, 60\): give inputs_first=True"):
        sparse_linear(kernel, x, inputs_first=False)
    with pytest.raises(ValueError, match="sparse_linear is inside vmap: call it on the whole batch"):
        jax.vmap(lambda x: sparse_linear(kernel, x))(x)
    mesh, spec = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("axis",)), jax.sharding.PartitionSpec("axis")
    with pytest.raises(ValueError, match="'fc1/kernel' is in a shard_map or pmap, where layers keep masks"):
        jax.shard_map(lambda x: sparse_linear(kernel, x), mesh=mesh, in_specs=spec, out_specs=spec)(x)
    with pytest.raises(ValueError, match="do not support JVP"):
        jax.grad(lambda x: jax.grad(lambda x: sparse_linear(kernel, x).sum())(x).sum())(x)


@checks("P3", "A3")
def test_refused_before_anything_changes() -> None:
    params = make_params()
    ramp = GradualPruning(0.9, schedule=SCHEDULE, ramp=CubicRamp(initial=0.6), distribution=FREE)
    for recipe, options, message in (
        (ramp, {}, "gradual pruning has a ramp"),
        (RIGL, {"callbacks": False}, "callbacks is False"),
    ):
        with pytest.raises(ValueError, match=message):
            sparsify(optax.adam(0.01), recipe, storage=ACTIVE, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="SNFS reads a momentum"):
        sparsify(optax.adam(0.01), SNFS(0.8, schedule=SCHEDULE, distribution=FREE), storage=ACTIVE).init(params)
    with pytest.raises(ValueError, match=r"give them as rigl_backends\.jax\.dense"):
        sparsify(optax.adam(0.01), RIGL).init(start()[1])
    tx = sparsify(optax.adam(0.01), RIGL, storage=ACTIVE)
    with pytest.raises(ValueError, match="init is inside jit, and storage='active' chooses"):
        jax.jit(tx.init)(params)
    opt_state, gradients = tx.init(params), jax.tree.map(jnp.zeros_like, params)
    with pytest.raises(ValueError, match=r"call params = rigl_backends.jax.apply_masks\(params, opt_state\) once"):
        tx.update(gradients, opt_state, params)


@checks("A1")
def test_a_dense_gradient_is_taken_too() -> None:
    """Without products: as a user gives it who computes it in another way."""
    results = []
    for storage in (ACTIVE, "masks"):
        tx, params, opt_state = start(storage)
        for number in range(8):
            rng = np.random.default_rng(number)
            own = jax.tree.map(lambda array: jnp.array(rng.normal(size=array.shape), jnp.float32), make_params())  # noqa: B023
            updates, opt_state = tx.update(own, opt_state, params)
            params = optax.apply_updates(params, updates)
        results.append((params, opt_state))
    assert_same_masks(*results)


@checks("A1", "N2")
def test_layers_that_are_never_dense() -> None:
    """The topology and all other arrays of a start with dense weights, and values of the same distribution."""
    tx, params, opt_state = start()
    begun, begun_state = begin(tx, make_traced_params, jax.random.key(0))
    assert_same_masks((params, opt_state), (begun, begun_state))
    kernel = begun["fc1"]["kernel"]
    assert isinstance(kernel, ActiveWeight)
    assert float(kernel.values.std()) == pytest.approx(20**-0.5, rel=0.2)
    np.testing.assert_array_equal(begun["fc1"]["bias"], params["fc1"]["bias"])
    assert jax.tree.structure(find_state(begun_state).inner_state) == jax.tree.structure(
        find_state(opt_state).inner_state
    )
    in_a_scan(tx)[0]((begun, begun_state), batches(range(4)))
    with pytest.raises(ValueError, match=r"never made: begin with rigl_backends\.jax\.begin"):
        tx.init(jax.eval_shape(make_traced_params))


def make_traced_params() -> dict[str, Any]:
    """As `make_params`, in operations of JAX."""
    keys = jax.random.split(jax.random.key(0))
    shapes = {"fc1": (20, 60), "fc2": (60, 10)}
    return {
        name: {"kernel": jax.random.normal(key, shape), "bias": jnp.zeros(shape[1])}
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def test_the_layers_of_a_storage() -> None:
    """A tree with active weights, masks and plain arrays."""
    _, params, _ = start({"fc1/*": "active"})
    assert isinstance(params["fc1"]["kernel"], ActiveWeight)
    assert isinstance(params["fc2"]["kernel"], Array)
