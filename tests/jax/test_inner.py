"""Every optimizer and wrapper of optax: outside the mask weights are 0 and state is new, survivors keep their bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rigl_backends.jax import masks, sparsify, step
from rigl_backends.jax.handle import find_state
from rigl_core import RigL, UpdateSchedule
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


def kernels_only(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def labels(params: Any) -> Any:
    return jax.tree.map(lambda leaf: "kernel" if leaf.ndim > 1 else "bias", params)


INNERS: dict[str, tuple[Callable[[], Any], int]] = {
    "sgd with momentum": (lambda: optax.sgd(0.05, 0.9), 1),
    "nesterov": (lambda: optax.sgd(0.05, 0.9, nesterov=True), 1),
    "adam": (lambda: optax.adam(0.01), 2),
    "adamw": (lambda: optax.adamw(0.01, weight_decay=0.1, mask=kernels_only), 2),
    "lion": (lambda: optax.lion(0.01, weight_decay=0.1), 1),
    "adafactor": (lambda: optax.adafactor(0.01, min_dim_size_to_factor=4, momentum=0.9), 1),
    "adafactor, not factored": (lambda: optax.adafactor(0.01, momentum=0.9), 2),
    "adamax": (lambda: optax.adamax(0.01), 2),
    "amsgrad": (lambda: optax.amsgrad(0.01), 3),
    "adan": (lambda: optax.adan(0.01), 4),
    "radam": (lambda: optax.radam(0.01), 2),
    "yogi": (lambda: optax.yogi(0.01), 2),
    "adadelta": (lambda: optax.adadelta(0.01), 2),
    "rprop": (lambda: optax.rprop(0.01), 2),
    "sm3": (lambda: optax.sm3(0.01), 1),
    "cocob": (lambda: optax.contrib.cocob(), 5),
    "madgrad": (lambda: optax.contrib.madgrad(0.01), 3),
    "ademamix": (lambda: optax.contrib.ademamix(0.01), 3),
    "adopt": (lambda: optax.contrib.adopt(0.01), 2),
    "prodigy": (lambda: optax.contrib.prodigy(0.1), 4),
    "galore": (lambda: optax.contrib.galore(0.01, rank=3), 0),
    "centralized": (lambda: optax.chain(optax.centralize(), optax.adam(0.01)), 2),
    "rmsprop": (lambda: optax.rmsprop(0.01, momentum=0.9, centered=True), 3),
    "adagrad": (lambda: optax.adagrad(0.05), 1),
    "lamb": (lambda: optax.lamb(0.01, weight_decay=0.1), 2),
    "muon": (lambda: optax.contrib.muon(0.01), 1),
    "schedule-free": (lambda: optax.contrib.schedule_free_adamw(0.01, warmup_steps=3), 2),
    "noise": (lambda: optax.chain(optax.add_noise(0.1, 0.5, 0), optax.sgd(0.05)), 0),
    "chain": (lambda: optax.chain(optax.clip_by_global_norm(0.5), optax.add_decayed_weights(0.1), optax.adam(0.01)), 2),
    "masked": (lambda: optax.masked(optax.adam(0.01), kernels_only), 2),
    "partition": (lambda: optax.partition({"kernel": optax.adam(0.01), "bias": optax.sgd(0.1, 0.9)}, labels), 2),
    "inject_hyperparams": (lambda: optax.inject_hyperparams(optax.adam)(optax.cosine_decay_schedule(0.05, 20)), 2),
    "apply_if_finite": (lambda: optax.apply_if_finite(optax.adam(0.01), 2), 2),
    "keep_params_nonnegative": (lambda: optax.chain(optax.sgd(0.05), optax.keep_params_nonnegative()), 0),
}
FIRST_STEP_IS_ZERO = ("rprop", "adopt")


@checks("V1", "V2", "V3", "V4", "R1", "Z1")
@pytest.mark.parametrize("name", INNERS)
def test_inner_optimizers(name: str) -> None:
    make, states = INNERS[name]
    inner = make()
    tx = sparsify(inner, RECIPE)
    params, opt_state = start(tx, make_params(layers=["fc1"]))
    assert len(per_weight(params, opt_state)["fc1/kernel"]) == states
    descend = make_step(tx)
    for number in range(9):
        after = descend(params, opt_state, make_gradients(params, number))
        assert_follows_the_topology((params, opt_state), after, SCHEDULE, inner)
        if SCHEDULE.fires(number):  # no count, schedule or random key advances either
            old, new = (by_name(find_state(state).inner_state) for state in (opt_state, after[1]))
            for leaf, value in old.items():
                assert value.shape == (12, 10) or np.array_equal(value, new[leaf]), leaf
        else:
            moves = any((by_name(params)[name] != by_name(after[0])[name]).any() for name in by_name(params))
            assert moves or (number == 1 and name in FIRST_STEP_IS_ZERO)
        params, opt_state = after


ALONE = sparsify(optax.adam(0.01), RECIPE)
DESCEND_ALONE = make_step(ALONE)
OUTERS: dict[str, Callable[[Any], Any]] = {
    "chain": lambda tx: optax.chain(optax.zero_nans(), tx),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 1),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 2),
    "masked": lambda tx: optax.masked(tx, kernels_only),
    "partition": lambda tx: optax.partition({"kernel": tx, "bias": optax.adam(0.01)}, labels),
    "inject_hyperparams": lambda tx: optax.inject_hyperparams(lambda rate: sparsify(optax.adam(rate), RECIPE))(0.01),
    "conditionally_transform": lambda tx: optax.conditionally_transform(tx, lambda step: step >= 0),
}


@pytest.mark.parametrize("name", OUTERS)
def test_wrappers_around_sparsify(name: str) -> None:
    """The kernels follow the topology. The wrapper may treat biases differently, so these are not compared."""
    tx = OUTERS[name](ALONE)
    params, opt_state = start(tx, make_params(layers=["fc1"]))
    expected, expected_state = start(ALONE, make_params(layers=["fc1"]))
    descend = make_step(tx)
    for number in range(10):
        gradients = make_gradients(params, number)
        params, opt_state = descend(params, opt_state, gradients)
        expected, expected_state = DESCEND_ALONE(expected, expected_state, gradients)
        for layer, mask in masks(expected_state, expected).items():
            np.testing.assert_array_equal(masks(opt_state, params)[layer], mask)
            np.testing.assert_allclose(by_name(params)[layer], by_name(expected)[layer], rtol=1e-6, atol=1e-7)
    assert int(step(opt_state)) == 10


@checks("G1")
def test_clipping_inside_sees_the_gradient_of_the_active_weights() -> None:
    seen: list[float] = []

    def spy(updates: Any, params: Any) -> Any:
        seen.append(float(optax.tree.norm(updates)))
        return updates

    tx = sparsify(optax.chain(optax.stateless(spy), optax.sgd(0.1)), RigL(0.7, schedule=UpdateSchedule(end=5, begin=1)))
    params, opt_state = start(tx, make_params())
    gradients = make_gradients(params, 0)
    masked = by_name(gradients)
    for name, mask in masks(opt_state, params).items():
        masked[name] = masked[name] * np.array(mask)
    tx.update(gradients, opt_state, params)
    np.testing.assert_allclose(seen, [np.sqrt(sum((g**2).sum() for g in masked.values()))], rtol=1e-6)


@checks("G1", "Z1")
def test_nothing_outside_the_mask_reaches_the_optimizer() -> None:
    tx = sparsify(optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.1)), RECIPE)
    params, opt_state = start(tx, make_params())
    descend, poisoned = make_step(tx), (params, opt_state)
    for number in range(1, 4):
        opt_state = opt_state._replace(step=jnp.int32(number))
        poisoned = poisoned[0], poisoned[1]._replace(step=jnp.int32(number))
        gradients = make_gradients(params, number)
        bad = jax.tree.map(lambda g: g, gradients)
        for name, mask in masks(opt_state, params).items():
            layer, leaf = name.split("/")
            bad[layer][leaf] = jnp.where(mask, gradients[layer][leaf], jnp.nan if number % 2 else jnp.inf)
        params, opt_state = descend(params, opt_state, gradients)
        poisoned = descend(*poisoned, bad)
        for a, b in zip(jax.tree.leaves((params, opt_state)), jax.tree.leaves(poisoned), strict=True):
            np.testing.assert_array_equal(a, b)
