"""RigL with equinox: a convolutional network that is itself a pytree."""

import equinox as eqx
import jax
import optax

import digits
from rigl_backends.jax import apply_masks, sparsify, table
from rigl_core import RigL, UpdateSchedule

recipe = RigL(0.9, schedule=UpdateSchedule.for_training(digits.STEPS, every=20))
tx = sparsify(optax.adam(3e-3), recipe)  # instead of optax.adam(3e-3)


def make_model(key):
    """Two convolutions and two dense layers, for one image (1, 8, 8)."""
    keys = jax.random.split(key, 4)
    return eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(1, 32, 3, padding=1, key=keys[0]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Conv2d(32, 64, 3, stride=2, padding=1, key=keys[1]),
            eqx.nn.Lambda(lambda x: jax.nn.relu(x).reshape(-1)),
            eqx.nn.Linear(64 * 4 * 4, 64, key=keys[2]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Linear(64, 10, key=keys[3]),
        ]
    )


@eqx.filter_jit
def forward(model, images):
    """Logits (batch, 10) of images (batch, 8, 8, 1)."""
    return jax.vmap(model)(images.transpose(0, 3, 1, 2))


@eqx.filter_jit
def train_step(model, opt_state, images, labels):
    """One step; it is the same without RigL."""

    def loss(model):
        return optax.softmax_cross_entropy_with_integer_labels(forward(model, images), labels).mean()

    updates, opt_state = tx.update(eqx.filter_grad(loss)(model), opt_state, eqx.filter(model, eqx.is_inexact_array))
    return eqx.apply_updates(model, updates), opt_state


def main() -> None:
    """Train, and print the test accuracy and the density of each layer."""
    train_x, train_y, test_x, test_y = digits.load()
    model = make_model(jax.random.key(0))
    opt_state = tx.init(eqx.filter(model, eqx.is_inexact_array))
    model = apply_masks(model, opt_state)  # once: the weights outside the first topology become zero
    for images, labels in digits.batches(train_x, train_y):
        model, opt_state = train_step(model, opt_state, images, labels)
    print(f"test accuracy {digits.accuracy(forward(model, test_x), test_y):.3f}")
    print(table(opt_state, eqx.filter(model, eqx.is_inexact_array)))


if __name__ == "__main__":
    main()
