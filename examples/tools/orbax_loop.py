"""RigL with orbax: save parameters and optimizer state together, and go on with both. The topology is in the state."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
from jax import Array

from images import Dataset, accuracy, batches, options_of, read
from rigl_backends.jax import apply_masks, sparsify, table
from rigl_core import RigL, UpdateSchedule

Params = dict[str, Array]
State = tuple[Params, optax.OptState]


def forward(params: Params, images: Array) -> Array:
    """Logits, (batch, classes), of images, (batch, pixels)."""
    return jax.nn.relu(images @ params["hidden"] + params["bias"]) @ params["out"]


class Training:
    """A training whose whole state is a pair: the parameters, and the optimizer's state with the topology."""

    def __init__(self, pixels: int, classes: int, steps: int) -> None:
        self._shapes = {"hidden": (pixels, 128), "out": (128, classes)}
        recipe = RigL(0.9, schedule=UpdateSchedule.for_training(steps, every=20))
        self._tx = sparsify(optax.adam(3e-3), recipe)  # instead of optax.adam(3e-3)
        self._step = jax.jit(self._make_step)

    def start(self) -> State:
        """The state before the first step."""
        keys, draw = jax.random.split(jax.random.key(0)), jax.nn.initializers.he_normal()
        params = {name: draw(key, shape) for key, (name, shape) in zip(keys, self._shapes.items(), strict=True)}
        params["bias"] = jnp.zeros(params["hidden"].shape[1])
        opt_state = self._tx.init(params)
        return apply_masks(params, opt_state), opt_state  # once: weights outside the first topology become zero

    def _make_step(self, state: State, images: Array, labels: Array) -> State:
        params, opt_state = state

        def loss(params: Params) -> Array:
            return optax.softmax_cross_entropy_with_integer_labels(forward(params, images), labels).mean()

        updates, opt_state = self._tx.update(jax.grad(loss)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def train(self, state: State, data: Dataset, first: int, last: int) -> State:
        """The state after the steps from ``first`` to ``last``."""
        for images, labels in batches(data, last, first):
            state = self._step(state, images, labels)
        return state


def main(arguments: Sequence[str] | None = None) -> tuple[Training, State]:
    """Train in two parts, with a checkpoint between; print the test accuracy and the density of each layer."""
    options, data = read(options_of(__doc__), arguments)
    training = Training(data.train_images.shape[1], data.n_classes, options.steps)
    half = options.steps // 2
    with tempfile.TemporaryDirectory() as folder, ocp.StandardCheckpointer() as checkpointer:
        checkpoint = Path(folder) / "checkpoint"
        checkpointer.save(checkpoint, training.train(training.start(), data, 0, half))
        checkpointer.wait_until_finished()
        state = checkpointer.restore(checkpoint, training.start())
    state = params, opt_state = training.train(state, data, half, options.steps)
    print(f"test accuracy {accuracy(forward(params, data.test_images), data.test_labels):.3f}")
    print(table(opt_state, params))
    return training, state


if __name__ == "__main__":
    main()
