"""Messages that all adapters share."""

from __future__ import annotations

from typing import Any

import pytest

from rigl_core import Layer
from rigl_core.adapter import with_axes
from rigl_core.step import errors
from rigl_core.testing.checks import checks


@checks("P3")
def test_gradients_of_examples_get_their_own_remedy() -> None:
    layer = Layer("fc.weight", (4, 3), in_axes=(1,), out_axes=(0,))
    assert "a gradient for each of 8 examples" in str(errors.wrong_shape(layer, "gradient", (8, 4, 3)))
    for kind, shape in (("gradient", (4, 4)), ("parameter", (8, 4, 3))):
        assert "sparsify again after changing a model" in str(errors.wrong_shape(layer, kind, shape))


@checks("P3")
@pytest.mark.parametrize("pair", [{"in": (0,), "out": (1,)}, (0, 1), ((0,),), ((0,), (1,), (2,)), "01", ((0.5,), (1,))])
def test_axes_that_are_no_pair_are_named(pair: Any) -> None:
    layer = Layer("fc.weight", (4, 3))
    with pytest.raises(TypeError, match=r"axes of layer 'fc.weight' are .*: give two sequences of whole numbers"):
        with_axes([layer], {"fc.*": pair}, ["fc.weight"])


@checks("P3")
@pytest.mark.parametrize("parameter", ["axes", "stacked", "fused"])
def test_patterns_without_a_value_are_named(parameter: str) -> None:
    given: dict[str, Any] = {"axes": None, parameter: {"fc.*": None}}
    with pytest.raises(TypeError, match=rf"{parameter}\['fc.\*'\] is None: say what is meant"):
        with_axes([Layer("fc.weight", (4, 3))], names=["fc.weight"], **given)
