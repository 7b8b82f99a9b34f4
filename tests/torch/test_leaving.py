"""Trained models as plain modules and as what other tools of PyTorch know; the model itself stays as it was."""

from __future__ import annotations

import copy
import re
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from rigl_backends.torch import (
    CSRLinear,
    SparseConv2d,
    SparseLinear,
    sparsify,
    to_csr,
    to_dense,
    to_prune,
    to_semi_structured,
)
from rigl_core import NM, Recipe, RigL, UpdateSchedule
from tests.torch.helpers import SCHEDULE, rigl, same_bits


def convnet() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(4, 8, 3, stride=2, padding="valid", groups=2), nn.ReLU(), nn.Conv2d(8, 4, (1, 3), padding=(0, 1))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 9, 12, bias=False), nn.Linear(12, 3))


def trained(model: nn.Module, x: Tensor, recipe: Recipe, storage: Literal["masks", "active"] = "masks") -> Any:
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    sparse = sparsify(model, optimizer, recipe, storage=storage if storage == "masks" else {"*": "active"})
    for _ in range(4):
        optimizer.zero_grad()
        y = model(x)
        (y[0] if isinstance(y, tuple) else y).square().mean().backward()
        optimizer.step()
    return sparse


@pytest.mark.parametrize("storage", ["masks", "active"])
def test_dense_modules(storage: Literal["masks", "active"]) -> None:
    model, x = convnet(), torch.randn(5, 4, 7, 7)
    sparse = trained(model, x, rigl(), storage)
    model[0].weight.requires_grad_(False)
    own = to_dense(model)
    assert [type(module) for module in own] == [type(module) for module in convnet()]
    assert same_bits(dict(own.state_dict()), sparse.with_masks(model.state_dict()))
    assert not any(own.get_parameter(name)[~mask].any() for name, mask in sparse.masks.items())
    assert [p.requires_grad for p in own.parameters()] == [p.requires_grad for p in model.parameters()]
    torch.testing.assert_close(own(x), model(x))
    assert isinstance(model[0], SparseConv2d) == isinstance(model[4], SparseLinear) == (storage == "active")
    assert not {id(param) for param in own.parameters()} & {id(param) for param in model.parameters()}
    if storage == "active":
        assert type(to_dense(model[4])) is nn.Linear


@pytest.mark.parametrize("storage", ["masks", "active"])
def test_tools_that_know_prune_know_the_model(storage: Literal["masks", "active"]) -> None:
    model, x = convnet(), torch.randn(5, 4, 7, 7)
    sparse = trained(model, x, rigl(dense=["5.*"]), storage)
    pruned, dense = to_prune(model, sparse.masks), to_dense(model)
    assert prune.is_pruned(pruned)
    assert not prune.is_pruned(model)
    state = pruned.state_dict()
    assert {name for name in state if name.endswith("_mask")} == {f"{i}.weight_mask" for i in (0, 2, 4)}
    for i in (0, 2, 4):
        assert torch.equal(state[f"{i}.weight_mask"].bool(), sparse.masks[f"{i}.weight"])
    torch.testing.assert_close(pruned(x), dense(x), rtol=0, atol=0)
    optimizer = torch.optim.SGD(pruned.parameters(), 0.1)
    pruned(x).square().mean().backward()
    optimizer.step()
    for i in (0, 2, 4):
        prune.remove(pruned[i], "weight")
        changed = pruned[i].weight != dense[i].weight
        assert changed.any()
        assert not changed[~sparse.masks[f"{i}.weight"]].any()
    assert pruned.state_dict().keys() == dense.state_dict().keys()


def test_recurrent_weights_are_pruned_too() -> None:
    torch.manual_seed(0)
    model, x = nn.GRU(6, 8), torch.randn(3, 2, 6)
    sparse = trained(model, x, rigl())
    pruned = to_prune(model, sparse.masks)
    assert {name for name, _ in pruned.named_buffers()} == {"weight_ih_l0_mask", "weight_hh_l0_mask"}
    torch.testing.assert_close(pruned(x)[0], model(x)[0], rtol=0, atol=0)


def test_masks_that_do_not_fit_are_refused() -> None:
    model = convnet()
    good = {"4.weight": torch.zeros(12, 36, dtype=torch.bool)}
    for masks, message in (
        ({**good, "weight": good["4.weight"]}, "masks has 'weight', which is no parameter of model"),
        ({"4.weight": good["4.weight"].T}, "masks has a torch.bool tensor of shape (36, 12) for '4.weight'"),
        ({"4.weight": good["4.weight"].float()}, "masks has a torch.float32 tensor of shape (12, 36) for '4.weight'"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            to_prune(model, masks)
    with pytest.raises(TypeError, match="masks is a list: it must be a mapping"):
        to_prune(model, [good["4.weight"]])  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_two_of_every_four_inputs_are_packed_without_loss(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 12)), torch.randn(8, 128)
    trained(model, x, RigL(schedule=SCHEDULE, structure=NM(2, 4)))
    packed = to_semi_structured(model.to(dtype))
    weight: Any = packed[0].weight
    assert weight.packed.shape == (64, 64)  # half of the inputs
    assert same_bits(weight.to_dense(), model[0].weight.detach())
    assert same_bits(packed[2].weight.detach(), model[2].weight.detach())  # 12 outputs do not fit
    assert type(model[0].weight) is nn.Parameter
    assert same_bits(copy.deepcopy(packed)[0].weight.to_dense(), model[0].weight.detach())
    with pytest.raises(NotImplementedError, match="_sparse_semi_structured_addmm"):  # the kernel that a GPU has
        packed(x.to(dtype))


def test_weights_that_cannot_be_packed_are_told() -> None:
    sizes = nn.Linear(64, 31), nn.Linear(60, 32), nn.Linear(64, 32)
    with pytest.raises(
        ValueError, match=r"'0' has 31 outputs and 64 inputs.*'1' has 32 outputs and 60.*'2' has 512 gr"
    ):
        to_semi_structured(nn.Sequential(*sizes).half())
    with pytest.raises(ValueError, match=re.escape("'model' is float32: call model.half()")):
        to_semi_structured(nn.Linear(64, 32))
    with pytest.raises(ValueError, match="can be semi-structured: there is none"):
        to_semi_structured(nn.ReLU())


def test_a_transformer_leaves_its_fused_path() -> None:
    """In ``eval()``, the path reads the weights of modules that it does not call."""
    torch.manual_seed(0)
    layer, x = nn.TransformerEncoderLayer(64, 2, 128, dropout=0.0, batch_first=True), torch.randn(2, 5, 64)
    trained(layer, x, RigL(0.9, schedule=UpdateSchedule(end=2)))
    csr = to_csr(layer)
    assert isinstance(csr.linear1, CSRLinear)
    with torch.no_grad():
        torch.testing.assert_close(csr(x), layer.eval()(x), rtol=1e-4, atol=1e-5)
        packed = to_semi_structured(nn.TransformerEncoderLayer(64, 2, 64, batch_first=True).half().apply(two_of_four))
        with pytest.raises(NotImplementedError, match="_sparse_semi_structured_addmm"):
            packed(x.half())


def two_of_four(module: nn.Module) -> None:
    if type(module) is nn.Linear:
        module.weight.detach().view(-1, 4)[:, 2:] = 0
