"""timm's models, optimizers, schedules and averages; and torch.compile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import timm
import torch
from torch import nn

import compile_loop
import timm_loop
from rigl_backends.torch import plan
from rigl_core import RigL, UpdateSchedule
from tests.torch import optimizers_page
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


FAMILIES = [
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "seresnet50",
    "resnetv2_50",
    "densenet121",
    "vgg11_bn",
    "inception_v3",
    "xception41",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "efficientnet_b0",
    "tf_efficientnetv2_s",
    "mnasnet_100",
    "regnetx_002",
    "regnety_002",
    "convnext_atto",
    "convnextv2_atto",
    "ghostnet_100",
    "repvgg_a0",
    "hrnet_w18_small",
    "dla34",
    "dpn68",
    "nfnet_f0",
    "ecaresnet50t",
    "vit_tiny_patch16_224",
    "deit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "mixer_s16_224",
    "resmlp_12_224",
    "gmlp_s16_224",
    "poolformer_s12",
    "coatnet_0_rw_224",
    "maxvit_tiny_rw_224",
    "beit_base_patch16_224",
    "cait_xxs24_224",
    "xcit_nano_12_p16_224",
    "levit_128s",
    "edgenext_xx_small",
    "mobilevit_xxs",
    "twins_pcpvt_small",
]


@pytest.mark.parametrize(
    "name", ["test_vit", "test_efficientnet", *(pytest.param(name, marks=pytest.mark.heavy) for name in FAMILIES)]
)
def test_the_connections_of_a_model_are_layers_and_the_rest_is_not(name: str) -> None:
    """Class tokens, positions, scales and depthwise kernels are no connections between features."""
    with torch.device("meta"):
        model = timm.create_model(name)
    layers = {layer.name: layer for layer in plan(model, RECIPE).layers}
    assert set(layers) == set(_connections(model))
    assert {(layer.in_axes[0], layer.out_axes) for layer in layers.values()} == {(1, (0,))}


def _connections(model: nn.Module) -> Iterator[str]:
    for name, module in model.named_modules():
        convolution = isinstance(module, nn.modules.conv._ConvNd)
        depthwise = convolution and module.groups == module.in_channels > 1
        if (convolution and not depthwise) or isinstance(module, nn.Linear):
            yield f"{name}.weight"


@pytest.mark.heavy
def test_the_page_says_what_becomes_of_timms_optimizers() -> None:
    page = optimizers_page.FILE.read_text()
    section = optimizers_page.package_section("timm")
    assert section is not None
    assert section.count("\n") > 2
    assert optimizers_page.with_part(page, "timm", section) == page, "run python -m tests.torch.optimizers_page"


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
