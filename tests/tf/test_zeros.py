"""Zeros outside the masks come back, whatever other code writes there, also with trusted optimizers."""

from __future__ import annotations

import keras
import pytest

from rigl_backends.tf import sparsify
from rigl_backends.tf import training as training_module
from rigl_core import SparsityWarning, Static
from rigl_core.testing.checks import checks
from tests.tf.helpers import assert_zero_outside, compiled, layer_arrays, make_gradients, make_model


@checks("Z1", "V3")
@pytest.mark.parametrize("mode", ["eager", "function"])
def test_dense_weights_and_state_that_are_loaded_become_sparse(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No update zeroes them here: pretrained weights are loaded, and the topology is static."""
    monkeypatch.setattr(training_module, "ZEROED_EVERY", 3)
    model = make_model()
    optimizer = sparsify(keras.optimizers.Adam(0.01), Static(0.7), model=model)
    variables = model.trainable_variables
    apply = compiled(lambda grads: optimizer.apply(grads, variables), mode)
    masks = optimizer.masks

    def train() -> None:
        for step in range(7):
            if step in (0, 4):
                for variable in (*model.variables, *optimizer.inner_optimizer.variables[2:]):  # after step and rate
                    variable.assign(variable + 1)
            apply(make_gradients(variables, step))
            if step not in (4, 5):
                assert_zero_outside(layer_arrays(optimizer, variables), masks)
            assert step or optimizer.table  # a look
        optimizer.save_own_variables({})

    with pytest.warns(SparsityWarning, match=r"weights lie outside their masks: 89 of 'net/fc1/kernel', 37 of") as told:
        train()
    assert len(told) == 2
