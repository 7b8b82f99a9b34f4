"""Truly sparse convolutions in PyTorch: against dense ones, whole trainings, checkpoints, and what is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from rigl_backends.torch import SparseConv2d, SparseTraining, sparsify
from rigl_core import Constant, RigL, Static, Uniform, UpdateSchedule
from rigl_core.testing.checks import checks

FREE = Uniform(first_dense=False)
RIGL = RigL(0.8, schedule=UpdateSchedule(end=40, every=3), drop_fraction=Constant(0.4), distribution=FREE)
ACTIVE: Any = {"*": "active"}
LAST: Any = torch.channels_last
Training = tuple[nn.Module, torch.optim.Optimizer, SparseTraining]


class Network(nn.Module):
    """Convolutions of all kinds, with batch normalization, a shortcut and a pool."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 24, 5, padding=2, bias=False)
        self.norm = nn.BatchNorm2d(24)
        self.deep = nn.Conv2d(24, 32, 3, stride=2, padding=1)
        self.shortcut = nn.Conv2d(24, 32, 1, stride=2)
        self.groups = nn.Conv2d(32, 32, (1, 3), padding="same", groups=4, dilation=2)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = (self.deep(x) + self.shortcut(x)).relu()
        x = functional.max_pool2d(self.groups(x), 2)
        return self.head(x.mean((2, 3)))


def make(storage: Any) -> Training:
    model = Network()
    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    return model, optimizer, sparsify(model, optimizer, RIGL, storage=storage)


def loss_of(model: nn.Module, step: int, samples: slice = slice(None)) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    x, labels = torch.randn(8, 3, 12, 10, generator=generator), torch.randint(0, 5, (8,), generator=generator)
    return functional.cross_entropy(model(x[samples]), labels[samples])


def train(training: Training, steps: range) -> list[float]:
    model, optimizer, _ = training
    losses = []
    for step in steps:
        optimizer.zero_grad()
        loss = loss_of(model, step)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return losses


def assert_equal_masks(one: SparseTraining, other: SparseTraining) -> None:
    for name, mask in one.masks.items():
        assert torch.equal(mask, other.masks[name]), name


@checks("A1", "A2", "V1")
def test_a_training_is_that_with_masks() -> None:
    active, masked = make(ACTIVE), make("masks")
    assert isinstance(active[0].stem, SparseConv2d)
    assert train(active, range(20)) == pytest.approx(train(masked, range(20)), rel=1e-3)
    assert_equal_masks(active[2], masked[2])
    assert str(active[2].table) == str(masked[2].table)
    for name in ("stem", "deep", "shortcut", "groups"):
        own, other = active[0].get_submodule(name), masked[0].get_submodule(name)
        torch.testing.assert_close(own.dense(), other.weight.detach(), rtol=1e-2, atol=1e-4)  # type: ignore[operator]


MODULES = {
    "plain": {"kernel_size": 3},
    "padding": {"kernel_size": (3, 2), "padding": (2, 1)},
    "same": {"kernel_size": (4, 3), "padding": "same", "dilation": (1, 2)},
    "valid": {"kernel_size": 2, "padding": "valid", "stride": (2, 3)},
    "groups": {"kernel_size": 3, "groups": 2, "bias": False},
}


def active_and_dense(options: Any) -> tuple[Any, nn.Conv2d]:
    """A sparse convolution, and a dense one of the same weights."""
    torch.manual_seed(0)
    dense = nn.Conv2d(6, 8, **options)
    model = nn.Sequential(copy.deepcopy(dense))
    sparsify(model, torch.optim.SGD(model.parameters(), 0.1), Static(0.6, distribution=FREE), storage=ACTIVE)
    dense.weight.data = model[0].dense()  # type: ignore[operator]
    return model[0], dense


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # of the dense convolution
@pytest.mark.parametrize("layout", ["first", "last", "one input", "other strides"])
@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_its_dense_one(name: str, layout: str) -> None:
    """Outputs, gradients and their places in memory."""
    active, dense = active_and_dense(MODULES[name])
    x = torch.randn(3, 6, 9, 7)
    x = {
        "first": x,
        "last": x.contiguous(memory_format=LAST),
        "one input": x[0],
        "other strides": x.transpose(2, 3)[:, :, ::2],
    }[layout]
    results = []
    for module in (active, dense):
        own = x.detach().requires_grad_()
        y = module(own)
        y.sin().sum().backward()
        gradients = [own.grad, *(param.grad for param in module.parameters())]
        results.append((y, *gradients))
    (y, dx, gradient, *bias), (dense_y, dense_dx, dense_gradient, *dense_bias) = results
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close([y, dx, *bias], [dense_y, dense_dx, *dense_bias], **close)
    expected = active.index.values(dense_gradient.numpy())
    torch.testing.assert_close(gradient, torch.from_numpy(expected), **close)
    if layout in ("first", "last"):
        assert [tensor.stride() for tensor in (y, dx)] == [tensor.stride() for tensor in (dense_y, dense_dx)]


@checks("P2", "A1")
@pytest.mark.parametrize(("before", "after"), [(ACTIVE, ACTIVE), (ACTIVE, "masks"), ("masks", ACTIVE)])
def test_a_checkpoint_in_either_storage(before: Any, after: Any) -> None:
    training = make(before)
    train(training, range(8))
    model, optimizer = copy.deepcopy((training[0].state_dict(), training[1].state_dict()))
    model = training[2].with_masks(model) if after == "masks" else model
    resumed = make(after)
    resumed[1].load_state_dict(optimizer)
    resumed[0].load_state_dict(model)
    went_on = train(training, range(8, 14))
    assert train(resumed, range(8, 14)) == (went_on if before is after else pytest.approx(went_on, rel=1e-3))
    assert_equal_masks(training[2], resumed[2])


@checks("A2", "G2")
def test_micro_batches_add() -> None:
    """Position after position, micro-batch after micro-batch: as one batch, where nothing is normalized by batches."""
    masks = []
    for parts in ([slice(None)], [slice(0, 3), slice(3, 8)]):
        model, optimizer, sparse = make(ACTIVE)
        model.norm.eval()  # type: ignore[union-attr, operator]
        for part in parts:
            (loss_of(model, 0, part) * len(range(8)[part]) / 8).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        masks.append(sparse.masks)
    assert all(torch.equal(mask, masks[1][name]) for name, mask in masks[0].items())


@checks("A2", "P5")
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.Linear])
def test_inputs_that_change(kind: Any) -> None:
    """Kernels may read inputs where they lie. Until backward() torch refuses a change; then it changes no update."""
    masks = []
    for changes in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(12, 20) if kind is nn.Linear else nn.Conv2d(12, 20, 1))
        x = torch.randn(1, 12, *(() if kind is nn.Linear else (3, 3)))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        sparse = sparsify(model, optimizer, RIGL, storage=ACTIVE)
        model(x).sin().sum().backward()
        if changes:
            x.zero_()
        optimizer.step()
        masks.append(sparse.masks["0.weight"])
        loss = model(x).sum()
        x.zero_()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()
    assert torch.equal(*masks)


@pytest.mark.parametrize("module", [nn.Linear(12, 20), nn.Conv2d(12, 20, 1)])
def test_outputs_from_before_sparsify(module: nn.Module) -> None:
    """As long as they live, autograd remembers the weight's shape of then."""
    model = nn.Sequential(module)
    x = torch.randn(2, 12, *(() if isinstance(module, nn.Linear) else (3, 3)))
    before = model(x).sum()
    sparsify(model, torch.optim.SGD(model.parameters(), 0.1), RIGL, storage=ACTIVE)
    model(x).sum().backward()
    assert model[0].weight.grad.shape == model[0].weight.shape  # type: ignore[union-attr]
    del before


@checks("A1", "N2")
def test_a_convolution_that_was_never_made() -> None:
    """It gets the topology of one that was, and its own initial values."""
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(40, 60, 3, groups=2), nn.BatchNorm2d(60))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparse = sparsify(model, optimizer, RIGL, storage=ACTIVE)
    made = nn.Sequential(nn.Conv2d(40, 60, 3, groups=2), nn.BatchNorm2d(60))
    assert_equal_masks(sparse, sparsify(made, torch.optim.SGD(made.parameters(), 0.1), RIGL, storage=ACTIVE))
    for own, other in zip(model[0].parameters(), made[0].parameters(), strict=True):
        assert own.shape == other.shape
        assert own.abs().max().item() == pytest.approx(other.abs().max().item(), rel=0.2)
    model(torch.randn(2, 40, 5, 5)).sum().backward()
    optimizer.step()


@checks("P3")
def test_mistakes_are_named() -> None:
    module, _ = active_and_dense({"kernel_size": 3})
    with pytest.raises(TypeError, match=r"a SparseConv2d got torch.float64 inputs"):
        module(torch.randn(1, 6, 5, 5).double())
    with pytest.raises(ValueError, match=r"inputs have shape \(1, 5, 5, 5\): the module takes \(samples, 6, height"):
        module(torch.randn(1, 5, 5, 5))
    with pytest.raises(ValueError, match=r"inputs have height and width \(2, 5\), which the kernel \(3, 3\)"):
        module(torch.randn(1, 6, 2, 5))
    with pytest.raises(TypeError, match=r"a SparseConv2d is made by rigl_backends.torch.sparsify"):
        SparseConv2d()
    assert repr(module) == "SparseConv2d(6, 8, kernel_size=(3, 3), stride=(1, 1), density=0.4)"
