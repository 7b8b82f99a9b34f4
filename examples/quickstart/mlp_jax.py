"""The quickstart in JAX: a function of a dict of arrays, an optax loop, plus one line and the first masks."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from data import Batch, Images, Labels
from history import History, Mask, Watch
from rigl_backends.jax import apply_masks, sparsify
from rigl_backends.jax import masks as masks_of
from runs import Run

Params = dict[str, Array]


def forward(params: Params, images: Array) -> Array:
    """Logits, (batch, classes), of images, (batch, pixels)."""
    hidden1 = jax.nn.relu(images @ params["fc1.weight"].T + params["fc1.bias"])
    hidden2 = jax.nn.relu(hidden1 @ params["fc2.weight"].T + params["fc2.bias"])
    return hidden2 @ params["fc3.weight"].T + params["fc3.bias"]


def loss_of(params: Params, images: Array, labels: Array) -> Array:
    """Mean softmax cross-entropy."""
    losses: Array = optax.softmax_cross_entropy_with_integer_labels(forward(params, images), labels)
    return losses.mean()


def train(run: Run, batches: Iterable[Batch]) -> History:
    """Train the network of ``run``."""
    params = {name: jnp.asarray(array) for name, array in run.weights.items()}
    optimizer = optax.sgd(run.learning_rate, momentum=run.momentum)
    if run.recipe:  # the line that makes it sparse; dense training has no recipe
        optimizer = sparsify(optimizer, run.recipe, layers=run.layers, scores=run.scores)
    opt_state = optimizer.init(params)
    if run.recipe:
        params = apply_masks(params, opt_state)

    @jax.jit
    def step(params: Params, opt_state: optax.OptState, images: Array, labels: Array) -> tuple[Params, optax.OptState]:
        gradients = jax.grad(loss_of)(params, images, labels)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    compiled_forward = jax.jit(forward)

    def predict(images: Images) -> Labels:
        return np.asarray(compiled_forward(params, jnp.asarray(images)).argmax(axis=1))

    def masks() -> dict[str, Mask]:
        return {name: np.asarray(mask) for name, mask in masks_of(opt_state, params).items()} if run.recipe else {}

    watch = Watch(run, predict, masks, lambda: {name: np.array(param) for name, param in params.items()})
    for images, labels in batches:
        params, opt_state = step(params, opt_state, jnp.asarray(images), jnp.asarray(labels))
        watch.step_done()
    return watch.history
