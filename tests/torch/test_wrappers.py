"""Optimizers that wrap others: the topology follows whichever ``step()`` moves the weights, or nothing changes."""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.optim import Optimizer

from rigl_backends.torch import sparsify
from rigl_core import SparsityWarning
from rigl_core.testing.checks import checks
from tests.torch.helpers import SCHEDULE, batch, hooks_of, loss_of, mlp, rigl, same_bits, snapshot, train_step


class Accelerated(Optimizer):
    """As Accelerate's wrapper: an Optimizer that never calls its parent's __init__, and so has no hooks."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    @property
    def param_groups(self) -> Any:
        return self.optimizer.param_groups

    @property
    def state(self) -> Any:
        return self.optimizer.state

    def state_dict(self) -> Any:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: Any) -> None:
        self.optimizer.load_state_dict(state)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)

    def step(self, closure: Any = None) -> Any:
        return self.optimizer.step(closure)


class Sam(Optimizer):
    """The SAM that most people use, with a base optimizer and two steps."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})
        self.base_optimizer = torch.optim.SGD(self.param_groups, 0.1, momentum=0.9)
        self.param_groups, self.state = self.base_optimizer.param_groups, self.base_optimizer.state

    @torch.no_grad()
    def first_step(self) -> None:
        for param in self.param_groups[0]["params"]:
            self.state[param]["old"] = param.detach().clone()
            param.add_(param.grad, alpha=0.05)
        self.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        for param in self.param_groups[0]["params"]:
            param.copy_(self.state[param].pop("old"))
        self.base_optimizer.step()
        self.zero_grad()

    def step(self, closure: Any = None) -> Any:
        assert closure is not None
        self.first_step()
        loss = torch.enable_grad()(closure)()
        self.second_step()
        return loss


class Lookahead(Optimizer):
    """Zhang et al. 2019: every third step the weights go half the way back."""

    def __init__(self, base: Optimizer, *, hooked: bool) -> None:
        self.base = base
        if hooked:
            super().__init__(base.param_groups, {})
        else:
            self.state = defaultdict(dict)
        self.param_groups, self.count = base.param_groups, 0

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.base.zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = self.base.step(closure)
        self.count += 1
        if self.count % 3 == 0:
            for param in (param for group in self.param_groups for param in group["params"]):
                slow = self.state[param].setdefault("slow", torch.zeros_like(param))
                slow.add_(param - slow, alpha=0.5)
                param.copy_(slow)
        return loss


@checks("P3", "R1")
def test_a_wrapper_without_hooks_is_as_what_it_wraps() -> None:
    model, twin = mlp(), mlp()
    inner = torch.optim.AdamW(model.parameters(), 0.01)
    optimizer, plain = Accelerated(inner), torch.optim.AdamW(twin.parameters(), 0.01)
    sparse, other = sparsify(model, optimizer, rigl()), sparsify(twin, plain, rigl())
    for step in range(9):
        train_step(model, optimizer, batch(step))
        train_step(twin, plain, batch(step))
    assert same_bits(snapshot(model, inner), snapshot(twin, plain))
    assert same_bits(sparse.state_dict(), other.state_dict())
    with pytest.raises(ValueError, match="optimizer is already sparsified"):
        sparsify(model, optimizer, rigl())
    sparse.remove()
    assert hooks_of(model, inner) == 0


class Orthogonal(Accelerated):
    """As OrthoGrad of pytorch_optimizer: it changes gradients, and runs hooks of steps, but none of states."""

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer)
        self._optimizer_step_pre_hooks, self._optimizer_step_post_hooks = OrderedDict(), OrderedDict()
        self._patch_step_function()

    def step(self, closure: Any = None) -> Any:
        for param in (param for group in self.param_groups for param in group["params"] if param.grad is not None):
            weight, grad = param.detach(), param.grad
            param.grad = grad - weight * ((weight * grad).sum() / (weight * weight).sum().add(1e-30))
        return self.optimizer.step(closure)


@checks("R1", "V3", "Z1", "P2")
def test_a_wrapper_that_leaves_its_state_to_another() -> None:
    model = mlp()
    optimizer = Orthogonal(torch.optim.SGD(model.parameters(), 0.1, momentum=0.9))
    sparse = sparsify(model, optimizer, rigl())
    for step in range(9):
        bias = model[0].bias.detach().clone()
        train_step(model, optimizer, batch(step))
        assert same_bits(model[0].bias.detach(), bias) == SCHEDULE.fires(step)
        for name, mask in sparse.masks.items():
            assert not model.get_parameter(name)[~mask].any()
    other = mlp(seed=1)
    other.load_state_dict(model.state_dict())
    again = Orthogonal(torch.optim.SGD(other.parameters(), 0.1, momentum=0.9))
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert same_bits(sparsify(other, again, rigl()).state_dict(), sparse.state_dict())
    assert same_bits(dict(other.state_dict()), dict(model.state_dict()))


@checks("P3")
def test_a_wrapper_of_nothing_that_runs_hooks_is_refused() -> None:
    model = mlp()
    inner = torch.optim.SGD(model.parameters(), 0.1)
    hidden = Accelerated(inner)
    hidden.optimizer = Box(inner)
    before = snapshot(model, inner)
    with pytest.raises(ValueError, match="optimizer is a Accelerated, which runs no hooks: give the optimizer inside"):
        sparsify(model, hidden, rigl())
    assert same_bits(snapshot(model, inner), before)
    assert hooks_of(model, inner) == 0


class Box:
    """It hides an optimizer from everybody."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.param_groups, self.state = optimizer.param_groups, optimizer.state


@checks("R1", "V3", "Z1")
def test_the_two_steps_of_sam_are_steps_of_its_base() -> None:
    model = mlp()
    optimizer = Sam(model.parameters())
    sparse = sparsify(model, optimizer, rigl())
    for step in range(9):
        old, bias = sparse.masks, model[0].bias.detach().clone()
        for half in (optimizer.first_step, optimizer.second_step):
            loss_of(model, batch(step)).backward()
            half()
        updating = SCHEDULE.fires(step)
        assert sparse.step == step + 1
        assert same_bits(model[0].bias.detach(), bias) == updating
        for name, mask in sparse.masks.items():
            assert not model.get_parameter(name)[~mask].any()
            momentum = optimizer.state[model.get_parameter(name)].get("momentum_buffer")
            assert momentum is None or not momentum[~mask].any()
        assert updating != same_bits(sparse.masks, old)


@checks("R1", "V3")
def test_sam_with_a_closure() -> None:
    model = mlp()
    optimizer = Sam(model.parameters())
    sparse = sparsify(model, optimizer, rigl())

    def closure() -> Any:
        loss = loss_of(model, batch(sparse.step))
        loss.backward()
        return loss

    for step in range(9):
        bias = model[0].bias.detach().clone()
        closure()
        optimizer.step(closure)
        assert sparse.step == step + 1
        assert same_bits(model[0].bias.detach(), bias) == SCHEDULE.fires(step)
        assert all(not model.get_parameter(name)[~mask].any() for name, mask in sparse.masks.items())


@checks("Z1", "P4")
@pytest.mark.parametrize("hooked", [False, True])
def test_what_lookahead_writes_outside_is_zeroed_and_told_unless_hooks_see_it(hooked: bool) -> None:
    model = mlp()
    optimizer = Lookahead(torch.optim.SGD(model.parameters(), 0.1), hooked=hooked)
    sparse = sparsify(model, optimizer, rigl())
    for step in range(9):  # after the update at step 7, the weights go back at step 8
        train_step(model, optimizer, batch(step))
    if hooked:
        assert sparse.masks
    else:
        with pytest.warns(SparsityWarning, match="weights lie outside their masks"):
            assert sparse.masks
    train_step(model, optimizer, batch(9))
    for name, mask in sparse.masks.items():
        assert not model.get_parameter(name)[~mask].any()


class Parts(Optimizer):
    """As ZeroRedundancyOptimizer in one of several processes: its inner optimizer holds some of the parameters."""

    def __init__(self, params: Any, part: list[nn.Parameter]) -> None:
        super().__init__(params, {})
        self.optim = torch.optim.SGD(part, 0.1, momentum=0.9)

    def step(self, closure: Any = None) -> Any:
        return self.optim.step(closure)


@checks("R1", "V3", "Z1")
def test_a_wrapper_whose_optimizer_holds_a_part() -> None:
    model = mlp()
    optimizer = Parts(model.parameters(), list(model[0].parameters()))
    sparse = sparsify(model, optimizer, rigl())
    for step in range(9):
        train_step(model, optimizer, batch(step))
        assert sparse.step == step + 1
        mask, weight = sparse.masks["0.weight"], model[0].weight
        assert not weight[~mask].any()
        assert not optimizer.optim.state[weight]["momentum_buffer"][~mask].any()


@checks("P2")
def test_a_wrapped_training_travels() -> None:
    model = mlp()
    optimizer = Sam(model.parameters())
    sparse = sparsify(model, optimizer, rigl())
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), optimizer.base_optimizer.state_dict()))
    assert sparse.step == 0
    for half in (optimizer.first_step, optimizer.second_step):
        loss_of(model, batch(0)).backward()
        half()
    optimizer.load_state_dict(saved[1])
    assert sparse.step == 0


@pytest.fixture
def one_process() -> Iterator[DeviceMesh]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@checks("T5")
@pytest.mark.filterwarnings("ignore::rigl_core.SparsityWarning")  # most of this model stays dense
def test_sharded_parameters_beside_sparse_ones(one_process: DeviceMesh) -> None:
    """Tensor parallelism: the gradients of parameters that stay dense decide with the others (T5)."""
    model = nn.Sequential(mlp(), nn.Linear(6, 6))
    parallelize_module(model, one_process, {"0.0": ColwiseParallel(), "0.2": RowwiseParallel()})
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    sparse = sparsify(model, optimizer, rigl(), exclude=["0.*"])
    for step in range(2):
        train_step(model, optimizer, batch(step))
    optimizer.zero_grad()
    loss_of(model, batch(2)).backward()
    sharded = model.get_parameter("0.0.weight").grad
    assert sharded is not None
    sharded.to_local()[0, 0] = float("inf")
    optimizer.step()
    assert sparse.state_dict()["deferred"]


@checks("R1", "V3", "Z1")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_state_in_parts(one_process: DeviceMesh) -> None:
    """The state is in an optimizer inside."""
    from torch.distributed.optim import ZeroRedundancyOptimizer  # the import itself warns

    model = mlp()
    optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.AdamW, lr=0.01)
    sparse = sparsify(model, optimizer, rigl())
    for step in range(9):
        train_step(model, optimizer, batch(step))
        assert sparse.step == step + 1
    for name, mask in sparse.masks.items():
        param = model.get_parameter(name)
        assert not param[~mask].any()
        assert not optimizer.optim.state[param]["exp_avg"][~mask].any()
