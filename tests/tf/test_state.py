"""What an optimizer's state is for each weight, and what a new weight gets, is found out by evidence (V1, V3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from keras import optimizers as ko

from rigl_backends.tf import sparsify
from rigl_backends.tf.state import per_weight_state
from rigl_core import Recipe, RigL, SmallRandom, UpdateSchedule
from rigl_core.testing.checks import checks
from tests.tf.helpers import (
    MODES,
    assert_zero_outside,
    compiled,
    layer_arrays,
    make_gradients,
    make_model,
    rigl,
    values,
)


def square_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8, name="fc1"), keras.layers.Dense(8, name="fc2"), keras.layers.Dense(3, name="out")]
    return keras.Sequential([keras.Input((8,)), *layers], name="net")


class Shampoo(ko.Optimizer):  # type: ignore[misc]
    """With a matrix for each axis, which has the shape of a square weight, and a momentum."""

    def __init__(self, learning_rate: float = 0.1, start: float = 1.0, every: int = 1, **options: Any) -> None:
        super().__init__(learning_rate=learning_rate, **options)
        self.start, self.every = start, every

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "start": self.start, "every": self.every}

    def build(self, variables: Any) -> None:
        super().build(variables)
        self.momentums = self.add_optimizer_variables(variables, "momentum")
        self.matrices = []
        for variable in variables:
            name, size = variable.path.replace("/", "_"), variable.shape[0]
            self.matrices.append(self.add_variable((size, size), name=f"{name}_left"))
            self.matrices[-1].assign(self.start * np.eye(size))

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        i = self._get_variable_index(variable)
        flat = ops.reshape(gradient, (variable.shape[0], -1))
        due = ops.cast((self.iterations + 1) % self.every == 0, "float32")
        self.matrices[i].assign_add(due * ops.matmul(flat, ops.transpose(flat)))
        self.momentums[i].assign(0.9 * self.momentums[i] + gradient)
        scale = ops.reshape(1 / (1 + ops.sqrt(ops.diagonal(self.matrices[i]))), [-1] + [1] * (len(variable.shape) - 1))
        variable.assign_sub(ops.cast(learning_rate, variable.dtype) * scale * self.momentums[i])


class Centered(ko.SGD):  # type: ignore[misc]
    """Gradient centralization: its momentum is for each weight, although each weight's gradient changes others'."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        super().update_step(gradient - ops.mean(gradient, axis=0, keepdims=True), variable, learning_rate)


class WithoutConfiguration(ko.SGD):  # type: ignore[misc]
    def __init__(self, rate: float) -> None:
        super().__init__(rate, 0.9)


@checks("V3", "V4")
@pytest.mark.parametrize("options", [{}, {"start": 0.0}, {"start": 0.0, "every": 10}], ids=str)
def test_matrices_of_square_layers_are_left_alone(options: dict[str, Any]) -> None:
    model = square_model()
    optimizer = sparsify(Shampoo(**options), rigl(end=90, every=4, begin=1), model=model)
    variables = model.trainable_variables
    inner = optimizer.inner_optimizer
    for step in range(15):
        before = [matrix.numpy() for matrix in inner.matrices]
        optimizer.apply(make_gradients(variables, step), variables)
        after = [matrix.numpy() for matrix in inner.matrices]
        if step % 4 == 1:
            for mine, its in zip(after, before, strict=True):
                np.testing.assert_array_equal(mine, its)
        momentums = {v.path: [v.numpy(), m.numpy()] for v, m in zip(variables, inner.momentums, strict=True)}
        assert_zero_outside(momentums, optimizer.masks)
    assert inner.matrices[0].numpy()[~optimizer.masks["net/fc1/kernel"]].any()


class ByName(ko.SGD):  # type: ignore[misc]
    """Cannot be tried out on another weight."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        assert "probe" not in variable.name
        super().update_step(gradient, variable, learning_rate)


class Noisy(ko.SGD):  # type: ignore[misc]
    """Draws at random, and no two of its trainings are the same."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        super().update_step(gradient + tf.random.normal(gradient.shape), variable, learning_rate)


OWN: list[Callable[[], ko.Optimizer]] = [
    lambda: Centered(0.1, 0.9),
    lambda: WithoutConfiguration(0.1),
    lambda: ByName(0.1, 0.9),
    lambda: Noisy(0.1, 0.9),
]


@checks("V3")
@pytest.mark.parametrize("make", OWN, ids=["centered", "no configuration", "by name", "noisy"])
def test_state_for_each_weight_of_optimizers_of_ones_own(make: Callable[[], ko.Optimizer]) -> None:
    """Also of those that cannot be tried out: then names decide."""
    model = square_model()
    optimizer = sparsify(make(), rigl(end=90, every=2, begin=1), model=model)
    for step in range(6):
        optimizer.apply(make_gradients(model.trainable_variables, step), model.trainable_variables)
        arrays = layer_arrays(optimizer, model.trainable_variables)
        assert len(arrays["net/fc1/kernel"]) == 2
        assert_zero_outside(arrays, optimizer.masks)


@checks("V1", "V3")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", [lambda: ko.Ftrl(0.1), lambda: ko.Adagrad(0.1)], ids=["ftrl", "adagrad"])
def test_compiled_steps_give_new_weights_fresh_state(make: Callable[[], ko.Optimizer], mode: str) -> None:
    model = make_model()
    optimizer = sparsify(make(), rigl(end=90, every=2, begin=1), model=model)
    variables = model.trainable_variables
    apply = compiled(lambda grads: optimizer.apply(grads, variables), mode)
    fresh = (0.0, 0.1, 0.0)[: len(layer_arrays(optimizer, variables)["net/fc1/kernel"])]
    for step in range(6):
        old = optimizer.masks
        apply(make_gradients(variables, step))
        arrays = layer_arrays(optimizer, variables)
        assert_zero_outside(arrays, optimizer.masks, fresh)
        assert all(np.isfinite(array).all() for own in arrays.values() for array in own)
        if step % 2 == 1:
            grown = {name: ~(mask & ~old[name]) for name, mask in optimizer.masks.items()}
            assert_zero_outside(arrays, grown, fresh)


@checks("V1")
def test_state_that_begins_as_the_weight_does() -> None:
    """Schedule-free AdamW holds a second copy of the weights: a weight that is grown with a value begins so in both."""
    model = make_model()
    schedule = UpdateSchedule(end=90, every=2, begin=1)
    recipe: Recipe = RigL(0.7, schedule=schedule, grown=SmallRandom(0.1))
    optimizer = sparsify(ko.ScheduleFreeAdamW(0.01), recipe, model=model)
    variables = model.trainable_variables
    for step in range(6):
        old = optimizer.masks
        optimizer.apply(make_gradients(variables, step), variables)
        weight, copy, velocity = layer_arrays(optimizer, variables)["net/fc1/kernel"]
        grown = optimizer.masks["net/fc1/kernel"] & ~old["net/fc1/kernel"]
        assert grown.any() == (step % 2 == 1)
        assert (weight[grown] != 0).all()
        np.testing.assert_array_equal(copy[grown], weight[grown])
        assert not velocity[grown].any()
        assert_zero_outside({"it": [weight, copy, velocity]}, {"it": optimizer.masks["net/fc1/kernel"]})


@checks("V3")
@pytest.mark.parametrize(
    "make", [lambda: ko.Adagrad(0.1), lambda: ko.Ftrl(keras.optimizers.schedules.CosineDecay(0.1, 9))]
)
def test_an_optimizer_that_has_trained_before(make: Callable[[], ko.Optimizer]) -> None:
    """Its accumulators no longer tell what they began with; one of the same configuration does."""
    model, inner = make_model(), make()
    for step in range(3):
        inner.apply(make_gradients(model.trainable_variables, step), model.trainable_variables)
    optimizer = sparsify(inner, rigl(), model=model)
    arrays = layer_arrays(optimizer, model.trainable_variables)
    assert_zero_outside(arrays, optimizer.masks, (0.0, 0.1, 0.0)[: len(arrays["net/fc1/kernel"])])


class Random(ko.SGD):  # type: ignore[misc]
    def build(self, variables: Any) -> None:
        super().build(variables)
        for momentum in self.momentums:
            momentum.assign(np.random.default_rng(0).normal(size=momentum.shape))


@checks("P3")
def test_what_cannot_be_told_is_refused() -> None:
    model = make_model()
    before = values(model)
    with pytest.raises(ValueError, match=r"optimizer starts 'net_fc1_kernel_momentum' with another number for each"):
        sparsify(Random(0.1, 0.9), rigl(), model=model)
    inner = WithoutConfiguration(0.1)
    inner.apply(make_gradients(model.trainable_variables, 0), model.trainable_variables)
    before = values(model)
    with pytest.raises(ValueError, match="optimizer has made steps already, and its configuration does not make a new"):
        sparsify(inner, rigl(), model=model)
    for mine, its in zip(values(model), before, strict=True):
        np.testing.assert_array_equal(mine, its)


def test_the_optimizer_that_is_probed_stays_as_it_is() -> None:
    model, inner = square_model(), Shampoo()
    inner.build(model.trainable_variables)
    before = values(model, inner)
    found = per_weight_state(inner, model.trainable_variables, [0])
    assert [one.variable.name for one in found[0]] == ["net_fc1_kernel_momentum"]
    for mine, its in zip(values(model, inner), before, strict=True):
        np.testing.assert_array_equal(mine, its)
    assert tf.executing_eagerly()
