"""Haiku and orbax."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import haiku_loop
import orbax_loop
from images import load
from rigl_backends.jax import choose_layers, masks, step, table


def test_haikus_weights_are_layers_and_biases_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    params, opt_state = haiku_loop.main(["--steps", "30"])
    assert str(table(opt_state, params)) in capsys.readouterr().out
    assert step(opt_state) == 30
    assert [layer.name for layer in choose_layers(params)] == [f"mlp/~/linear_{i}/w" for i in range(2)]
    for name, mask in masks(opt_state, params).items():
        module, _, own = name.rpartition("/")
        weight = np.asarray(params[module][own])
        assert not weight[~np.asarray(mask)].any()
        assert weight[np.asarray(mask)].any()


def test_a_training_that_orbax_saved_goes_on_bit_for_bit(capsys: pytest.CaptureFixture[str]) -> None:
    training, resumed = orbax_loop.main(["--steps", "60"])
    whole = training.train(training.start(), load("digits"), 0, 60)
    assert step(whole[1]) == step(resumed[1]) == 60
    assert str(table(whole[1], whole[0])) in capsys.readouterr().out
    for mine, its in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        assert mine.dtype == its.dtype
        assert np.asarray(mine).tobytes() == np.asarray(its).tobytes()
