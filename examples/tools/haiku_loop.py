"""RigL with Haiku: its parameters are a dict of dicts, and its optimizers are optax's."""

from __future__ import annotations

from collections.abc import Sequence

import haiku as hk
import jax
import optax
from jax import Array

from images import accuracy, batches, options_of, read
from rigl_backends.jax import apply_masks, sparsify, table
from rigl_core import RigL, UpdateSchedule


def main(arguments: Sequence[str] | None = None) -> tuple[hk.Params, optax.OptState]:
    """Train, print the test accuracy and the density of each layer; the parameters and the optimizer's state."""
    options, data = read(options_of(__doc__), arguments)
    network = hk.without_apply_rng(hk.transform(lambda images: hk.nets.MLP([128, data.n_classes])(images)))
    recipe = RigL(0.9, schedule=UpdateSchedule.for_training(options.steps, every=20))
    axes = {"*/w": ((0,), (1,))}  # for recipes that ask: structures, ER
    tx = sparsify(optax.adam(3e-3), recipe, axes=axes)  # instead of optax.adam(3e-3)

    @jax.jit
    def step(
        params: hk.Params, opt_state: optax.OptState, images: Array, labels: Array
    ) -> tuple[hk.Params, optax.OptState]:
        def loss(params: hk.Params) -> Array:
            losses = optax.softmax_cross_entropy_with_integer_labels(network.apply(params, images), labels)
            return losses.mean()

        updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params = network.init(jax.random.key(0), data.train_images[:1])
    opt_state = tx.init(params)
    params = apply_masks(params, opt_state)  # once: the weights outside the first topology become zero
    for images, labels in batches(data, options.steps):
        params, opt_state = step(params, opt_state, images, labels)
    print(f"test accuracy {accuracy(network.apply(params, data.test_images), data.test_labels):.3f}")
    print(table(opt_state, params))
    return params, opt_state


if __name__ == "__main__":
    main()
