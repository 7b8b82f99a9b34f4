"""Steps that pass a sparse training by are told, and gradients that come from elsewhere are masked (P5, G1)."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.optim import Optimizer

from rigl_backends.torch import SparseTraining, sparsify
from rigl_core import SparsityWarning
from rigl_core.testing.checks import checks
from tests.torch.helpers import METHODS, batch, loss_of, mlp, rigl, same_bits, train_step

PASSED_BY = "weights change without a step of the sparsified optimizer"


def sgd(model: nn.Module, **options: Any) -> Optimizer:
    return torch.optim.SGD(model.parameters(), 0.1, **options)


class BySam(Optimizer):
    """SAM as its users know it: a first and a second step, and no ``step()``; it wraps nothing that could be hooked."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})

    def add_all(self, factor: float) -> None:
        with torch.no_grad():
            for param in self.param_groups[0]["params"]:
                param.add_(param.grad, alpha=factor)


Train = Callable[[nn.Sequential, int], None]


def by_a_new_optimizer() -> Train:
    optimizers: list[Optimizer] = []

    def train(model: nn.Sequential, step: int) -> None:
        optimizers.append(optimizers[0] if optimizers else sgd(model))
        train_step(model, optimizers[0], batch(step))

    return train


def by_hand() -> Train:
    def train(model: nn.Sequential, step: int) -> None:
        model.zero_grad()
        loss_of(model, batch(step)).backward()
        with torch.no_grad():
            for param in model.parameters():
                param -= 0.1 * param.grad

    return train


def by_new_data() -> Train:
    def train(model: nn.Sequential, step: int) -> None:
        model.zero_grad()
        loss_of(model, batch(step)).backward()
        for param in model.parameters():
            assert param.grad is not None
            param.data = param.data - 0.1 * param.grad

    return train


def by_two_steps() -> Train:
    optimizers: list[BySam] = []

    def train(model: nn.Sequential, step: int) -> None:
        optimizers.append(optimizers[0] if optimizers else BySam(model.parameters()))
        model.zero_grad()
        loss_of(model, batch(step)).backward()
        optimizers[0].add_all(0.05)
        loss_of(model, batch(step)).backward()
        optimizers[0].add_all(-0.1)

    return train


LOOKS: dict[str, Callable[[SparseTraining, Optimizer], Any]] = {
    "masks": lambda sparse, optimizer: sparse.masks,
    "table": lambda sparse, optimizer: sparse.table,
    "state_dict": lambda sparse, optimizer: sparse.state_dict(),
    "save": lambda sparse, optimizer: optimizer.state_dict(),
}
BYPASSES = [by_a_new_optimizer, by_hand, by_new_data, by_two_steps]


@checks("P5")
@pytest.mark.parametrize("bypass", BYPASSES)
@pytest.mark.parametrize("trained_before", [0, 4])
def test_it_is_told_at_the_third_backward_pass_at_the_latest(bypass: Callable[[], Train], trained_before: int) -> None:
    model = mlp()
    optimizer = sgd(model)
    sparse = sparsify(model, optimizer, rigl())
    for step in range(trained_before):
        train_step(model, optimizer, batch(step))
    train = bypass()

    def train_thrice() -> None:
        for step in range(3):
            train(model, step)

    with pytest.warns(SparsityWarning, match=rf"{PASSED_BY}, .* at step {trained_before}") as told:
        train_thrice()
    assert len(told) == 1  # once, not at every step
    assert sparse.step == trained_before


@checks("P5")
@pytest.mark.parametrize("bypass", BYPASSES)
@pytest.mark.parametrize("look", LOOKS)
def test_it_is_told_at_the_first_look(bypass: Callable[[], Train], look: str) -> None:
    model = mlp()
    optimizer = sgd(model)
    sparse = sparsify(model, optimizer, METHODS["SET"])
    train_step(model, optimizer, batch(0))
    train = bypass()
    train(model, 0)
    with pytest.warns(SparsityWarning, match=PASSED_BY):
        LOOKS[look](sparse, optimizer)
    train_step(model, optimizer, batch(1))
    assert sparse.masks  # all is well again


@checks("P5")
def test_new_parameters_are_told_to_who_looks() -> None:
    """As `fully_shard` gives a model, and who replaces a layer."""
    model = mlp()
    optimizer = sgd(model)
    sparse = sparsify(model, optimizer, rigl())
    train_step(model, optimizer, batch(0))
    model[0] = nn.Linear(12, 16)
    message = "new parameters in place of the layers '0.weight'.* step 1"
    with pytest.warns(SparsityWarning, match=message):
        _ = sparse.table


@checks("P5")
def test_a_new_optimizer_of_new_parameters_is_told_at_its_second_step() -> None:
    model = mlp()
    sparsify(model, sgd(model), rigl())
    for i in (0, 2):
        model[i].weight = nn.Parameter(model[i].weight.detach().clone())
    new = sgd(model)
    train_step(model, new, batch(0))
    with pytest.warns(SparsityWarning, match=r"new parameters in place of the layers '0\.weight', '2\.weight'"):
        train_step(model, new, batch(1))
    train_step(model, new, batch(2))


@checks("P5")
def test_the_optimizer_of_another_model_costs_nothing_and_is_still_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a search over many trainings in one process. The model is searched seldom, but never left alone."""
    model, others = mlp(), nn.Linear(3, 2)
    sparsify(model, sgd(model), rigl())
    other, searches = sgd(others), list[int]()
    parameters = model.parameters
    monkeypatch.setattr(model, "parameters", lambda *given: searches.append(1) or parameters(*given))

    def steps() -> None:
        for _ in range(100):
            other.step()

    steps()
    assert len(searches) <= 8
    model[0].weight = nn.Parameter(model[0].weight.detach().clone())
    other.add_param_group({"params": [model[0].weight]})
    with pytest.warns(SparsityWarning, match="new parameters in place of the layers '0.weight'"):
        steps()


@checks("P5")
def test_the_old_optimizer_tells_of_new_parameters_at_its_next_step() -> None:
    model = mlp()
    optimizer = sgd(model)
    sparsify(model, optimizer, rigl())
    model[0] = nn.Linear(12, 16)
    with pytest.warns(SparsityWarning, match="new parameters in place of"):
        train_step(model, optimizer, batch(0))


def accumulate(model: nn.Sequential, optimizer: Optimizer, sparse: SparseTraining) -> None:
    for part in range(5):
        loss_of(model, batch(0, part)).backward()
    optimizer.step()


def sam_around(model: nn.Sequential, optimizer: Optimizer, sparse: SparseTraining) -> None:
    """The sparsified optimizer is the base of a SAM by hand."""
    optimizer.zero_grad()
    loss_of(model, batch(0)).backward()
    old = [param.detach().clone() for param in model.parameters()]
    with torch.no_grad():
        for param in model.parameters():
            param.add_(param.grad, alpha=0.05)
    optimizer.zero_grad()
    loss_of(model, batch(0)).backward()
    with torch.no_grad():
        for param, values in zip(model.parameters(), old, strict=True):
            param.copy_(values)
    optimizer.step()


def evaluate(model: nn.Sequential, optimizer: Optimizer, sparse: SparseTraining) -> None:
    """Averaged weights for a validation, and gradients that are thrown away."""
    train_step(model, optimizer, batch(0))
    own = copy.deepcopy(model.state_dict())
    model.load_state_dict({key: value * 0.5 for key, value in own.items()})
    _ = sparse.masks
    model.load_state_dict(own)
    for step in range(4):
        model.zero_grad()
        loss_of(model, batch(step)).backward()


def other_networks(model: nn.Sequential, optimizer: Optimizer, sparse: SparseTraining) -> None:
    """The generator of a GAN learns through the model, which gets gradients, too."""
    generator = nn.Linear(12, 12)
    other = sgd(generator)
    for step in range(4):
        model.zero_grad()
        other.zero_grad()
        x, labels = batch(step)
        loss_of(model, (generator(x), labels)).backward()
        other.step()
    train_step(model, optimizer, batch(0))


def move(model: nn.Sequential, optimizer: Optimizer, sparse: SparseTraining) -> None:
    train_step(model, optimizer, batch(0))
    model.double().float()
    train_step(model, optimizer, batch(1))


@pytest.mark.parametrize("use", [accumulate, sam_around, evaluate, other_networks, move])
@pytest.mark.parametrize("method", ["RigL", "SET", "DNW"])
def test_ordinary_trainings_are_told_nothing(use: Callable[..., None], method: str) -> None:
    model = mlp()
    optimizer = sgd(model)
    sparse = sparsify(model, optimizer, METHODS[method])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            use(model, optimizer, sparse)
        _ = sparse.table
    assert sparse.step >= 4


def test_removed_trainings_tell_nothing() -> None:
    model = mlp()
    optimizer = sgd(model)
    sparse = sparsify(model, optimizer, rigl())
    sparse.remove()
    train = by_a_new_optimizer()
    for step in range(4):
        train(model, step)


def put_gradients(model: nn.Module, step: int) -> None:
    x, labels = batch(step)
    weights = {name: param.detach() for name, param in model.named_parameters()}

    def loss(weights: dict[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(functional_call(model, weights, (x,)), labels)

    for name, gradient in grad(loss)(weights).items():
        model.get_parameter(name).grad = gradient


@checks("G1")
@pytest.mark.parametrize("method", METHODS)
def test_gradients_from_elsewhere_are_as_those_of_backward(method: str) -> None:
    """The same norms for clipping, and the same training, with one line before the clipping."""
    model = mlp()
    optimizer = sgd(model, momentum=0.9)
    sparse = sparsify(model, optimizer, METHODS[method])
    twin, twin_optimizer, twin_sparse = copy.deepcopy((model, optimizer, sparse))
    for step in range(9):
        optimizer.zero_grad()
        put_gradients(model, step)
        sparse.zero_gradients_outside()
        twin_optimizer.zero_grad()
        loss_of(twin, batch(step)).backward()
        norms = [nn.utils.clip_grad_norm_(one.parameters(), 0.1) for one in (model, twin)]
        assert same_bits(*norms)
        optimizer.step()
        twin_optimizer.step()
        assert same_bits(sparse.masks, twin_sparse.masks)
    assert all(same_bits(a.detach(), b.detach()) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
