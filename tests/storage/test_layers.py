"""A topology for the layers of another framework: turned by the axes, under other names, in another order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rigl_core import Layer
from rigl_core.storage import Topology
from rigl_core.testing.checks import checks
from tests.storage.topologies import LAYERS, assert_equal, random_topology

OIHW, HWIO = Layer("a", (4, 3, 5, 2), (1,), (0,), groups=2), Layer("a", (5, 2, 3, 4), (2,), (3,), groups=2)


def single(layer: Layer, seed: int = 0) -> Topology:
    return Topology((layer,), {layer.name: np.random.default_rng(seed).random(layer.shape) < 0.5})


@checks("P6")
def test_oihw_is_hwio_transposed() -> None:
    topology = single(OIHW)
    turned = topology.for_layers([HWIO])
    np.testing.assert_array_equal(turned.masks["a"], topology.masks["a"].transpose(2, 3, 1, 0), strict=True)
    assert_equal(turned.for_layers([OIHW]), topology)
    assert topology.in_layout("jax").layers == topology.in_layout("keras").layers == (HWIO,)
    assert_equal(topology.in_layout("jax"), turned)
    assert_equal(turned.in_layout("torch"), topology)


@checks("P6")
def test_stacked_layers_stay_first() -> None:
    """Also where a framework stacks them along another axis."""
    stack = Layer("a", (5, 3, 4), (2,), (0,), stacked=(1,), fused=(0, 5))  # (outputs, layers, inputs)
    other = Layer("a", (3, 4, 5), (1,), (2,), stacked=(0,), fused=(2, 5))
    topology = single(stack)
    turned = topology.in_layout("jax")
    assert turned.layers == (other,)
    np.testing.assert_array_equal(turned.masks["a"], topology.masks["a"].transpose(1, 2, 0), strict=True)
    assert_equal(topology.for_layers([other]), turned)


@checks("P6")
def test_heads_of_attention_are_a_matrix() -> None:
    heads, matrix = Layer("a", (6, 2, 3), (0,), (1, 2)), Layer("a", (6, 6), (1,), (0,))
    topology = single(heads)
    np.testing.assert_array_equal(
        topology.for_layers([matrix]).masks["a"], topology.masks["a"].reshape(6, 6).T, strict=True
    )


@checks("P3")
@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (Layer("a", (3, 3)), Layer("a", (3, 3), (1,), (0,)), "unknown in and out axes in the topology"),
        (Layer("a", (3, 3), (1,), (0,)), Layer("a", (3, 3)), "unknown in and out axes in the model"),
        (Layer("a", (3, 4)), Layer("a", (4, 3)), "unknown in and out axes in the topology"),
        (
            Layer("a", (3, 4), (1,), (0,)),
            Layer("a", (3, 4), (0,), (1,)),
            r"= \(3, 4\) in the topology, and \(4, 3\) in the model",
        ),
        (OIHW, Layer("a", (4, 3, 5, 2), (1,), (0,), groups=4), "has 2 groups, stored by 'in', in the topology, and 4"),
    ],
)
def test_what_does_not_fit(before: Layer, after: Layer, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        single(before).for_layers([after])


def test_equal_layers_without_axes_fit() -> None:
    assert_equal(single(Layer("a", (3, 4))).for_layers([Layer("a", (3, 4))]), single(Layer("a", (3, 4))))
    with pytest.raises(ValueError, match="out_axes of layer 'a' is unknown"):
        single(Layer("a", (3, 4))).in_layout("torch")
    with pytest.raises(ValueError, match="layout is 'mxnet': use 'torch' or 'jax' or 'keras'"):
        single(OIHW).in_layout("mxnet")  # type: ignore[arg-type]


FLAX = (Layer("Conv_0/kernel", (3, 2, 2, 6), (2,), (3,)), Layer("Dense_0/kernel", (7, 5), (0,), (1,)), *LAYERS[2:])


@checks("P3", "P6")
def test_names_are_proposed_and_given() -> None:
    found = random_topology(FLAX)
    names = {"Conv_0/kernel": "conv.weight", "Dense_0/kernel": "fc.weight"}
    with pytest.raises(ValueError, match=r"it has no mask for 'conv.weight', 'fc.weight', and the model's") as error:
        found.for_layers(LAYERS)
    assert str(names) in str(error.value)
    fitted = found.for_layers(LAYERS, names)
    np.testing.assert_array_equal(fitted.masks["fc.weight"], found.masks["Dense_0/kernel"].T)
    assert_equal(found.renamed(names).for_layers(LAYERS), fitted)
    back = {new: old for old, new in names.items()}
    assert_equal(fitted.renamed(back).for_layers(FLAX), found)


@checks("P3")
@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"conv": "a"}, "names holds 'conv', which no layer is called; there are conv.weight, fc.weight"),
        ({"fc.weight": "conv.weight"}, "layers holds the name 'conv.weight' more than once"),
    ],
)
def test_wrong_names_are_refused(names: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        random_topology().renamed(names)


@checks("P3")
def test_a_layer_that_the_model_leaves_out_is_named() -> None:
    with pytest.raises(ValueError, match=r"layers are without 'conv.weight'\. Choose the same layers \(include, exc"):
        random_topology().for_layers(LAYERS[1:])
    with pytest.raises(ValueError, match=r"it has no mask for 'conv.weight'"):
        random_topology(LAYERS[1:]).for_layers(LAYERS)


@checks("P6")
def test_inputs_in_another_order() -> None:
    """A linear layer that reads a flattened image computes the same of the image in either order of its axes."""
    rng = np.random.default_rng(0)
    image = rng.random((5, 4, 3))  # height, width, channels
    topology = single(Layer("fc", (60, 7), (0,), (1,)))
    weight = topology.masks["fc"] * rng.random((60, 7))
    other = topology.reordered("fc", (5, 4, 3), (2, 0, 1))
    turned = weight.reshape(5, 4, 3, 7).transpose(2, 0, 1, 3).reshape(60, 7)
    np.testing.assert_array_equal(other.masks["fc"], turned > 0)
    np.testing.assert_allclose(image.transpose(2, 0, 1).reshape(-1) @ turned, image.reshape(-1) @ weight)
    assert_equal(other.reordered("fc", (3, 5, 4), (1, 2, 0)), topology)
    kernel = single(OIHW)
    np.testing.assert_array_equal(kernel.reordered("a", (3, 1), (1, 0)).masks["a"], kernel.masks["a"])
    np.testing.assert_array_equal(kernel.reordered("a", (3,), (0,)).masks["a"], kernel.masks["a"])


@checks("P3")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x", (7,), (0,)), "name is 'x', which no layer is called"),
        (("fc.weight", (8,), (0,)), r"shape=\(8,\) and order=\(0,\) do not fit the 7 inputs of 'fc.weight'"),
        (("fc.weight", (7, 1), (0, 0)), "do not fit the 7 inputs"),
    ],
)
def test_wrong_orders_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        random_topology().reordered(*arguments)
