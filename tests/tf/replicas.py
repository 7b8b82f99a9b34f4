"""Two replicas on the CPU: as two logical devices of a process, or as two processes.

The command line says which (``mirrored`` or ``workers``) and names a folder. Each case is run there; what went wrong
is printed, by case, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
import pytest
import tensorflow as tf

from rigl_backends.tf import SparseOptimizer, sparsify
from rigl_core import DNW, SNFS, Constant, DeepR, Recipe, RigL, UpdateSchedule
from tests.tf.helpers import assert_same, make_data, values

SCHEDULE = UpdateSchedule(begin=2, end=10, every=3)
STEPS = 7
"""They include the updates 0 and 1, at steps 2 and 5."""
RIGL = RigL(0.7, schedule=SCHEDULE, drop_fraction=Constant(0.3), seed=3)

SHAPES = [(12, 10), (10,), (10, 6), (6,)]

Gradients = Callable[[int, int], list[tf.Tensor]]
"""Of a step and a replica."""


def make_model() -> keras.Model:
    """Two Dense layers; the weights are multiples of 1/64."""
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(10, "relu", name="fc1"), keras.layers.Dense(6, "softmax", name="fc2")]
    model = keras.Sequential([keras.Input((12,)), *layers], name="net")
    model.set_weights([np.round(64 * weight) / 64 for weight in model.get_weights()])
    return model


def raised(kind: type[Exception], act: Callable[[], Any]) -> str:
    """The message of the error."""
    with pytest.raises(kind) as error:
        act()
    return str(error.value)


def sgd() -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(2**-4, momentum=0.5)


def clipped_adam() -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(clipnorm=100.0)


def gradients_of(number: int, replica: int) -> list[tf.Tensor]:
    """Multiples of 1/8, so that sums are exact."""
    rng = np.random.default_rng((5, number, replica))
    return [tf.constant(rng.integers(-16, 17, shape) / 8, tf.float32) for shape in SHAPES]


def with_a_nan(number: int, replica: int) -> list[tf.Tensor]:
    """A bias gets NaN on one replica, at the first update."""
    *others, last = gradients_of(number, replica)
    return [*others, last * np.nan if (number, replica) == (2, 1) else last]


class Replicas:
    """A model and its optimizer on the replicas of a strategy; without one, on one device."""

    def __init__(self, strategy: Any, recipe: Recipe, make_inner: Callable[[], keras.optimizers.Optimizer]) -> None:
        self.strategy = strategy or tf.distribute.get_strategy()
        with self.strategy.scope():
            self.model = make_model()
            self.optimizer = sparsify(make_inner(), recipe, model=self.model)
        self._apply_traced = tf.function(self._apply)

    def _apply(self, gradients: Any) -> None:
        self.strategy.run(self.optimizer.apply, args=(gradients,))

    def step(self, number: int, gradients: Gradients = gradients_of, *, traced: bool = True) -> None:
        if self.strategy.num_replicas_in_sync == 1:
            both = zip(gradients(number, 0), gradients(number, 1), strict=True)
            self.optimizer.apply([first + second for first, second in both])
        else:
            distribute = self.strategy.experimental_distribute_values_from_function
            pairs = range(len(SHAPES))
            own = [
                distribute(lambda context, i=i: gradients(number, context.replica_id_in_sync_group)[i]) for i in pairs
            ]
            (self._apply_traced if traced else self._apply)(own)

    @property
    def values(self) -> list[Any]:
        return values(self.model, self.optimizer)

    def assert_replicas_are_alike(self) -> None:
        for variable in (*self.model.variables, *self.optimizer.variables):
            first, *others = [own.numpy() for own in self.strategy.experimental_local_results(variable.value)]
            for other in others:
                assert_same([first], [other])


def as_on_one_device(
    recipe: Recipe,
    make_inner: Callable[[], keras.optimizers.Optimizer] = sgd,
    gradients: Gradients = gradients_of,
    *,
    traced: bool = True,  # which takes longer
) -> Callable[[Any], None]:
    """A case: at every step, all variables of two replicas are those of one device, bit for bit."""

    def case(strategy: Any) -> None:
        two, one = Replicas(strategy, recipe, make_inner), Replicas(None, recipe, make_inner)
        first = one.optimizer.masks
        for number in range(STEPS):
            two.step(number, gradients, traced=traced)
            one.step(number, gradients)
            assert_same(two.values, one.values)
            two.assert_replicas_are_alike()
        assert any((first[name] != mask).any() for name, mask in one.optimizer.masks.items())

    return case


def fit(strategy: Any) -> None:
    """``fit()`` gives the masks of one device, also where it builds the optimizer."""
    masks = []
    for own in (strategy, tf.distribute.get_strategy()):
        with own.scope():
            model = make_model()
            optimizer = sparsify(keras.optimizers.Adam(0.01), RIGL)
            model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
        model.fit(*make_data(), batch_size=16, shuffle=False, verbose=0)
        masks.append(optimizer.masks)
    for name, mask in masks[0].items():
        assert_same([mask], [masks[1][name]])


def scaled_losses(strategy: Any) -> None:
    """A LossScaleOptimizer outside passes its steps on."""
    with strategy.scope():
        plain, model = Replicas(strategy, RIGL, sgd), make_model()
        optimizer = keras.optimizers.LossScaleOptimizer(sparsify(sgd(), RIGL, model=model), initial_scale=8.0)
        optimizer.build(model.trainable_variables)
    for number in range(4):
        gradients = tf.nest.map_structure(lambda x: x / 2, gradients_of(number, 0))
        scaled = [8 * gradient for gradient in gradients]
        strategy.run(lambda own=scaled: optimizer.apply(own, model.trainable_variables))
        strategy.run(lambda own=gradients: plain.optimizer.apply(own, plain.model.trainable_variables))
    assert_same(values(model, optimizer.inner_optimizer), plain.values)


def saved(strategy: Any, folder: Path) -> None:
    """A training is saved on two replicas, and goes on there and on one device."""
    two = Replicas(strategy, RIGL, sgd)
    for number in range(4):
        two.step(number, traced=False)
    two.model.compile(two.optimizer)
    two.model.save_weights(folder / "saved.weights.h5")
    again = [Replicas(own, RIGL, sgd) for own in (strategy, None)]
    for one in again:
        one.model.compile(one.optimizer)
        one.model.load_weights(folder / "saved.weights.h5")
        assert_same(one.values, two.values)
    for number in range(4, STEPS):
        for one in (two, *again):
            one.step(number, traced=False)
    for one in again:
        assert_same(one.values, two.values)


def masks_that_differ(strategy: Any) -> None:
    """They are reported before the first step, and before the update, which then changes nothing."""
    for number in (0, 2):
        two = Replicas(strategy, RIGL, sgd)
        for earlier in range(number):
            two.step(earlier)
        mask = two.optimizer._built_training().masked[0].mask_variable.value
        if strategy.cluster_resolver is None or strategy.cluster_resolver.task_id == 1:
            own = strategy.experimental_local_results(mask)[-1]
            own.assign(tf.roll(own, 1, 0))
        before = two.values
        message = raised(tf.errors.InvalidArgumentError, lambda two=two, number=number: two.step(number))
        assert "masks differ between replicas" in message
        assert "fc1/kernel" in message
        assert "fc2/kernel" not in message
        assert_same(two.values, before)


def refused(strategy: Any) -> None:
    """What cannot have one topology is refused, and stays as it was."""
    two, device = Replicas(strategy, RIGL, sgd), tf.distribute.get_strategy()
    before = two.values
    model, other = two.model, tf.distribute.experimental.CentralStorageStrategy(["CPU:0", "CPU:1"])

    def sparsified(where: Any, **options: Any) -> SparseOptimizer:
        with where.scope():
            return sparsify(keras.optimizers.SGD(**options), RIGL, model=model)

    assert "make the model and its optimizer" in raised(ValueError, lambda: sparsified(device))
    assert "remove gradient_acc" in raised(ValueError, lambda: sparsified(strategy, gradient_accumulation_steps=2))
    assert "by strategy.run" in raised(ValueError, lambda: two.optimizer.apply(gradients_of(0, 0)))
    with other.scope():
        assert "use a MirroredStrategy" in raised(ValueError, lambda: Replicas(other, RIGL, sgd))
    with strategy.scope(), pytest.raises(ValueError, match="is on several replicas"):
        sparsify(keras.optimizers.SGD(), RIGL, model=model, storage={"*fc1*": "active", "*": "masks"})
    model.compile(two.optimizer, "sparse_categorical_crossentropy", jit_compile=True)
    assert "compile the step with jit_compile=False" in raised(ValueError, lambda: model.fit(*make_data(), verbose=0))
    assert_same(two.values, before)


CASES: Mapping[str, Callable[..., None]] = {
    "RigL": as_on_one_device(RIGL),
    "Adam, clipped, and a NaN": as_on_one_device(RIGL, clipped_adam, with_a_nan, traced=False),
    "SNFS": as_on_one_device(SNFS(0.7, schedule=SCHEDULE)),
    "Deep R": as_on_one_device(DeepR(0.7, schedule=SCHEDULE)),
    "DNW": as_on_one_device(DNW(0.7, schedule=SCHEDULE), traced=False),
    "fit": fit,
    "scaled losses": scaled_losses,
    "saved": saved,
    "masks that differ": masks_that_differ,
    "refused": refused,
}
ON_WORKERS = ("RigL", "masks that differ")
"""Keras's own ``fit()`` fails there, for dense optimizers too (3.15)."""


def main(kind: str, folder: str) -> None:
    """Run the cases."""
    if kind == "mirrored":
        cpu, *_ = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    else:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    wrong = {}
    for name in CASES if kind == "mirrored" else ON_WORKERS:
        options = {"folder": Path(folder)} if name == "saved" else {}
        try:
            CASES[name](strategy, **options)
        except Exception:
            wrong[name] = traceback.format_exc()
    print(json.dumps(wrong))


if __name__ == "__main__":
    main(*sys.argv[1:])
