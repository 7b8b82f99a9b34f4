"""`describe` for NumPy: the layers and positions of functions, and plans for these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import rigl_core as rigl
from rigl_backends.numpy import SGD, choose_layers, describe, plan, sparsify
from rigl_core import specs
from rigl_core.testing import models

Array = npt.NDArray[Any]


def params_of(**shapes: tuple[int, ...]) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def mlp(params: Mapping[str, Array], x: Array) -> Array:
    hidden = np.maximum(x @ params["fc1"].T + params["bias"], 0)
    return np.dot(hidden, params["fc2"].T)


def test_a_multilayer_perceptron_is_the_published_one() -> None:
    params = params_of(fc1=(300, 784), bias=(300,), fc2=(10, 300))
    network = describe(mlp, params, np.ones((5, 784)), examples=5)
    assert [(layer.shape, network.positions[layer.name]) for layer in network] == [((300, 784), 1), ((10, 300), 1)]
    published = rigl.cost_table(rigl.make_plan(rigl.Static(0.9), specs.mlp(784, 300, 10)))
    assert rigl.cost_table(rigl.make_plan(rigl.Static(0.9), network), network).f_d == published.f_d


def test_positions_of_shared_and_unused_weights() -> None:
    params = params_of(shared=(4, 4), unused=(3, 2), embedding=(9, 4))

    def run(params: Mapping[str, Array], tokens: Array) -> Array:
        x = params["embedding"][tokens]
        for _ in range(3):
            x = x @ params["shared"]
        return x

    network = describe(run, params, np.arange(6), exclude=["embedding"])
    assert dict(network.positions) == {"shared": 18, "unused": 0, "embedding": 0}
    assert [layer.name for layer in network.always_dense] == ["embedding"]


@pytest.mark.parametrize(
    "product",
    [
        lambda w, x: np.einsum("oi,bi->bo", w, x),
        lambda w, x: np.einsum("...i,oi->...o", x, w),
        lambda w, x: np.tensordot(x, w, axes=(1, 1)),
        lambda w, x: np.inner(x, w),
        lambda w, x: np.matmul(w, x.T),
        lambda w, x: x @ np.concatenate([w[:1], w[1:] * 2.0]).T,
        lambda w, x: (w[None] @ x[:, :, None])[..., 0],
    ],
)
def test_every_product_counts(product: Any) -> None:
    params = params_of(w=(3, 4))
    assert describe(lambda params, x: product(params["w"], x), params, np.ones((7, 4))).positions["w"] == 7


def test_a_convolution_made_of_products() -> None:
    params = params_of(kernel=(8, 2, 3, 3))

    def convolution(params: Mapping[str, Array], image: Array) -> Array:
        windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), axis=(2, 3))
        return np.tensordot(windows, params["kernel"], axes=((1, 4, 5), (1, 2, 3)))

    assert describe(convolution, params, np.ones((4, 2, 10, 10)), examples=4).positions["kernel"] == 64


def test_the_suites_models_are_left_as_they_are() -> None:
    params = params_of(**{"fc1.weight": (8, 64), "fc1.bias": (8,), "fc2.weight": (10, 8), "fc2.bias": (10,)})
    before = {name: param.copy() for name, param in params.items()}

    def gradients(params: Mapping[str, Array], x: Array) -> Any:
        return models.gradients("mlp", dict(params), x, np.zeros(3, np.int64))

    network = describe(gradients, params, np.ones((3, 64)))
    assert [layer.name for layer in network] == ["fc1.weight", "fc2.weight"]
    assert all(type(param) is np.ndarray and (param == before[name]).all() for name, param in params.items())


def test_axes_by_pattern() -> None:
    params = params_of(**{"a.weight": (4, 8), "a.bias": (4,), "b.weight": (8, 4)})
    layers = choose_layers(params, axes={"a.*": ((1,), (0,)), "*": ((0,), (1,))})
    assert [(layer.name, layer.in_axes, layer.out_axes) for layer in layers] == [
        ("a.weight", (1,), (0,)),
        ("b.weight", (0,), (1,)),
    ]
    recipe = rigl.RigL(schedule=rigl.UpdateSchedule(end=4), structure=rigl.NM(2, 4))
    sparse = sparsify(params, SGD(params), recipe, axes={"a.*": ((1,), (0,)), "*": ((0,), (1,))})
    assert (sparse.masks["a.weight"].reshape(4, 2, 4).sum(2) == 2).all()
    with pytest.raises(ValueError, match=r"axes holds the pattern 'c.*', which matches no layer"):
        choose_layers(params, axes={"c.*": ((1,), (0,))})
    with pytest.raises(ValueError, match="layers already says what to sparsify: leave out include"):
        plan(params, recipe, layers=layers, axes={"*": ((0,), (1,))})


def test_the_plan_is_that_of_sparsify_and_changes_nothing() -> None:
    params = params_of(a=(20, 30), b=(30, 10), bias=(10,))
    before = {name: param.copy() for name, param in params.items()}
    recipe = rigl.RigL(0.9, schedule=rigl.UpdateSchedule(end=100))
    planned = plan(params, recipe, exclude=["b"])
    assert all((param == before[name]).all() for name, param in params.items())
    assert planned == sparsify(params, SGD(params), recipe, exclude=["b"]).plan
    with pytest.raises(ValueError, match="params has no such array"):
        plan(params, recipe, layers=[rigl.Layer("c", (2, 2))])
