"""Keras's loggers, TensorFlow's own modules, and Sonnet."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import keras_fit
import sonnet_loop
import tf_module_loop
from rigl_backends.tf import plan
from rigl_core import RigL, UpdateSchedule
from rigl_core.inspect import density

pytestmark = [
    # Keras 3.15 reads its variables with NumPy 2's np.array, which still asks in the old way.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
]


def test_keras_writes_the_topology_to_csv_and_tensorboard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    optimizer = keras_fit.main(["--steps", "44", "--log", str(tmp_path)])
    assert str(optimizer.table) in capsys.readouterr().out
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    events = EventAccumulator(str(tmp_path / "train"), size_guidance={"tensors": 0}).Reload()
    for name in ("density", "moved", "R_s"):
        values = [float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(f"epoch_{name}")]
        np.testing.assert_allclose(values, [float(row[name]) for row in rows], rtol=1e-6)
    assert [float(row["density"]) for row in rows] == [density(optimizer.masks)] * 4
    moved = [float(row["moved"]) > 0 for row in rows]
    assert moved == [True, True, False, False]  # 11 steps an epoch; updates at 0 and 20, the end of updates is 33
    assert float(rows[0]["R_s"]) < float(rows[1]["R_s"]) == float(rows[3]["R_s"])


@pytest.mark.parametrize(
    ("example", "names"),
    [
        (tf_module_loop, ["mlp/hidden1/w", "mlp/hidden2/w", "mlp/out/w"]),
        (sonnet_loop, ["mlp/linear_0/w", "mlp/linear_1/w", "mlp/linear_2/w"]),
    ],
)
def test_modules_with_unique_names(example: object, names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    optimizer = example.main(["--steps", "30"])  # type: ignore[attr-defined]
    assert optimizer.step == 30
    assert [layer.name for layer in optimizer.plan.layers] == names
    assert {(layer.in_axes, layer.out_axes) for layer in optimizer.plan.layers} == {((0,), (1,))}
    assert str(optimizer.table) in capsys.readouterr().out


def test_names_that_are_not_unique_are_refused() -> None:
    twice = [tf.Variable(tf.ones((8, 4)), name="w") for _ in range(2)]
    recipe = RigL(0.5, schedule=UpdateSchedule(end=9, every=3))
    with pytest.raises(ValueError, match="w"):
        plan(twice, recipe, include=["w"], axes={"w": ((0,), (1,))})
