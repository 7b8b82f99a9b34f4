"""Weights in files and matrices of other tools: what is outside the masks is exactly 0 there, or is not there."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax.numpy as jnp
import numpy as np
import onnx
import onnx.reference
import optax
import pytest
import safetensors.flax
import safetensors.torch
import torch
from torch import nn

import rigl_backends.jax
import rigl_backends.torch
from rigl_core import RigL, UpdateSchedule
from rigl_core.serving import to_scipy


def trained(storage: Any) -> tuple[nn.Sequential, Any]:
    """A model and its training, which goes on."""
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 32), nn.Linear(32, 4)
    model = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    sparse = rigl_backends.torch.sparsify(
        model, optimizer, RigL(0.8, schedule=UpdateSchedule(end=9, every=2)), storage=storage
    )
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.randn(8, 2, 6, 6)).square().mean().backward()
        optimizer.step()
    return model, sparse


def has_zeros_outside(arrays: dict[str, Any], sparse: Any) -> bool:
    """Whether arrays, by the names of parameters, are +0 outside the masks."""
    outside = [np.asarray(arrays[name])[~mask.numpy()] for name, mask in sparse.masks.items()]
    return sum(map(np.size, outside)) > 3000 and all(values.tobytes() == bytes(values.nbytes) for values in outside)


@pytest.mark.parametrize("storage", ["masks", {"*": "active"}], ids=["masks", "active"])
def test_safetensors(storage: Any, tmp_path: Path) -> None:
    model, sparse = trained(storage)
    expected = sparse.with_masks(model.state_dict())
    safetensors.torch.save_file(expected, tmp_path / "model.safetensors")
    loaded = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert loaded.keys() == rigl_backends.torch.to_dense(model).state_dict().keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)
    assert has_zeros_outside(loaded, sparse)


def test_safetensors_of_flax(tmp_path: Path) -> None:
    params = {"params": {"fc": {"kernel": jnp.ones((200, 300)), "bias": jnp.ones(300)}}}
    tx = rigl_backends.jax.sparsify(optax.sgd(0.1), RigL(0.8, schedule=UpdateSchedule(end=9)), storage={"*": "active"})
    opt_state = tx.init(params)
    params = rigl_backends.jax.apply_masks(params, opt_state)
    flat = flax.traverse_util.flatten_dict(rigl_backends.jax.dense(params), sep="/")
    safetensors.flax.save_file(flat, tmp_path / "model.safetensors")
    loaded = safetensors.flax.load_file(tmp_path / "model.safetensors")
    assert loaded.keys() == {"params/fc/kernel", "params/fc/bias"}
    mask = rigl_backends.jax.masks(opt_state, params)["params/fc/kernel"]
    np.testing.assert_array_equal(loaded["params/fc/kernel"], mask.astype(np.float32))


def test_onnx_keeps_its_zeros(tmp_path: Path) -> None:
    model, sparse = trained({"*": "active"})
    plain, x = rigl_backends.torch.to_dense(model).eval(), torch.randn(3, 2, 6, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of PyTorch, about itself
        torch.onnx.export(plain, (x,), tmp_path / "model.onnx", dynamo=True, optimize=False, verbose=False)
    network = onnx.load(tmp_path / "model.onnx")
    arrays = {array.name: onnx.numpy_helper.to_array(array) for array in network.graph.initializer}
    assert has_zeros_outside(arrays, sparse)
    (y,) = onnx.reference.ReferenceEvaluator(network).run(None, {network.graph.input[0].name: x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(y, model.eval()(x).numpy(), rtol=1e-4, atol=1e-5)


def test_matrices_of_scipy() -> None:
    model, sparse = trained("masks")
    weight, mask = model[4].weight, sparse.masks["4.weight"]
    weight.detach()[mask.nonzero()[0, 0]] = 0  # weights that are active and 0
    x = np.ones((3, 128), np.float32)
    for matrix, size in ((to_scipy(weight, mask), mask.sum()), (to_scipy(weight), weight.count_nonzero())):
        assert (matrix.shape, matrix.dtype, matrix.nnz) == (weight.shape, np.float32, size)
        np.testing.assert_array_equal(matrix.toarray(), weight.detach().numpy())
        np.testing.assert_allclose(matrix @ x.T, weight.detach().numpy() @ x.T, rtol=1e-4, atol=1e-6)
    other = jnp.asarray(weight.detach().numpy().T)
    np.testing.assert_array_equal(to_scipy(other, jnp.asarray(mask.numpy().T)).toarray(), other)


def test_what_scipy_cannot_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"weight has shape \(2, 3, 4\): a matrix has two axes"):
        to_scipy(np.ones((2, 3, 4)))
    for mask in (np.ones((3, 2), bool), np.ones((2, 3))):
        with pytest.raises(ValueError, match=r"mask is a .* it must be bool, of shape"):
            to_scipy(np.ones((2, 3)), mask)
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    with pytest.raises(ImportError, match=r"rigl_core.serving.to_scipy needs SciPy: pip install scipy"):
        to_scipy(np.ones((2, 3)))
