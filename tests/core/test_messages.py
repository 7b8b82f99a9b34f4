"""Messages that all adapters share."""

from __future__ import annotations

from rigl_core import Layer
from rigl_core.step import errors
from rigl_core.testing.checks import checks


@checks("P3")
def test_gradients_of_examples_get_their_own_remedy() -> None:
    layer = Layer("fc.weight", (4, 3), in_axes=(1,), out_axes=(0,))
    assert "a gradient for each of 8 examples" in str(errors.wrong_shape(layer, "gradient", (8, 4, 3)))
    for kind, shape in (("gradient", (4, 4)), ("parameter", (8, 4, 3))):
        assert "sparsify again after changing a model" in str(errors.wrong_shape(layer, kind, shape))
