"""Trainings in ``fit()`` with Keras on the backend that KERAS_BACKEND names.

What went wrong is printed, by case, as JSON. The command line names the cases; without, all are run.
"""

from __future__ import annotations

import json
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from keras import ops

import rigl_backends.numpy
from rigl_backends.keras import plan, sparsify
from rigl_backends.keras_common.state import state_of
from rigl_backends.numpy import SGD
from rigl_core import SET, SNFS, Constant, GradualPruning, Recipe, RigL, Static, UpdateSchedule

Arrays = dict[str, npt.NDArray[Any]]

SCHEDULE = UpdateSchedule(begin=1, end=10, every=3)
STEPS = 9
RIGL = RigL(0.8, schedule=SCHEDULE, drop_fraction=Constant(0.3), seed=3)
RECIPES: dict[str, Recipe] = {
    "RigL": RIGL,
    "SET": SET(0.8, schedule=SCHEDULE, seed=3),
    "a ramp": GradualPruning(0.8, schedule=SCHEDULE),
    "Static": Static(0.8, seed=3),
}
RNG = np.random.default_rng(0)
X, Y = (RNG.integers(-8, 9, (2 * STEPS, size)).astype(np.float32) / 8 for size in (20, 25))
KERNELS = [np.round(RNG.normal(size=(20, size)) * 64).astype(np.float32) / 64 for size in (15, 10)]
NAMES = ["one/kernel", "two/kernel"]


def make_model() -> keras.Model:
    """Two layers side by side, so that gradients are sums of few exact products."""
    inputs = keras.Input((20,))
    layers = [keras.layers.Dense(kernel.shape[1], use_bias=False) for kernel in KERNELS]
    for layer, name in zip(layers, ("one", "two"), strict=True):
        layer.name = name
    model = keras.Model(inputs, keras.layers.Concatenate()([layer(inputs) for layer in layers]), name="net")
    model.set_weights(KERNELS)
    return model


def loss(y_true: Any, y_pred: Any) -> Any:
    return ops.sum(y_true * y_pred, axis=-1)


def sgd() -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(2**-4, momentum=0.5)


def arrays_of(model: keras.Model) -> list[Any]:
    return [ops.convert_to_numpy(variable) for variable in (*model.variables, *model.optimizer.variables)]


class Trace(keras.callbacks.Callback):  # type: ignore[misc]
    """Masks and weights after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Arrays, list[Any]]] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        optimizer = self.model.optimizer
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            optimizer = optimizer.inner_optimizer
        self.seen.append((optimizer.masks, self.model.get_weights()))


def fit(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, first: int = 0, stop: int = STEPS, **how: Any
) -> Any:
    model.compile(optimizer, loss, **how)
    trace = Trace()
    part = slice(2 * first, 2 * stop)
    model.fit(X[part], Y[part], batch_size=2, shuffle=False, verbose=0, callbacks=[trace])
    return trace.seen


def in_numpy(recipe: Recipe) -> list[tuple[Arrays, list[Any]]]:
    """The same training in NumPy."""
    params = dict(zip(NAMES, (kernel.copy() for kernel in KERNELS), strict=True))
    layers = plan(make_model(), recipe).layers
    params = {layer.name: param for layer, param in zip(layers, params.values(), strict=True)}
    optimizer = SGD(params, lr=2**-4, momentum=0.5)
    sparse = rigl_backends.numpy.sparsify(params, optimizer, recipe, layers=layers)
    seen = []
    for step in range(STEPS):
        x, y = X[2 * step : 2 * step + 2], Y[2 * step : 2 * step + 2]
        gradient = x.T @ y / 2
        optimizer.step(dict(zip(params, np.split(gradient, [15], axis=1), strict=True)))
        seen.append((sparse.masks, [param.copy() for param in params.values()]))
    return seen


def assert_same(first: list[tuple[Arrays, list[Any]]], second: list[tuple[Arrays, list[Any]]]) -> None:
    assert len(first) == len(second)
    for (masks, weights), (other_masks, other_weights) in zip(first, second, strict=True):
        for name, mask in masks.items():
            np.testing.assert_array_equal(mask, other_masks[name])
        for weight, other in zip(weights, other_weights, strict=True):
            assert weight.tobytes() == other.tobytes()


def as_in_numpy(method: str, **how: Any) -> Callable[[], None]:
    """A case: masks and weights after every step, bit for bit."""

    def case() -> None:
        model, recipe = make_model(), RECIPES[method]
        seen = fit(model, sparsify(sgd(), recipe, model=model), **how)
        assert_same(seen, in_numpy(recipe))
        moved = any((seen[0][0][name] != mask).any() for name, mask in seen[-1][0].items())
        assert moved == (recipe.schedule is not None)

    return case


def scaled_losses() -> None:
    """A LossScaleOptimizer outside passes its steps on."""
    model = make_model()
    scaled = keras.optimizers.LossScaleOptimizer(sparsify(sgd(), RIGL, model=model), initial_scale=8.0)
    assert_same(fit(model, scaled), in_numpy(RIGL))


def zeros_of_adam() -> None:
    """Weights and their state are fresh outside the masks, also under an optimizer that moves zeros."""
    for inner in (keras.optimizers.Adam(0.05), keras.optimizers.Adagrad(0.05, clipnorm=1.0)):
        model = make_model()
        optimizer = sparsify(inner, RIGL, model=model)
        fit(model, optimizer, stop=6, run_eagerly=True)
        fresh = 0.1 if isinstance(inner, keras.optimizers.Adagrad) else 0.0
        for kernel, mask in zip(model.trainable_variables, optimizer.masks.values(), strict=True):
            (state,) = state_of(inner, [kernel])
            assert len(state) == (1 if fresh else 2)
            for values, outside in [(kernel, 0.0), *((one, fresh) for one in state)]:
                assert (ops.convert_to_numpy(values)[~mask] == np.float32(outside)).all()


def saved() -> None:
    """A model that is saved and loaded goes on as if it had not stopped, and not under another recipe."""
    model, folder = make_model(), Path(tempfile.mkdtemp())
    fit(model, sparsify(sgd(), RIGL, model=model), stop=4)
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    loaded = keras.models.load_model(folder / "model.keras", custom_objects={"loss": loss})
    again = make_model()
    again.compile(sparsify(sgd(), RIGL, model=again), loss)
    again.load_weights(folder / "model.weights.h5")
    goes_on = fit(model, model.optimizer, first=4, run_eagerly=True)
    for other in (loaded, again):
        assert_same(fit(other, other.optimizer, first=4, run_eagerly=True), goes_on)
        for own, its in zip(arrays_of(model), arrays_of(other), strict=True):
            np.testing.assert_array_equal(own, its)
    other = make_model()
    other.compile(sparsify(sgd(), RECIPES["SET"], model=other), loss)
    before = [ops.convert_to_numpy(variable) for variable in other.optimizer.variables]
    with pytest.raises(ValueError, match="state was saved under another recipe"):
        other.load_weights(folder / "model.weights.h5")
    for own, variable in zip(before, other.optimizer.variables, strict=True):
        np.testing.assert_array_equal(own, ops.convert_to_numpy(variable))


def a_nan() -> None:
    """An update waits for finite gradients."""
    model = make_model()
    optimizer = sparsify(sgd(), RIGL, model=model)
    first = optimizer.masks
    for step, bad in enumerate((False, True, False)):
        grads = [np.full(kernel.shape, np.nan if bad else 1.0, np.float32) for kernel in KERNELS]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.apply([ops.convert_to_tensor(grad) for grad in grads], model.trainable_variables)
            moved = any((first[name] != mask).any() for name, mask in optimizer.masks.items())
        assert moved == (step == 2)


def written_outside() -> None:
    """Weights that lie outside the masks are told and zeroed."""
    model = make_model()
    optimizer = sparsify(sgd(), RIGL, model=model)
    model.set_weights(KERNELS)
    with pytest.warns(match="outside"):
        assert optimizer.masks
    fit(model, optimizer, stop=1, run_eagerly=True)
    for kernel, mask in zip(model.get_weights(), optimizer.masks.values(), strict=True):
        assert not kernel[~mask].any()


def refused() -> None:
    """What is not offered names the parameter and says what to do, and changes nothing."""
    model = make_model()
    wrong: list[tuple[Any, Recipe, str]] = [
        (sgd(), SNFS(0.8, schedule=SCHEDULE), "recipe needs memory"),
        (keras.optimizers.SGD(gradient_accumulation_steps=2), RIGL, "optimizer has gradient_accumulation_steps"),
        (keras.optimizers.SGD(use_ema=True), RIGL, "optimizer has use_ema"),
        (type("Own", (keras.optimizers.SGD,), {"__module__": "own"})(), RIGL, "optimizer is a Own"),
        (keras.optimizers.LossScaleOptimizer(sgd()), RIGL, "optimizer is a LossScaleOptimizer"),
        (sparsify(sgd(), RIGL), RIGL, "optimizer is already sparsified"),
        ("adam", RIGL, "optimizer is a str"),
    ]
    for optimizer, recipe, message in wrong:
        with pytest.raises((TypeError, ValueError), match=message):
            sparsify(optimizer, recipe, model=model)
    for kernel, own in zip(model.get_weights(), KERNELS, strict=True):
        np.testing.assert_array_equal(kernel, own)


CASES: dict[str, Callable[[], None]] = {
    **{method: as_in_numpy(method) for method in RECIPES},
    "eager": as_in_numpy("RigL", run_eagerly=True),
    "scaled losses": scaled_losses,
    "zeros": zeros_of_adam,
    "saved": saved,
    "a NaN": a_nan,
    "written outside": written_outside,
    "refused": refused,
}


def main() -> None:
    """Run the cases."""
    wrong = {}
    for name in sys.argv[1:] or CASES:
        try:
            CASES[name]()
        except BaseException:
            wrong[name] = traceback.format_exc()
    print(json.dumps({"backend": keras.backend.backend(), "wrong": wrong}))


if __name__ == "__main__":
    main()
