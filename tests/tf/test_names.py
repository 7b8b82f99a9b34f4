"""A loaded model's layers go by its own paths; its random choices stay those of the names it was sparsified with."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import numpy as np
import pytest

from rigl_backends.tf import sparsify
from rigl_core import SET, RigL, SparsityWarning, UpdateSchedule
from rigl_core.testing.checks import checks
from tests.tf.helpers import LOSS, make_gradients, make_model

# Keras 3.15 reads its variables with NumPy 2's np.array, which still asks in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@checks("P2", "N1")
def test_names_are_those_of_the_loaded_model(tmp_path: Path) -> None:
    """SET's growth depends on the names: both go on with the same masks. So does a model that is loaded twice."""
    recipe = SET(0.7, schedule=UpdateSchedule(end=40, every=2), dense=["net/fc2/*"])
    model = make_model()
    model.compile(sparsify(keras.optimizers.SGD(0.1), recipe, model=model), LOSS)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.save(tmp_path / "again.keras")
    again = keras.models.load_model(tmp_path / "again.keras")
    for one in (loaded, again):
        paths = [v.path for v in one.trainable_variables if v.name == "kernel"]
        assert paths != [v.path for v in model.trainable_variables if v.name == "kernel"]
        for step in range(5):
            one.optimizer.apply(make_gradients(one.trainable_variables, step), one.trainable_variables)
        assert list(one.optimizer.masks) == [layer.name for layer in one.optimizer.table.layers] == paths
        assert [layer.name for layer in one.optimizer.plan.layers] == paths
        one.set_weights([np.ones_like(weight) for weight in one.get_weights()])
        with pytest.warns(SparsityWarning, match=re.escape(f"of {paths[0]!r}")):
            assert one.optimizer.table
    for step in range(5):
        model.optimizer.apply(make_gradients(model.trainable_variables, step), model.trainable_variables)
    loaded.set_weights(model.get_weights())
    for mine, its in zip(loaded.optimizer.masks.values(), model.optimizer.masks.values(), strict=True):
        np.testing.assert_array_equal(mine, its)


def test_the_share_of_all_parameters_is_shown() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Embedding(100, 10), keras.layers.Dense(4, name="fc")])
    recipe = RigL(0.5, schedule=UpdateSchedule(end=9, every=2))
    with pytest.warns(
        SparsityWarning, match=r"the layers hold 40 of the model's 1,044 parameters.*embeddings' with 1,000"
    ):
        optimizer = sparsify(keras.optimizers.Adam(), recipe, model=model)
    assert sorted(optimizer.plan.others.values()) == [4, 1000]
    unbuilt = sparsify(keras.optimizers.Adam(), recipe)
    with pytest.warns(SparsityWarning, match="the layers hold 40 of the model's 1,044 parameters"):
        unbuilt.build(model.trainable_variables)
