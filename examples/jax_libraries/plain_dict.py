"""RigL with a plain dict of arrays and optax."""

import jax
import jax.numpy as jnp
import optax

import digits
from rigl_backends.jax import apply_masks, sparsify, table
from rigl_core import RigL, UpdateSchedule

recipe = RigL(0.9, schedule=UpdateSchedule.for_training(digits.STEPS, every=20))
tx = sparsify(optax.adam(3e-3), recipe)  # instead of optax.adam(3e-3)


def forward(params, images):
    """An MLP 64-128-64-10."""
    x = images.reshape(len(images), -1)
    x = jax.nn.relu(x @ params["w1"] + params["b1"])
    x = jax.nn.relu(x @ params["w2"] + params["b2"])
    return x @ params["w3"] + params["b3"]


@jax.jit
def train_step(params, opt_state, images, labels):
    """One step; it is the same without RigL."""

    def loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(forward(params, images), labels).mean()

    updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def main() -> None:
    """Train, and print the test accuracy and the density of each layer."""
    train_x, train_y, test_x, test_y = digits.load()
    params = {}
    for i, (n_in, n_out) in enumerate([(64, 128), (128, 64), (64, 10)], start=1):
        params[f"w{i}"] = jax.random.normal(jax.random.key(i), (n_in, n_out)) * (2 / n_in) ** 0.5
        params[f"b{i}"] = jnp.zeros(n_out)
    opt_state = tx.init(params)
    params = apply_masks(params, opt_state)  # once: the weights outside the first topology become zero
    for images, labels in digits.batches(train_x, train_y):
        params, opt_state = train_step(params, opt_state, images, labels)
    print(f"test accuracy {digits.accuracy(forward(params, test_x), test_y):.3f}")
    print(table(opt_state, params))


if __name__ == "__main__":
    main()
