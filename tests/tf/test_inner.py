"""Every optimizer of Keras as the inner one, with the options that all Keras optimizers have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import optimizers as ko

from rigl_backends.tf import sparsify
from rigl_core import SET, Constant, UpdateSchedule
from tests.tf.helpers import (
    MODES,
    assert_same,
    assert_updated,
    assert_zero_outside,
    compiled,
    layer_arrays,
    make_gradients,
    make_model,
    rigl,
    values,
)

INNERS: dict[str, tuple[Callable[[], ko.Optimizer], tuple[float, ...]]] = {
    "sgd": (lambda: ko.SGD(0.05), ()),
    "nesterov": (lambda: ko.SGD(0.05, 0.9, nesterov=True, weight_decay=0.1), (0.0,)),
    "adam": (lambda: ko.Adam(0.01, amsgrad=True), (0.0, 0.0, 0.0)),
    "adamw": (lambda: ko.AdamW(0.01, weight_decay=0.1, use_ema=True), (0.0, 0.0, 0.0)),
    "rmsprop": (lambda: ko.RMSprop(0.01, momentum=0.9, centered=True), (0.0, 0.0, 0.0)),
    "adagrad": (lambda: ko.Adagrad(0.05), (0.1,)),
    "adagrad, averaged": (lambda: ko.Adagrad(0.05, 0.3, use_ema=True), (0.0, 0.3)),
    "adadelta": (lambda: ko.Adadelta(0.5), (0.0, 0.0)),
    "adamax": (lambda: ko.Adamax(0.01), (0.0, 0.0)),
    "nadam": (lambda: ko.Nadam(0.01), (0.0, 0.0)),
    "ftrl": (lambda: ko.Ftrl(0.05), (0.1, 0.0)),
    "lamb": (lambda: ko.Lamb(0.01), (0.0, 0.0)),
    "lion": (lambda: ko.Lion(0.01), (0.0,)),
    "adafactor": (lambda: ko.Adafactor(0.05), (0.0,)),
    "muon": (lambda: ko.Muon(0.01), (0.0,)),
    "schedule-free": (lambda: ko.ScheduleFreeAdamW(0.01, warmup_steps=3), (0.0, 0.0)),
    "multi": (lambda: ko.MultiOptimizer(ko.OptimizerMap(ko.Adam(0.01), {".*fc1.*": ko.Lion(0.01)})), (0.0,)),
}
"""Each optimizer, with what its state for a new weight of the first layer is."""


@pytest.mark.parametrize("name", INNERS)
def test_zeros_outside_the_mask_and_survivors_bit_for_bit(name: str) -> None:
    """The state of a weight outside the mask, and of a newly active one, is what the optimizer gives a new weight."""
    make, state = INNERS[name]
    fresh = (0.0, *state) if any(state) else None
    model = make_model()
    optimizer = sparsify(make(), rigl(end=30, every=4, begin=2), model=model)
    variables = model.trainable_variables
    assert len(layer_arrays(optimizer, variables)["net/fc1/kernel"]) == 1 + len(state)
    assert_zero_outside(layer_arrays(optimizer, variables), optimizer.masks, fresh)
    for step in range(12):
        before, old = layer_arrays(optimizer, variables), optimizer.masks
        optimizer.apply(make_gradients(variables, step), variables)
        after, new = layer_arrays(optimizer, variables), optimizer.masks
        assert_zero_outside(after, new, fresh)
        if step % 4 == 2:
            assert_updated(before, after, old, new, fresh)
        else:
            assert (after["net/fc1/bias"][0] != before["net/fc1/bias"][0]).all()
        assert all(np.isfinite(array).all() for arrays in after.values() for array in arrays)


class OwnSGD(ko.SGD):  # type: ignore[misc]
    """A user's optimizer, which may do anything: this one centers its gradients."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        super().update_step(gradient - tf.reduce_mean(gradient), variable, learning_rate)


def clamped() -> keras.Model:
    model = make_model()
    model.get_layer("fc1").kernel.constraint = lambda weight: keras.ops.maximum(weight, 0.01)
    return model


NOT_ELEMENT_WISE: dict[str, tuple[Callable[[], ko.Optimizer], Callable[[], keras.Model], float]] = {
    "a subclass": (lambda: OwnSGD(0.1, 0.9), make_model, 1.0),
    "a norm that is not finite": (lambda: ko.SGD(0.1, 0.9, global_clipnorm=1.0), make_model, np.inf),
    "a norm of one gradient": (lambda: ko.Adam(0.1, clipnorm=1.0), make_model, np.nan),
    "no epsilon": (lambda: ko.Adam(0.1, epsilon=0.0), make_model, 1.0),
    "an epsilon that is none in half precision": (lambda: ko.RMSprop(0.1), lambda: make_model("float16"), 1.0),
    "a constraint": (lambda: ko.SGD(0.1), clamped, 1.0),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", NOT_ELEMENT_WISE)
def test_what_would_spoil_zeros_is_projected(case: str, mode: str) -> None:
    """After ordinary steps there are zeros outside the mask, whatever the optimizer does with active weights."""
    make, make_own, factor = NOT_ELEMENT_WISE[case]
    model = make_own()
    optimizer = sparsify(make(), rigl(end=90, every=90, begin=89), model=model)
    variables = model.trainable_variables
    apply = compiled(lambda grads: optimizer.apply(grads, variables), mode)
    for step in range(2):
        gradients = make_gradients(variables, step)
        spoiled = np.where(optimizer.masks["net/fc1/kernel"], factor, 1.0)
        gradients[0] = gradients[0] * tf.cast(spoiled, gradients[0].dtype)
        apply(gradients)
        assert_zero_outside(layer_arrays(optimizer, variables), optimizer.masks)


OPTIONS: dict[str, dict[str, Any]] = {
    "clipnorm": {"clipnorm": 0.5},
    "global_clipnorm": {"global_clipnorm": 0.5},
    "clipvalue": {"clipvalue": 0.2},
    "weight_decay": {"weight_decay": 0.1},
    "use_ema": {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 3},
    "loss_scale_factor": {"loss_scale_factor": 8.0},
    "gradient_accumulation_steps": {"gradient_accumulation_steps": 3, "global_clipnorm": 0.5},
}


@pytest.mark.parametrize(
    ("name", "mode"),
    [*((name, "eager") for name in OPTIONS), ("use_ema", "xla"), ("gradient_accumulation_steps", "xla")],
)
def test_ordinary_steps_are_the_inner_optimizers_on_the_sparse_gradient(name: str, mode: str) -> None:
    """Weights and all state are those of the bare optimizer with masked gradients."""
    model, twin = make_model(), make_model()
    inner = ko.Adam(0.01, **OPTIONS[name])
    optimizer = sparsify(inner, rigl(end=100, every=100, begin=99), model=model)
    plain = ko.Adam(0.01, **OPTIONS[name])
    plain.build(twin.trainable_variables)
    for mine, its in zip(model.variables, twin.variables, strict=True):
        its.assign(mine)
    masks = [optimizer.masks.get(variable.path, np.True_) for variable in model.trainable_variables]
    apply = compiled(lambda grads: optimizer.apply(grads, model.trainable_variables), mode)
    apply_plain = compiled(lambda grads: plain.apply(grads, twin.trainable_variables), mode)
    for step in range(9):
        gradients = make_gradients(model.trainable_variables, step)
        apply(gradients)
        apply_plain([tf.where(mask, gradient, 0.0) for mask, gradient in zip(masks, gradients, strict=True)])
        for mine, its in zip(values(model, inner), values(twin, plain), strict=True):
            np.testing.assert_allclose(mine, its, rtol=1e-5, atol=1e-7)
    assert optimizer.step == 9 // inner_calls(inner)


def inner_calls(inner: ko.Optimizer) -> int:
    return inner.gradient_accumulation_steps or 1


@pytest.mark.parametrize("mode", MODES)
def test_updates_read_the_accumulated_gradient(mode: str) -> None:
    """Three calls make one step. It gives the masks of one call with their mean, and the weights within rounding."""
    options: dict[str, Any] = {"use_ema": True}
    models = [make_model() for _ in range(2)]
    whole = sparsify(ko.SGD(0.05, 0.9, **options), rigl(end=20, every=2), model=models[0])
    inner = ko.SGD(0.05, 0.9, gradient_accumulation_steps=3, **options)
    parts = sparsify(inner, rigl(end=20, every=2), model=models[1])
    variables = models[1].trainable_variables
    apply = compiled(lambda grads: parts.apply(grads, variables), mode)
    for step in range(12):
        calls = [make_gradients(variables, 3 * step + call) for call in range(3)]
        if step in (2, 5):  # defers an update, and spoils an ordinary step where nothing is active
            outside = ~parts.masks["net/fc1/kernel"]
            calls[0][0] = tf.where(outside, np.float32(np.inf), calls[0][0])
        before, moves = values(models[1], inner), (step % 2 == 0 and step != 2) or step == 3
        for gradients in calls:
            apply(gradients)
        whole.apply([tf.add_n(gradients) / 3 for gradients in zip(*calls, strict=True)])
        assert parts.step == whole.step == step + 1
        assert int(inner.iterations) == int(whole.iterations)
        for name, mask in whole.masks.items():
            np.testing.assert_array_equal(parts.masks[name], mask)
        for mine, its in zip(values(models[1]), values(models[0]), strict=True):
            np.testing.assert_allclose(mine, its, rtol=1e-4, atol=1e-6)
        if moves:  # nothing that belongs to no layer has changed: iterations, biases, their state
            masked = [np.shape(mask) for mask in parts.masks.values()]
            after = values(models[1], inner)
            assert_same(*([x for x in arrays if x.shape not in masked] for arrays in (before, after)))
        for total in inner._accumulated_gradients:
            assert not total.numpy().any()


@pytest.mark.parametrize("mode", MODES)
def test_calls_that_accumulate_for_an_update_touch_no_weight(mode: str) -> None:
    model = make_model()
    inner = ko.Adam(0.01, use_ema=True, gradient_accumulation_steps=3)
    optimizer = sparsify(inner, rigl(end=4, every=4), model=model)
    apply = compiled(lambda grads: optimizer.apply(grads, model.trainable_variables), mode)
    before = values(model)
    averages = [x.numpy() for x in inner._model_variables_moving_average]
    for call in range(2):
        apply(make_gradients(model.trainable_variables, call))
        assert_same(values(model), before)
        assert_same([x.numpy() for x in inner._model_variables_moving_average], averages)
        assert optimizer.step == 0


def test_set_with_accumulation() -> None:
    model = make_model()
    recipe = SET(0.7, schedule=UpdateSchedule(end=9, every=2), drop_fraction=Constant(0.3))
    optimizer = sparsify(ko.Adam(0.01, gradient_accumulation_steps=2), recipe, model=model)
    for call in range(8):
        old = optimizer.masks
        optimizer.apply(make_gradients(model.trainable_variables, call))
        moved = any((old[name] != mask).any() for name, mask in optimizer.masks.items())
        assert moved == (call % 4 == 1)
        arrays = layer_arrays(optimizer, model.trainable_variables)
        assert_zero_outside(arrays, optimizer.masks)


def test_a_moving_average_is_sparse_to_the_end() -> None:
    """This holds also for an optimizer that is not element-wise: its weights are zeroed outside the masks."""
    model = make_model()
    optimizer = sparsify(ko.Muon(0.05, use_ema=True, ema_momentum=0.9), rigl(end=20, every=4), model=model)
    for step in range(10):
        optimizer.apply(make_gradients(model.trainable_variables, step))
    before = values(model)
    optimizer.finalize_variable_values(model.trainable_variables)
    assert any((a != b).any() for a, b in zip(before, values(model), strict=True))
    for variable in model.trainable_variables:
        if variable.path in optimizer.masks:
            assert not variable.numpy()[~optimizer.masks[variable.path]].any()


@pytest.mark.parametrize("mode", MODES)
def test_a_loss_scale_optimizer_outside(mode: str) -> None:
    """The outer optimizer handles overflows: it skips the step, and the topology's clock does not advance."""
    model, twin = make_model(), make_model()
    plain = sparsify(ko.Adam(0.01), rigl(end=20, every=2), model=twin)
    sparse = sparsify(ko.Adam(0.01, loss_scale_factor=4.0), rigl(end=20, every=2), model=model)
    scaler = ko.LossScaleOptimizer(sparse, initial_scale=2.0**10)
    variables = model.trainable_variables
    scaler.build(variables)
    apply = compiled(lambda grads: scaler.apply(grads, variables), mode)
    step = 0
    for number in range(12):
        gradients = make_gradients(variables, number)
        scaled = [scaler.scale_loss(gradient) for gradient in gradients]
        if number in (4, 5):
            scaled[0] += np.inf
        else:
            plain.apply(gradients, twin.trainable_variables)
            step += 1
        apply(scaled)
        assert sparse.step == step
        for name, mask in plain.masks.items():
            np.testing.assert_array_equal(sparse.masks[name], mask)
        for mine, its in zip(values(model), values(twin), strict=True):
            np.testing.assert_allclose(mine, its, rtol=1e-4, atol=1e-6)


def test_constraints_do_not_revive_weights() -> None:
    class AtLeast(keras.constraints.Constraint):  # type: ignore[misc]
        def __call__(self, w: Any) -> Any:
            return keras.ops.maximum(w, 0.25)

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(4, kernel_constraint=AtLeast(), name="fc")], name="m"
    )
    optimizer = sparsify(ko.SGD(0.1), rigl(end=20, every=3), model=model)
    for step in range(4):
        optimizer.apply(make_gradients(model.trainable_variables, step))
        kernel, mask = model.trainable_variables[0].numpy(), optimizer.masks["m/fc/kernel"]
        assert not kernel[~mask].any()
        assert step % 3 == 0 or (kernel[mask] >= 0.25).all()


def test_the_wrapper_passes_on_what_belongs_to_the_inner_optimizer() -> None:
    model = make_model()
    optimizer = sparsify(ko.AdamW(0.1, weight_decay=0.5), rigl(end=9, every=9, begin=8))
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build(model.trainable_variables)
    assert not optimizer.inner_optimizer._use_weight_decay(model.trainable_variables[1])
    optimizer.learning_rate = 0.25
    assert float(optimizer.inner_optimizer.learning_rate) == float(optimizer.learning_rate) == 0.25
    optimizer.loss_scale_factor = 4.0
    assert optimizer.scale_loss(2.0) == 8.0
    saved = [variable.numpy() for variable in optimizer.variables]
    optimizer.apply(make_gradients(model.trainable_variables, 0))
    optimizer.set_weights(saved)
    assert_same([variable.numpy() for variable in optimizer.variables], saved)
