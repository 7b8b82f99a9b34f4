"""Trainings that began with given masks are resumed by the same call of `sparsify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytest
import torch
from torch import nn

import rigl_backends.jax
import rigl_backends.tf
import rigl_backends.torch
from rigl_core import RigL, Static, UpdateSchedule
from rigl_core.testing.checks import checks

MOVING = RigL(schedule=UpdateSchedule(end=9, every=1))


@checks("P2", "N3")
def test_a_training_that_began_with_masks_resumes(tmp_path: Path) -> None:
    """By the same call of sparsify; another recipe is refused, with the difference."""

    def start(initial: Any) -> tuple[nn.Module, Any, Any]:
        torch.manual_seed(0)
        model = nn.Linear(6, 4)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        return model, optimizer, rigl_backends.torch.sparsify(model, optimizer, MOVING, initial=initial)

    masks = {"weight": np.random.default_rng(0).random((4, 6)) < 0.5}
    model, optimizer, sparse = start(masks)
    for _ in range(2):
        model(torch.randn(3, 6)).square().sum().backward()
        optimizer.step()
    saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    model, optimizer, again = start(masks)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    assert torch.equal(again.masks["weight"], sparse.masks["weight"])
    assert again.step == 2
    other = torch.optim.SGD(model.parameters(), 0.1)
    other.load_state_dict(saved["optimizer"])
    again.remove()
    with pytest.raises(ValueError, match="initial was 'scores' and is 'random'"):
        rigl_backends.torch.sparsify(model, other, RigL(0.5, schedule=MOVING.schedule))


@checks("P2", "N3")
def test_a_state_of_jax_goes_on_under_the_same_masks_alone() -> None:
    params = {"w": jnp.ones((6, 4))}
    masks = {"w": np.random.default_rng(0).random((6, 4)) < 0.5}
    made = [rigl_backends.jax.sparsify(optax.sgd(0.1), Static(), initial=masks) for _ in range(2)]
    state = made[0].init(params)
    params = rigl_backends.jax.apply_masks(params, state)
    _, state = made[1].update(params, state, params)
    assert rigl_backends.jax.step(state) == 1
    np.testing.assert_array_equal(rigl_backends.jax.masks(state, params)["w"], masks["w"])
    with pytest.raises(ValueError, match="initial was 'scores' and is 'random'"):
        rigl_backends.jax.sparsify(optax.sgd(0.1), Static(0.5)).update(params, state, params)


@checks("P2", "N3")
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
def test_a_keras_model_is_saved_with_its_numbers(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, name="fc")], name="net")
    masks = {"net/fc/kernel": np.random.default_rng(0).random((6, 4)) < 0.5}
    optimizer = rigl_backends.tf.sparsify(keras.optimizers.SGD(0.1), MOVING, model=model, initial=masks)
    model.compile(optimizer, "mse")
    model.fit(np.ones((4, 6)), np.ones((4, 4)), verbose=0)
    model.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    (mask,) = loaded.optimizer.masks.values()  # under the name that the loaded model has
    np.testing.assert_array_equal(mask, optimizer.masks["net/fc/kernel"])
    assert loaded.optimizer.plan.active == (masks["net/fc/kernel"].sum(),)
    with pytest.raises(ValueError, match="initial is given, and neither model nor layers"):
        rigl_backends.tf.sparsify(keras.optimizers.SGD(0.1), MOVING, initial=masks)
