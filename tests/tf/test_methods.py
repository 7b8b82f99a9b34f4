"""Methods other than RigL, with the features of Keras: accumulation, clipping, fit(), loss scaling."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import optimizers as ko

from rigl_backends.tf import SparseOptimizer, sparsify
from rigl_core import (
    DNS,
    DNW,
    DSR,
    SNFS,
    SNIP,
    Connections,
    Constant,
    DeepR,
    LotteryTicket,
    Recipe,
    SETAsPublished,
    UpdateSchedule,
)
from rigl_core.adapter import GRADIENT_NOISE, numpy_namespace, random_key
from rigl_core.arrays.noise import noisy_gradient
from tests.tf.helpers import (
    LOSS,
    MODES,
    assert_same,
    assert_zero_outside,
    compiled,
    layer_arrays,
    make_data,
    make_gradients,
    make_model,
    traces,
    values,
)

# Keras 3.15 reads its variables with NumPy 2's np.array, which still asks in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

OFTEN = UpdateSchedule(end=20, every=2)
REMEMBERING: dict[str, Recipe] = {
    "momentum": SNFS(0.7, schedule=OFTEN),
    "shadow": DNW(0.7, schedule=OFTEN),
    "noise": DeepR(0.7, schedule=OFTEN, l1=0.01, noise=0.1),
}


def remembered(optimizer: SparseOptimizer) -> list[Any]:
    """The arrays of the methods' memory."""
    assert optimizer._training is not None
    return [array.numpy() for layer in optimizer._training.layers.values() for array in layer.memory.values()]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", REMEMBERING)
def test_accumulated_calls_are_one_with_their_mean(method: str, mode: str) -> None:
    """Three calls make one step, with the masks and memory of one call: dense gradients add up, noise comes once."""
    models = [make_model() for _ in range(2)]
    inners = [ko.SGD(0.05, 0.9), ko.SGD(0.05, 0.9, gradient_accumulation_steps=3)]
    whole, parts = (
        sparsify(inner, REMEMBERING[method], model=model) for inner, model in zip(inners, models, strict=True)
    )
    variables = models[1].trainable_variables
    apply = compiled(lambda grads: parts.apply(grads, variables), mode)
    for step in range(6):
        calls = [make_gradients(variables, 3 * step + call) for call in range(3)]
        for gradients in calls:
            apply(gradients)
        whole.apply([tf.add_n(gradients) / 3 for gradients in zip(*calls, strict=True)])
        assert parts.step == whole.step == step + 1
        for name, mask in whole.masks.items():
            np.testing.assert_array_equal(parts.masks[name], mask)
        for mine, its in zip(
            [*values(models[1]), *remembered(parts)], [*values(models[0]), *remembered(whole)], strict=True
        ):
            np.testing.assert_allclose(mine, its, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_noise_is_added_after_clipping(mode: str) -> None:
    """The optimizer gets the clipped gradient of the active weights, plus the L1 term and the noise of this step."""
    model = make_model()
    recipe = DeepR(0.7, schedule=UpdateSchedule(end=90, every=90, begin=89), l1=0.5, noise=2.0)
    optimizer = sparsify(ko.SGD(1.0, global_clipnorm=0.01), recipe, model=model)
    variables = model.trainable_variables
    apply = compiled(lambda grads: optimizer.apply(grads, variables), mode)
    for step in range(2):
        kernel, mask = variables[0].numpy(), optimizer.masks["net/fc1/kernel"]
        gradients = make_gradients(variables, step)
        masked = [
            tf.where(optimizer.masks.get(v.path, np.True_), g, 0.0) for v, g in zip(variables, gradients, strict=True)
        ]
        clipped, _ = tf.clip_by_global_norm(masked, 0.01)
        flat = Connections(
            kernel.reshape(-1),
            clipped[0].numpy().reshape(-1),
            np.arange(kernel.size, dtype=np.int32),
            random_key(recipe.seed, "net/fc1/kernel", GRADIENT_NOISE),
        )
        noisy = noisy_gradient(flat, 0.5, 2.0, step, xp=numpy_namespace).reshape(kernel.shape)
        apply(gradients)
        np.testing.assert_allclose(variables[0].numpy(), np.where(mask, kernel - noisy, 0), rtol=1e-5, atol=1e-5)
    assert "update_step" not in vars(optimizer.inner_optimizer)


def test_noise_in_each_of_several_optimizers() -> None:
    model = make_model()
    inner = ko.MultiOptimizer(ko.OptimizerMap(ko.SGD(1.0), {".*fc1.*": ko.SGD(1.0)}))
    optimizer = sparsify(inner, REMEMBERING["noise"], model=model)
    before = [variable.numpy() for variable in model.trainable_variables]
    optimizer.apply([tf.zeros_like(variable) for variable in model.trainable_variables])
    for old, variable in zip(before, model.trainable_variables, strict=True):
        assert (old != variable.numpy()).any() == (variable.path in optimizer.masks)


FITTING: dict[str, Recipe] = {
    **REMEMBERING,
    "global": DSR(0.7, schedule=OFTEN, drop_fraction=Constant(0.4)),
    "by sign": SETAsPublished(0.7, schedule=OFTEN),
    "once": SNIP(0.7),
    "ramp with shadows": DNS(0.7, schedule=OFTEN),
}


@pytest.mark.parametrize(
    ("method", "jit_compile"),
    [
        *((method, False) for method in FITTING),
        *((method, True) for method in ("momentum", "once", "ramp with shadows")),
    ],
)
def test_fit(method: str, jit_compile: bool) -> None:
    """Keras's loop keeps planned counts and zeros outside the masks. Its masks are nearly those of an eager loop."""
    x, y = make_data()
    model, own = make_model(), make_model()
    optimizer = sparsify(ko.Adam(0.01), FITTING[method], model=model)
    model.compile(optimizer, LOSS, jit_compile=jit_compile)
    initial = optimizer.masks
    model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
    assert optimizer.step == 8
    assert any((mask != initial[name]).any() for name, mask in optimizer.masks.items())
    for pool in optimizer.plan.pools:
        active = sum(int(optimizer.masks[optimizer.plan.layers[i].name].sum()) for i in pool)
        assert active in optimizer.plan.possible_counts(pool)
    for variable in model.trainable_variables:
        if variable.path in optimizer.masks:
            assert not variable.numpy()[~optimizer.masks[variable.path]].any()
    expected = sparsify(ko.Adam(0.01), FITTING[method], model=own)
    for inputs, labels in zip(np.split(x, 8), np.split(y, 8), strict=True):
        with tf.GradientTape() as tape:
            loss = LOSS(labels, own(inputs, training=True))
        expected.apply(tape.gradient(loss, own.trainable_variables), own.trainable_variables)
    total, same = 0, 0
    for name, mask in expected.masks.items():
        total, same = total + mask.size, same + int((mask == optimizer.masks[name]).sum())
    assert same >= 0.95 * total  # compiled models round otherwise, and close calls may fall otherwise


@pytest.mark.parametrize("method", ["momentum", "shadow"])
@pytest.mark.parametrize("mode", MODES)
def test_a_skipped_step_of_a_loss_scale_optimizer_is_not_remembered(method: str, mode: str) -> None:
    model, twin = make_model(), make_model()
    plain = sparsify(ko.Adam(0.01), REMEMBERING[method], model=twin)
    sparse = sparsify(ko.Adam(0.01), REMEMBERING[method], model=model)
    scaler = ko.LossScaleOptimizer(sparse, initial_scale=2.0**10)
    variables = model.trainable_variables
    scaler.build(variables)
    apply = compiled(lambda grads: scaler.apply(grads, variables), mode)
    for number in range(6):
        gradients = make_gradients(variables, number)
        scaled = [scaler.scale_loss(gradient) for gradient in gradients]
        if number == 3:
            scaled[0] += np.inf
        else:
            plain.apply(gradients, twin.trainable_variables)
        apply(scaled)
        for name, mask in plain.masks.items():
            np.testing.assert_array_equal(sparse.masks[name], mask)
        for mine, its in zip(remembered(sparse), remembered(plain), strict=True):
            np.testing.assert_allclose(mine, its, rtol=1e-4, atol=1e-6)


def test_shadow_weights_are_those_of_the_dense_optimizer() -> None:
    """All weights and all state follow the dense optimizer; the model has zeros outside the mask."""
    model, twin = make_model(), make_model()
    optimizer = sparsify(ko.Adam(0.01, clipnorm=1.0), DNW(0.7, schedule=OFTEN), model=model)
    plain = ko.Adam(0.01, clipnorm=1.0)
    plain.build(twin.trainable_variables)
    for step in range(5):
        gradients = make_gradients(model.trainable_variables, step)
        optimizer.apply(gradients)
        plain.apply(gradients, twin.trainable_variables)
        assert_same(values(optimizer.inner_optimizer), values(plain))
        assert optimizer._training is not None
        for layer in optimizer._training.layers.values():
            mask = optimizer.masks[layer.layer.name]
            whole = next(variable.numpy() for variable in twin.trainable_variables if variable.path == layer.layer.name)
            np.testing.assert_array_equal(layer.variable.numpy(), np.where(mask, whole, 0))
            np.testing.assert_array_equal(layer.memory["shadow"].numpy().reshape(mask.shape), np.where(mask, 0, whole))


@pytest.mark.parametrize("inner", [ko.SGD(use_ema=True), ko.MultiOptimizer(ko.OptimizerMap(ko.SGD(use_ema=True)))])
def test_a_moving_average_of_shadow_weights_is_refused(inner: Any) -> None:
    model = make_model()
    before = values(model)
    with pytest.raises(ValueError, match=r"optimizer averages weights \(use_ema\)"):
        sparsify(inner, DNW(0.7, schedule=OFTEN), model=model)
    assert_same(values(model), before)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_memory_of_half_precision_weights(dtype: str) -> None:
    """The momentum is float32; all other memory has the weights' precision."""
    for recipe, expected in ((SNFS(0.7, schedule=OFTEN), "float32"), (DNW(0.7, schedule=OFTEN), dtype)):
        model = make_model(dtype)
        optimizer = sparsify(ko.SGD(0.1, 0.9), recipe, model=model)
        for step in range(4):
            optimizer.apply(make_gradients(model.trainable_variables, step))
        assert {array.dtype.name for array in remembered(optimizer)} == {expected}
        assert sum(int(mask.sum()) for mask in optimizer.masks.values()) == sum(optimizer.plan.active)


def test_a_layer_that_is_not_used_stays_among_others() -> None:
    """Layers choose together: an unused layer keeps its topology (T6), and the others move their share."""
    model = make_model()
    recipe = Recipe(0.7, schedule=UpdateSchedule(end=20, every=1), drop_fraction=Constant(0.4), scope="global")
    optimizer = sparsify(ko.SGD(0.1), recipe, model=model)
    before = optimizer.masks
    optimizer.apply([None, *make_gradients(model.trainable_variables, 0)[1:]], model.trainable_variables)
    after = optimizer.masks
    np.testing.assert_array_equal(after["net/fc1/kernel"], before["net/fc1/kernel"])
    assert any((after[name] != before[name]).any() for name in after)
    assert sum(int(mask.sum()) for mask in after.values()) == sum(optimizer.plan.active)


def test_ordinary_steps_are_traced_once() -> None:
    model = make_model()
    optimizer = sparsify(ko.Adam(0.01), SNFS(0.7, schedule=OFTEN), model=model)
    step = compiled(lambda grads: optimizer.apply(grads, model.trainable_variables), "function")
    for number in range(5):
        step(make_gradients(model.trainable_variables, number))
    assert traces(step) == 1


def scores_of(model: keras.Model) -> dict[str, Any]:
    rng = np.random.default_rng(4)
    kernels = [variable for variable in model.trainable_variables if len(variable.shape) == 2]
    return {kernel.path: rng.normal(size=kernel.shape) for kernel in kernels}


@pytest.mark.parametrize("with_model", [False, True])
def test_given_scores_choose_the_topology(with_model: bool) -> None:
    """Scores may be NumPy arrays or tensors, of any precision."""
    model = make_model()
    scores = scores_of(model)
    scores["net/fc2/kernel"] = tf.constant(scores["net/fc2/kernel"])
    optimizer = sparsify(ko.SGD(), LotteryTicket(0.5), model=model if with_model else None, scores=scores)
    optimizer.build(model.trainable_variables)
    ordered = np.sort(np.concatenate([np.ravel(array) for array in scores.values()]))
    least = ordered[-sum(optimizer.plan.active)]
    for name, mask in optimizer.masks.items():
        np.testing.assert_array_equal(mask, np.array(scores[name]) >= least)
    assert_zero_outside(layer_arrays(optimizer, model.trainable_variables), optimizer.masks)


WRONG_SCORES: dict[str, tuple[Recipe, Any, str]] = {
    "none": (LotteryTicket(0.5), None, "scores is NoneType: the recipe asks for arrays by layer name"),
    "list": (LotteryTicket(0.5), [1.0], "scores is list: the recipe asks for arrays by layer name"),
    "missing": (LotteryTicket(0.5), {}, "scores has none for layer 'net/fc1/kernel'"),
    "shape": (
        LotteryTicket(0.5),
        {"net/fc1/kernel": np.ones(3)},
        r"scores of layer 'net/fc1/kernel' have the shape \(3,\)",
    ),
    "not asked": (SNIP(0.5), {}, "scores are given, and the recipe starts from 'random'"),
}


@pytest.mark.parametrize("case", WRONG_SCORES)
def test_scores_that_do_not_fit_are_refused(case: str) -> None:
    recipe, scores, message = WRONG_SCORES[case]
    model = make_model()
    before, inner = values(model), ko.SGD()
    with pytest.raises((TypeError, ValueError), match=message):
        sparsify(inner, recipe, model=model, scores=scores)
    assert_same(values(model), before)
    assert not inner.built
