"""timm's models, optimizers, schedules and averages; and torch.compile."""

from __future__ import annotations

import re

import pytest
import timm
import torch

import compile_loop
import timm_loop
from rigl_backends.torch import plan
from rigl_core import RigL, UpdateSchedule
from tests.torch.helpers import same_bits

RECIPE = RigL(0.9, schedule=UpdateSchedule(end=9, every=3))


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    model, average, sparse = timm_loop.main(["--steps", "30"])
    printed = capsys.readouterr().out
    assert "test accuracy 0." in printed
    assert str(sparse.table) in printed
    assert sparse.step == 30
    for one in (model, average.module):
        weights = dict(one.named_parameters())
        for name, mask in sparse.masks.items():
            assert not weights[name][~mask].any()
            assert weights[name][mask].any()


@pytest.mark.parametrize(("name", "dense"), [("test_vit", "cls_token|pos_embed"), ("test_efficientnet", "conv_dw")])
def test_a_models_connections_are_layers_and_the_rest_is_not(name: str, dense: str) -> None:
    model = timm.create_model(name)
    layers = {layer.name: layer for layer in plan(model, RECIPE).layers}
    weights = {name for name, param in model.named_parameters() if param.ndim > 1}
    left = {name for name in weights if re.search(dense, name)}
    assert left
    assert set(layers) == weights - left
    assert {(layer.in_axes[0], layer.out_axes) for layer in layers.values()} == {(1, (0,))}


def test_the_compiled_example_is_the_eager_one(capsys: pytest.CaptureFixture[str]) -> None:
    """The masks move at steps 0 and 20, and nothing is compiled a second time."""
    torch.compiler.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled, sparse = compile_loop.main(["--steps", "30", "--compiler", "aot_eager"])
    torch.compiler.reset()
    eager, other = compile_loop.main(["--steps", "30", "--compiler", "eager"])
    assert sparse.step == other.step == 30
    assert same_bits(sparse.state_dict(), other.state_dict())
    assert same_bits(compiled.state_dict(), eager.state_dict())
    assert capsys.readouterr().out.count(str(sparse.table)) == 2
    torch.compiler.reset()
