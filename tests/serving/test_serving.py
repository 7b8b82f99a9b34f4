"""Trained networks for use: as they were in PyTorch, through a file, and never from a damaged one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

import rigl_backends.torch
from rigl_core import RigL, SparsityWarning, UpdateSchedule, serving
from rigl_core.serving import Activation, Chain, Conv, Dense, Flatten, Linear
from rigl_core.sparse.convolution import Convolution

Floats = npt.NDArray[np.float32]


def mlp() -> nn.Sequential:
    layers = nn.Linear(40, 300), nn.BatchNorm1d(300), nn.ReLU(), nn.Dropout(0.5), nn.Linear(300, 300), nn.SiLU()
    return nn.Sequential(*layers, nn.Sequential(nn.Linear(300, 300, bias=False), nn.Tanh()), nn.Linear(300, 7))


def convnet() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.LeakyReLU(0.2), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, (3, 2), stride=(2, 1), padding=(0, 1), groups=2, bias=False), nn.Sigmoid()),
        *(nn.AvgPool2d(2, 1), nn.Conv2d(32, 8, 1), nn.Flatten(), nn.Linear(8 * 5 * 14, 10)),
    )


def global_convnet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding="same", dilation=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 5),
    )


def wide_convnet() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(64, 128, 3, stride=2), nn.Tanh(), nn.Conv2d(128, 64, 3, padding=1, bias=False))


def trained(model: nn.Sequential, x: Tensor, storage: str) -> nn.Sequential:
    """The model after some steps of a sparse training."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    recipe = RigL(0.9, schedule=UpdateSchedule(end=6, every=2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SparsityWarning)
        rigl_backends.torch.sparsify(model, optimizer, recipe, storage=storage)  # type: ignore[arg-type]
    for _ in range(5):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("batch", [1, 2, 8, 33])
@pytest.mark.parametrize(
    ("make", "shape", "storage"),
    [
        (mlp, (40,), "masks"),
        (mlp, (40,), "active"),
        (convnet, (3, 28, 28), "masks"),
        (global_convnet, (3, 9, 9), "masks"),
    ],
)
def test_a_network_computes_what_the_model_did(
    make: type, shape: Sequence[int], storage: str, batch: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = trained(make(), torch.randn(16, *shape), storage)
    x = torch.randn(batch, *shape)
    with torch.no_grad():
        expected = model(x).numpy()
    network = rigl_backends.torch.export(model)
    network.save(tmp_path / "network.npz")
    loaded = serving.load(tmp_path / "network.npz", threads=2)
    for own in (network, loaded):
        np.testing.assert_allclose(own(x.numpy()), expected, rtol=1e-4, atol=1e-5)
    assert loaded(x.numpy()).tobytes() == network(x.numpy()).tobytes()
    assert repr(loaded) == repr(network)
    assert [path.name for path in tmp_path.iterdir()] == ["network.npz"]
    csr = rigl_backends.torch.to_csr(model)
    with torch.no_grad():
        np.testing.assert_allclose(csr(x).numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("storage", ["masks", "active"])
def test_sparse_layers_hold_their_active_weights_alone(storage: str) -> None:
    model = trained(mlp(), torch.randn(16, 40), storage)
    network, csr = rigl_backends.torch.export(model), rigl_backends.torch.to_csr(model)
    sparse = [step for step in network.steps if isinstance(step, Linear)]
    csrs = [module for module in csr.modules() if isinstance(module, rigl_backends.torch.CSRLinear)]
    assert len(sparse) >= 2
    assert [step.index.size for step in sparse] == [module.weight.values().numel() for module in csrs]
    assert all(step.index.size < 0.25 * step.index.rows * step.index.cols for step in sparse)
    assert any(isinstance(step, Dense) for step in network.steps) == (len(sparse) < 4)


def test_weights_in_half_precision_leave_as_float32() -> None:
    model, x = nn.Sequential(nn.Linear(40, 30), nn.Tanh(), nn.Linear(30, 3)).bfloat16(), torch.randn(4, 40)
    with torch.no_grad():
        network, expected = rigl_backends.torch.export(model), model.float()(x).numpy()
    np.testing.assert_allclose(network(x.numpy()), expected, rtol=1e-4, atol=1e-5)


def test_a_network_of_arrays_of_other_frameworks() -> None:
    """Weights of (inputs, outputs), as JAX, TensorFlow and NumPy have them."""
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((50, 20)) * (rng.random((50, 20)) < 0.1)).astype(np.float32)
    bias, x = rng.standard_normal(20), rng.standard_normal((6, 50)).astype(np.float32)
    network = Chain([Linear.of(weight, bias, inputs_first=True), Activation("relu")])
    np.testing.assert_allclose(network(x), np.maximum(x @ weight + bias, 0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "tanh", "sigmoid", "silu"])
def test_activations_are_those_of_torch(name: str) -> None:
    x = torch.tensor([-200.0, -3.0, -0.0, 0.5, 90.0, torch.inf, -torch.inf])[:, None]
    expected = getattr(nn.functional, name)(x).numpy()
    got = Chain([Activation(name)])(x.numpy())
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)
    assert got.dtype == np.float32


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 4)), "module '1' is LSTM"),
        ([nn.Sequential(nn.ReLU(), nn.GELU())], "module '0.1' is GELU"),
        (nn.MaxPool2d(2, padding=1), "MaxPool2d, has padding=1"),
        (nn.AvgPool2d(2, ceil_mode=True), "AvgPool2d, has ceil_mode=True"),
        (nn.AdaptiveAvgPool2d(2), "has output_size=2"),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), "has padding_mode='reflect'"),
        (nn.BatchNorm2d(3, track_running_stats=False), "has track_running_stats=False"),
        (nn.Flatten(0), "has start_dim, end_dim="),
    ],
)
def test_other_modules_are_refused(modules: nn.Module, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        rigl_backends.torch.export(modules)


def test_wrong_inputs() -> None:
    network = Chain([Linear.of(np.eye(5)), Flatten()])
    with pytest.raises(TypeError, match="x is float64"):
        network(np.zeros((2, 5)))
    with pytest.raises(ValueError, match=r"x has shape \(5,\)"):
        network(np.zeros(5, np.float32))
    with pytest.raises(ValueError, match=r"'linear' reads samples of shape \(5,\), and got some of shape \(4,\)"):
        network(np.zeros((2, 4), np.float32))
    with pytest.raises(TypeError, match="steps has"):
        Chain([np.tanh])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="name is 'gelu'"):
        Activation("gelu")
    with pytest.raises(ValueError, match=r"bias has shape \(4,\)"):
        Linear.of(np.eye(5), np.zeros(4))
    with pytest.raises(ValueError, match="stride is"):
        Conv.of(np.ones((2, 2, 3, 3)), convolution=Convolution((3, 3), stride=(0, 1)))
    with pytest.raises(ValueError, match="no convolution"):
        Conv.of(np.ones((3, 2, 3, 3)), convolution=Convolution((3, 3), groups=2))


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    """Whatever a file holds, it is read as a network, or refused by a ValueError with its name."""
    path, rng = tmp_path / "network.npz", np.random.default_rng(0)
    weight = rng.standard_normal((12, 3, 3, 3)) * (rng.random((12, 3, 3, 3)) < 0.3)
    steps = [Conv.of(weight, convolution=Convolution((3, 3))), Flatten(), Linear.of(np.eye(12 * 4))]
    Chain(steps).save(path)
    whole, said = path.read_bytes(), list[str]()
    for _ in range(400):
        damaged = bytearray(whole)
        for place in rng.integers(len(damaged), size=rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged[: rng.integers(1, len(damaged))] if rng.random() < 0.2 else damaged)
        try:
            assert len(serving.load(path).steps) <= 3
        except ValueError as error:
            said.append(str(error))
    assert len(said) > 300
    assert all("network.npz is no chain" in each for each in said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"0.columns": np.array([0, 9], np.uint16)}, "columns of tile 0 lie outside"),
        ({"0.columns": np.array([0, 1], np.int64)}, "columns must be a flat uint16"),
        ({"0.pointers": np.array([0, 2, 1, 2], np.int32)}, "pointers must not descend"),
        ({"0.values": np.zeros(5, np.float32)}, r"values has shape \(5,\)"),
        ({"0.values": np.array([object()])}, "is no chain of steps"),
        ({"chain": np.frombuffer(b'{"format": "other", "version": 1, "steps": []}', np.uint8)}, "it is 'other'"),
        ({"chain": np.frombuffer(b"nothing", np.uint8)}, "is no chain of steps"),
        (
            {
                "chain": np.frombuffer(
                    b'{"format": "rigl_core.serving", "version": 1, "steps": [{"kind": "os"}]}', np.uint8
                )
            },
            "a step 'os'",
        ),
    ],
)
def test_wrong_files_are_refused(changes: dict[str, npt.NDArray[np.generic]], said: str, tmp_path: Path) -> None:
    path, weight = tmp_path / "network.npz", np.zeros((3, 4))
    weight[0, 0] = weight[2, 1] = 1
    Chain([Linear.of(weight)]).save(path)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, **changes})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=said):
        serving.load(path)
