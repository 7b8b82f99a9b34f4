"""Dead neurons, and the dense network of the other neurons."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rigl_core import Layer, effective_architecture, shrunken, specs
from rigl_core.inspect.neurons import connections
from rigl_core.testing.checks import checks

Arrays = dict[str, npt.NDArray[Any]]


def sparse_mlp(widths: list[int], density: float, seed: int) -> tuple[list[Layer], Arrays, Arrays, Arrays]:
    rng = np.random.default_rng(seed)
    layers = list(specs.mlp(*widths))
    masks = {layer.name: rng.random(layer.shape) < density for layer in layers}
    weights = {layer.name: rng.normal(size=layer.shape) * masks[layer.name] for layer in layers}
    biases = {layer.name: rng.normal(size=layer.n_out) for layer in layers}
    return layers, masks, weights, biases


def run(x: npt.NDArray[Any], names: list[str], weights: Arrays, biases: Arrays) -> npt.NDArray[Any]:
    for i, name in enumerate(names):
        x = x @ weights[name].T + biases[name]
        x = np.tanh(x + 0.5) if i < len(names) - 1 else x
    return x


@given(st.lists(st.integers(1, 7), min_size=2, max_size=5), st.floats(0.05, 1), st.integers(0, 2**32 - 1))
def test_the_smaller_network_computes_the_same(widths: list[int], density: float, seed: int) -> None:
    layers, masks, weights, biases = sparse_mlp(widths, density, seed)
    names = [layer.name for layer in layers]
    left = effective_architecture(layers, masks)
    small_weights, small_biases = shrunken(left, weights, biases, activation=lambda x: np.tanh(x + 0.5))
    x = np.random.default_rng(seed).normal(size=(4, widths[0]))
    expected = run(x, names, weights, biases)
    np.testing.assert_allclose(run(x[:, left.alive[0]], names, small_weights, small_biases), expected, atol=1e-9)
    for name, (n_in, n_out) in zip(names, pairwise(left.widths), strict=True):
        assert small_weights[name].shape == (n_out, n_in)
        assert small_biases[name].shape == (n_out,)
    assert left.widths[-1] == widths[-1]
    assert [dead + width for dead, width in zip(left.dead, left.widths, strict=True)] == widths


@given(st.lists(st.integers(1, 7), min_size=2, max_size=5), st.floats(0.05, 1), st.integers(0, 2**32 - 1))
def test_exactly_the_neurons_on_a_path_from_inputs_to_outputs_are_alive(
    widths: list[int], density: float, seed: int
) -> None:
    """Products of the masks, as matrices, count the paths."""
    layers, masks, _, _ = sparse_mlp(widths, density, seed)
    left = effective_architecture(layers, masks)
    matrices = [masks[layer.name].T.astype(np.int64) for layer in layers]
    forward, backward = [np.ones(widths[0], np.int64)], [np.ones(widths[-1], np.int64)]
    for matrix in matrices:
        forward.append(forward[-1] @ matrix)
    for matrix in reversed(matrices):
        backward.insert(0, matrix @ backward[0])
    for i in range(len(widths) - 1):
        np.testing.assert_array_equal(left.alive[i], (forward[i] > 0) & (backward[i] > 0))
    for i, matrix in enumerate(matrices):
        assert left.active[i] == matrix[np.ix_(left.alive[i], left.alive[i + 1])].sum()


def test_a_chain_that_dies_link_by_link() -> None:
    layers = specs.mlp(2, 2, 2, 1)
    masks = {
        "fc1.weight": np.array([[1, 1], [0, 0]], bool),  # the second neuron of the first hidden layer has no input,
        "fc2.weight": np.array([[1, 0], [0, 1]], bool),  # so the second neuron of the next layer has none either
        "fc3.weight": np.array([[1, 1]], bool),
    }
    left = effective_architecture(layers, masks)
    assert (left.widths, left.dead, left.active) == ((2, 1, 1, 1), (0, 1, 1, 0), (2, 1, 1))
    assert str(left) == "2-1-1-1 (of 2-2-2-1), 4 active connections"


def conv(name: str, shape: tuple[int, ...], **options: Any) -> Layer:
    return Layer(name, shape, in_axes=(1,), out_axes=(0,), **options)


@pytest.mark.parametrize("channels_first", [True, False])
def test_convolutions_and_a_flattening(channels_first: bool) -> None:
    layers = [conv("conv", (3, 2, 2)), conv("fc", (4, 15))]  # 5 positions
    rng = np.random.default_rng(0)
    masks = {"conv": np.ones((3, 2, 2), bool), "fc": np.zeros((4, 3, 5), bool)}
    masks["conv"][1], masks["conv"][:, 0] = False, False  # channel 1 has no inputs; input 0 has no outputs
    masks["fc"][:, 0, 2] = masks["fc"][:, 1] = True  # channel 2 has no outputs
    weights = {name: rng.normal(size=mask.shape) * mask for name, mask in masks.items()}
    if not channels_first:
        masks["fc"], weights["fc"] = masks["fc"].swapaxes(1, 2), weights["fc"].swapaxes(1, 2)
    masks["fc"], weights["fc"] = masks["fc"].reshape(4, 15), weights["fc"].reshape(4, 15)
    biases = {"conv": np.array([0.1, 2.0, 0.3]), "fc": rng.normal(size=4)}
    left = effective_architecture(layers, masks, channels_first=channels_first)
    assert (left.widths, left.active) == ((1, 1, 4), (2, 4))

    def output(weights: Arrays, biases: Arrays, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        windows = np.lib.stride_tricks.sliding_window_view(x, 2, axis=1)  # (channels, positions, kernel)
        said = np.maximum(np.einsum("oik,ipk->op", weights["conv"], windows) + biases["conv"][:, None], 0)
        return weights["fc"] @ (said if channels_first else said.T).reshape(-1) + biases["fc"]

    x = rng.normal(size=(2, 6))
    small = shrunken(left, weights, biases)
    np.testing.assert_allclose(output(*small, x[left.alive[0]]), output(weights, biases, x))  # type: ignore[arg-type]


def test_connections_of_a_kernel_by_counting_one_by_one() -> None:
    mask = np.random.default_rng(0).random((2, 3, 3, 5, 2)) < 0.5
    layer = Layer("conv", mask.shape, in_axes=(3, 0), out_axes=(1,))
    counts = connections(layer, mask)
    assert counts.shape == (10, 3)
    for i, output in np.ndindex(10, 3):
        assert counts[i, output] == sum(mask[i % 2, output, k, i // 2, n] for k, n in np.ndindex(3, 2))


def test_groups_keep_to_themselves() -> None:
    grouped = conv("grouped", (4, 2, 1), groups=2)
    transposed = Layer("transposed", (4, 3, 1), in_axes=(0,), out_axes=(1,), groups=2, grouped_axes="out")
    masks = {"grouped": np.zeros((4, 2, 1), bool), "transposed": np.zeros((4, 3, 1), bool)}
    masks["grouped"][3, 0] = True  # input 2 to neuron 3
    masks["transposed"][3, 1] = True  # neuron 3 to output 4
    left = effective_architecture([grouped, transposed], masks)
    assert [np.flatnonzero(alive).tolist() for alive in left.alive] == [[2], [3], [0, 1, 2, 3, 4, 5]]
    with pytest.raises(ValueError, match="layer 'grouped' is grouped"):
        shrunken(left, {name: mask.astype(float) for name, mask in masks.items()})


@checks("P3")
def test_what_cannot_be_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'fc1\.weight' puts out 3 features, and 'x' reads 4"):
        effective_architecture([*specs.mlp(2, 3), specs.linear("x", 4, 1)], {})
    with pytest.raises(ValueError, match="in_axes of layer 'a' is unknown"):
        effective_architecture([Layer("a", (2, 2))], {})
    with pytest.raises(ValueError, match=r"masks has the shape \(2,\) for layer 'fc1\.weight'"):
        effective_architecture(specs.mlp(2, 3), {"fc1.weight": np.ones(2, bool)})
    layers = [conv("a", (2, 1, 3)), conv("b", (1, 2, 3))]
    masks = {"a": np.array([[[1, 1, 1]], [[0, 0, 0]]], bool)}
    left = effective_architecture(layers, masks)
    weights = {layer.name: np.ones(layer.shape) for layer in layers}
    with pytest.raises(ValueError, match="layer 'b' listens to dead channels"):
        shrunken(left, weights, {"a": np.ones(2)})
    assert shrunken(left, weights)[0]["b"].shape == (1, 1, 3)
