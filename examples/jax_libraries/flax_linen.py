"""RigL with flax linen: a convolutional network in a TrainState."""

import jax
import optax
from flax import linen as nn
from flax.training.train_state import TrainState

import digits
from rigl_backends.jax import apply_masks, sparsify, table
from rigl_core import RigL, UpdateSchedule

recipe = RigL(0.9, schedule=UpdateSchedule.for_training(digits.STEPS, every=20))
# A flax kernel with one input channel has the shape of a depthwise kernel, which stays dense by default. This one is an
# ordinary kernel, so the pattern includes it.
tx = sparsify(optax.adam(3e-3), recipe, include=["*/Conv_0/kernel"])  # instead of optax.adam(3e-3)


class ConvNet(nn.Module):
    """Two convolutions and two dense layers."""

    @nn.compact
    def __call__(self, x):
        """Logits (batch, 10) of images (batch, 8, 8, 1)."""
        x = nn.relu(nn.Conv(32, (3, 3))(x))
        x = nn.relu(nn.Conv(64, (3, 3), strides=2)(x))
        x = nn.relu(nn.Dense(64)(x.reshape(len(x), -1)))
        return nn.Dense(10)(x)


@jax.jit
def train_step(state, images, labels):
    """One step; it is the same without RigL."""

    def loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(state.apply_fn(params, images), labels).mean()

    return state.apply_gradients(grads=jax.grad(loss)(state.params))


def main() -> None:
    """Train, and print the test accuracy and the density of each layer."""
    train_x, train_y, test_x, test_y = digits.load()
    model = ConvNet()
    state = TrainState.create(apply_fn=model.apply, params=model.init(jax.random.key(0), train_x[:1]), tx=tx)
    # Once: the weights outside the first topology become zero.
    state = state.replace(params=apply_masks(state.params, state.opt_state))
    for images, labels in digits.batches(train_x, train_y):
        state = train_step(state, images, labels)
    print(f"test accuracy {digits.accuracy(state.apply_fn(state.params, test_x), test_y):.3f}")
    print(table(state.opt_state, state.params))


if __name__ == "__main__":
    main()
