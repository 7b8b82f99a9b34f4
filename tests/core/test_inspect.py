"""Numbers about a topology and its moves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rigl_backends.numpy import SGD, sparsify
from rigl_core import RigL, UpdateSchedule
from rigl_core.inspect.logged import scalars
from rigl_core.inspect.masks import density, ever_active, moved
from rigl_core.testing.checks import checks


def test_moves_of_a_training_are_those_of_its_plan() -> None:
    rng = np.random.default_rng(0)
    params = {"a": rng.normal(size=(20, 10)), "b": rng.normal(size=(10, 10))}
    optimizer = SGD(params, 0.1)
    sparse = sparsify(params, optimizer, RigL(0.8, schedule=UpdateSchedule(end=12, every=3)))
    ever = before = sparse.masks
    for step in range(12):
        optimizer.step({name: rng.normal(size=param.shape) for name, param in params.items()})
        after = sparse.masks
        ever = ever_active(ever, after)
        shares = moved(before, after)
        for i, layer in enumerate(sparse.plan.layers):
            most = sparse.plan.drop_counts[step // 3, i] / sparse.plan.active[i] if step % 3 == 0 else 0
            assert 0 <= shares[layer.name] <= most
        before = after
    assert density(before) == 0.2 < density(ever) <= 1
    for name, mask in before.items():
        assert not (mask & ~ever[name]).any()


@given(st.integers(0, 2**32 - 1))
def test_shares_by_counting_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shapes = {"a": (3, 4), "b": (5,)}
    before, after = ({name: rng.random(shape) < 0.5 for name, shape in shapes.items()} for _ in range(2))
    values = scalars(after, before=before, ever=ever_active(before, after))
    pairs = {name: list(zip(before[name].flat, after[name].flat, strict=True)) for name in shapes}
    for name, own in pairs.items():
        active = sum(bool(new) for _, new in own)
        assert values[f"density/{name}"] == active / len(own)
        assert values[f"moved/{name}"] == (sum(bool(new and not old) for old, new in own) / active if active else 0)
    both = [pair for own in pairs.values() for pair in own]
    active = sum(bool(new) for _, new in both)
    assert values["moved"] == (sum(bool(new and not old) for old, new in both) / active if active else 0)
    assert values["density"] == active / 17
    assert values["R_s"] == sum(bool(old or new) for old, new in both) / 17
    assert all(type(value) is float for value in values.values())


class OnGPU:
    """A stand-in for a PyTorch tensor on a GPU, which NumPy cannot read."""

    dtype = "torch.bool"

    def __init__(self, array: np.ndarray[Any, Any], where: str = "cuda") -> None:
        self.array, self.where = array, where

    def detach(self) -> OnGPU:
        return self

    def cpu(self) -> OnGPU:
        return OnGPU(self.array, "cpu")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if self.where != "cpu":
            raise TypeError("can't convert cuda:0 device type tensor to numpy.")
        return self.array


def test_masks_on_a_gpu_are_fetched() -> None:
    before, after = np.array([True, True, False, False]), np.array([True, False, True, False])
    on_gpu = {"a": OnGPU(before)}, {"a": OnGPU(after)}
    on_host = {"a": before}, {"a": after}
    assert scalars(on_gpu[1], on_gpu[0], ever_active(*on_gpu)) == scalars(on_host[1], on_host[0], ever_active(*on_host))


@checks("P3")
def test_masks_of_other_layers_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"they differ in \['b'\]"):
        moved({"a": np.ones(2, bool)}, {"a": np.ones(2, bool), "b": np.ones(2, bool)})
    with pytest.raises(ValueError, match=r"they differ in \['a'\]"):
        ever_active({"a": np.ones(2, bool)}, {"a": np.ones(3, bool)})
