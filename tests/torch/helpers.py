"""Helpers of the PyTorch adapter's tests: a small training, snapshots of its bits, and the mask of an update."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from rigl_core import DNS, DNW, MEST, SET, SNFS, DeepR, InitialValues, Recipe, RigL, UpdateSchedule

SCHEDULE = UpdateSchedule(end=25, every=5, begin=2)
"""Updates fire at steps 2, 7, 12, 17 and 22."""

METHODS: dict[str, Recipe] = {
    "RigL": RigL(0.7, schedule=SCHEDULE),
    "initial values": RigL(0.7, schedule=SCHEDULE, grown=InitialValues()),
    "SET": SET(0.7, schedule=SCHEDULE),
    "MEST": MEST(0.7, schedule=SCHEDULE),
    "SNFS": SNFS(0.7, schedule=SCHEDULE),
    "Deep R": DeepR(0.7, schedule=SCHEDULE, l1=0.01, noise=0.1),
    "DNW": DNW(0.7, schedule=SCHEDULE),
    "DNS": DNS(0.7, schedule=SCHEDULE),
}
"""One recipe of each kind that the adapter treats differently."""

Batch = tuple[Tensor, Tensor]


def rigl(sparsity: float = 0.7, **options: Any) -> Recipe:
    return RigL(sparsity, schedule=SCHEDULE, **options)


def mlp(*, bias: bool = True, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 16, bias=bias), nn.ReLU(), nn.Linear(16, 6, bias=bias))


def batch(step: int, part: int = 0) -> Batch:
    """A batch that depends only on the step and the micro-batch, so a resumed training sees the same batch."""
    generator = torch.Generator().manual_seed(1000 * step + part)
    x = torch.randn(32, 12, generator=generator)
    return x, x[:, :6].argmax(1)


def loss_of(model: nn.Module, data: Batch) -> Tensor:
    x, labels = data
    return functional.cross_entropy(model(x), labels)


def train_step(model: nn.Module, optimizer: Optimizer, data: Batch) -> None:
    optimizer.zero_grad()
    loss_of(model, data).backward()
    optimizer.step()


def bits(value: Tensor) -> Tensor:
    """The bytes of a tensor: NaN equals itself, and -0 differs from 0."""
    return value.detach().clone().reshape(-1).view(torch.uint8)


def same_bits(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(bits(a), bits(b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same_bits(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same_bits, a, b))
    return type(a) is type(b) and bool(a == b)


def snapshot(model: nn.Module, optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """Copies of all parameters and of their optimizer state, by the parameter's name."""
    params = dict(model.named_parameters())
    weights = {name: param.detach().clone() for name, param in params.items()}
    return weights, {name: copy.deepcopy(optimizer.state.get(param, {})) for name, param in params.items()}


def per_weight(state: Mapping[str, Any], weight: Tensor) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if isinstance(value, Tensor) and value.shape == weight.shape}


def dense_gradients(model: nn.Module, backward: Callable[[nn.Module], None]) -> dict[str, Tensor | None]:
    """The gradients of a copy of the model, which has no hooks and no gradients before."""
    twin = copy.deepcopy(model)
    twin.zero_grad()
    backward(twin)
    return {name: param.grad for name, param in twin.named_parameters()}


def expected_mask(weight: Tensor, gradient: Tensor, mask: Tensor, drop_count: int) -> Tensor:
    """The new mask of a RigL update, by two stable sorts; the values hold no NaN."""
    score = torch.where(mask, weight.detach().abs(), -1).reshape(-1)
    kept = score.argsort(descending=True, stable=True)[: int(mask.sum()) - drop_count]
    growth = gradient.abs().reshape(-1).clone()
    growth[kept] = -1
    grown = growth.argsort(descending=True, stable=True)[:drop_count]
    new = torch.zeros(mask.numel(), dtype=torch.bool)
    new[torch.cat([kept, grown])] = True
    return new.reshape(mask.shape)


def hooks_of(model: nn.Module, optimizer: Optimizer) -> int:
    """The number of hooks of any kind on the optimizer's step and on the parameters."""
    on_params = sum(
        len(hooks or {})
        for param in model.parameters()
        for hooks in (param._post_accumulate_grad_hooks, param._backward_hooks)
    )
    return on_params + len(optimizer._optimizer_step_pre_hooks) + len(optimizer._optimizer_step_post_hooks)


class HostSyncs(TorchDispatchMode):
    """Counts the operations that make the host wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "equal", "masked_select", "is_nonzero"):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))
