"""RigL with flax nnx: its modules and its Optimizer."""

import optax
from flax import nnx

import digits
from rigl_backends.jax import apply_masks, sparsify, table
from rigl_core import RigL, UpdateSchedule

recipe = RigL(0.9, schedule=UpdateSchedule.for_training(digits.STEPS, every=20))
tx = sparsify(optax.adam(3e-3), recipe)  # instead of optax.adam(3e-3)


class MLP(nnx.Module):
    """An MLP 64-128-64-10."""

    def __init__(self, rngs):
        self.hidden1 = nnx.Linear(64, 128, rngs=rngs)
        self.hidden2 = nnx.Linear(128, 64, rngs=rngs)
        self.out = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, images):
        """Logits (batch, 10) of images (batch, 8, 8, 1)."""
        x = nnx.relu(self.hidden1(images.reshape(len(images), -1)))
        return self.out(nnx.relu(self.hidden2(x)))


@nnx.jit
def train_step(model, optimizer, images, labels):
    """One step; it is the same without RigL."""

    def loss(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

    optimizer.update(model, nnx.grad(loss)(model))


def main() -> None:
    """Train, and print the test accuracy and the density of each layer."""
    train_x, train_y, test_x, test_y = digits.load()
    model = MLP(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    # Once: the weights outside the first topology become zero.
    nnx.update(model, apply_masks(nnx.state(model, nnx.Param), optimizer.opt_state))
    for images, labels in digits.batches(train_x, train_y):
        train_step(model, optimizer, images, labels)
    print(f"test accuracy {digits.accuracy(model(test_x), test_y):.3f}")
    print(table(optimizer.opt_state, nnx.state(model, nnx.Param)))


if __name__ == "__main__":
    main()
