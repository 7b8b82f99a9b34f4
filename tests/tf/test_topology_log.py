"""The topology in the logs of fit."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from rigl_backends.tf import TopologyLog, sparsify
from rigl_core import RigL, UpdateSchedule
from rigl_core.inspect import churn, density, ever_active
from tests.tf.helpers import LOSS, make_data, make_model

# Keras 3.15 reads its variables with NumPy 2's np.array, which still asks in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

RECIPE = RigL(0.7, schedule=UpdateSchedule(end=30, every=4))


@pytest.mark.parametrize("scaled", [False, True])
def test_each_epochs_density_churn_and_r_s(scaled: bool) -> None:
    """The values are those of the masks, also in a second `fit`, and before the optimizer was built."""
    x, y = make_data()
    model = make_model()
    sparse = sparsify(keras.optimizers.SGD(0.1), RECIPE)
    model.compile(keras.optimizers.LossScaleOptimizer(sparse) if scaled else sparse, LOSS)
    log, masks, histories = TopologyLog(by_layer=True), [], []
    look = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: masks.append(sparse.masks),
        on_epoch_end=lambda epoch, logs: masks.append(sparse.masks),
    )
    for _ in range(2):
        histories.append(model.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[log, look]).history)
    logged = {name: histories[0][name] + histories[1][name] for name in histories[0]}
    pairs = [(masks[i - 1], masks[i]) for i in (1, 2, 4, 5)]
    assert logged["density"] == [density(after) for _, after in pairs]
    assert logged["moved"] == [churn(before, after) for before, after in pairs]
    assert logged["moved"][0] > 0
    ever, r_s = masks[0], []
    for _, after in pairs:
        ever = ever_active(ever, after)
        r_s.append(density(ever))
    assert logged["R_s"] == r_s
    for name, mask in sparse.masks.items():
        assert logged[f"density/{name}"][-1] == np.mean(mask)
        assert len(logged[f"moved/{name}"]) == 4


def test_layers_are_left_out_by_default_and_a_dense_optimizer_is_refused() -> None:
    x, y = make_data()
    model = make_model()
    model.compile(sparsify(keras.optimizers.SGD(0.1), RECIPE, model=model), LOSS)
    assert set(model.fit(x, y, verbose=0, callbacks=[TopologyLog()]).history) == {
        "loss",
        "density",
        "moved",
        "R_s",
        "empty",
    }
    model.compile(keras.optimizers.SGD(0.1), LOSS)
    with pytest.raises(TypeError, match="optimizer is a SGD: it must be a SparseOptimizer, as sparsify makes it"):
        model.fit(x, y, verbose=0, callbacks=[TopologyLog()])
