"""Layers that choose together and are on several devices. The devices are simulated, so the tests need no GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rigl_backends.torch import sparsify
from rigl_backends.torch.layer import SparseLayer
from rigl_core import DNW, DSR, MAGNITUDE, SNFS, Recipe, RigL
from rigl_core.testing.checks import checks
from tests.torch.helpers import SCHEDULE, same_bits, snapshot

RECIPES: dict[str, Recipe] = {
    "global": RigL(0.7, schedule=SCHEDULE, scope="global", initial=MAGNITUDE),
    "DNW": DNW(0.7, schedule=SCHEDULE, scope="global"),
    "DSR": DSR(0.7, schedule=SCHEDULE),
    "SNFS": SNFS(0.7, schedule=SCHEDULE),
}


class Devices(TorchDispatchMode):
    """Gives each new tensor the device of its inputs. Only a copy may have inputs on two devices."""

    def __init__(self) -> None:
        super().__init__()
        self._device: dict[int, str] = {}
        self._alive: list[Tensor] = []  # so that no other tensor gets their storage

    def put(self, tensor: Tensor, device: str) -> None:
        self._device.setdefault(tensor.untyped_storage()._cdata, device)
        self._alive.append(tensor)

    def of(self, tensor: Tensor) -> str | None:
        return self._device.get(tensor.untyped_storage()._cdata)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = [x for x in tree_leaves((args, kwargs or {})) if isinstance(x, Tensor)]
        devices = {device for x in inputs if (device := self.of(x)) is not None}
        out = func(*args, **(kwargs or {}))
        if func is not torch.ops.aten.copy_.default:
            assert len(devices) <= 1, f"{func} has tensors of {devices}"
            for x in tree_leaves(out):
                if isinstance(x, Tensor) and devices:
                    self.put(x, *devices)
        return out


def train(recipe: Recipe, devices: Devices, number: int) -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 16), nn.Linear(16, 6), nn.Linear(6, 12))
    for i, layer in enumerate(model):
        for param in layer.parameters():
            devices.put(param, f"device {i % number}")
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, foreach=False)
    with devices:
        sparse = sparsify(model, optimizer, recipe)
        for step in range(9):
            for param in model.parameters():
                param.grad = param.detach() * (step + 1) % 3
            optimizer.step()
    return sparse.state_dict(), snapshot(model, optimizer)


def is_finite(gradient: Tensor) -> bool:
    return bool(gradient.isfinite().all())


@checks("M3", "M5")
@pytest.mark.parametrize("name", RECIPES)
def test_layers_on_several_devices_choose_together(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def bring(layer: SparseLayer, array: Any) -> Any:
        if not isinstance(array, Tensor) or devices.of(array) == devices.of(layer.param):
            return array
        copied = torch.empty(array.shape, dtype=array.dtype).copy_(array)
        devices.put(copied, str(devices.of(layer.param)))
        return copied

    for module in ("namespace", "bits"):
        monkeypatch.setattr(f"rigl_backends.torch.{module}.numpy_shares", lambda *tensors: False)
    # It asks once for each device, and cannot know those that are simulated.
    monkeypatch.setattr("rigl_backends.torch.agreement.all_finite", lambda gradients: all(map(is_finite, gradients)))
    together = train(RECIPES[name], Devices(), number=1)
    devices = Devices()
    with pytest.raises(AssertionError, match=r"has tensors of \{'device .', 'device .'\}"):
        train(RECIPES[name], devices, number=2)
    monkeypatch.setattr(SparseLayer, "bring", bring)
    assert same_bits(train(RECIPES[name], devices, number=2), together)
