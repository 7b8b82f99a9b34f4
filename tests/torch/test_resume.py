"""A training that is stopped after any step and continued by new objects gives the same bits."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import permutations
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from rigl_backends.torch import SparseTraining, sparsify
from rigl_core import Recipe, SparsityWarning
from rigl_core.testing.checks import checks
from tests.torch.helpers import METHODS, batch, loss_of, mlp, per_weight, same_bits, snapshot, train_step

STEPS = 15
OVERFLOWS = (5, 7, 8, 12)
"""Steps with overflows: an ordinary one, update 1 at step 7, which is deferred twice, and update 2 at step 12."""
OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "nesterov": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "fused adamw": lambda p: torch.optim.AdamW(p, 0.01, fused=True),
    "adafactor": lambda p: torch.optim.Adafactor(p, 0.01),
    "adamax": lambda p: torch.optim.Adamax(p, 0.01),  # with constants in the state of inactive weights
    "rprop": lambda p: torch.optim.Rprop(p, 0.01),  # likewise
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.1, initial_accumulator_value=0.1),
}


class Run(NamedTuple):
    """All objects of a user's training."""

    model: nn.Sequential
    optimizer: Optimizer
    sparse: SparseTraining
    scheduler: Any
    scaler: GradScaler

    @classmethod
    def make(cls, kind: str, recipe: Recipe, seed: int = 0) -> Run:
        model = mlp(seed=seed)
        optimizer = OPTIMIZERS[kind](model.parameters())
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97)
        return cls(model, optimizer, sparsify(model, optimizer, recipe), scheduler, GradScaler("cpu", init_scale=64.0))

    def step(self, step: int) -> None:
        self.optimizer.zero_grad()
        loss = loss_of(self.model, batch(step))
        self.scaler.scale(loss * float("inf") if step in OVERFLOWS else loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()

    def save(self) -> bytes:
        file = io.BytesIO()
        torch.save({name: part.state_dict() for name, part in self._asdict().items()}, file)
        return file.getvalue()

    def load(self, saved: bytes, order: tuple[str, ...]) -> None:
        states = torch.load(io.BytesIO(saved), weights_only=True)
        for name in (*order, "scheduler", "scaler"):
            getattr(self, name).load_state_dict(states[name])

    def bits(self) -> tuple[Any, ...]:
        return *snapshot(self.model, self.optimizer), self.sparse.state_dict(), self.scaler.state_dict()


@checks("P2", "T5")
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step.*` before `optimizer.step:UserWarning")
@pytest.mark.parametrize(
    ("kind", "method"),
    [*((kind, "RigL") for kind in OPTIMIZERS), *(("fused adamw", method) for method in METHODS if method != "RigL")],
)
def test_killed_after_any_step_and_continued_by_new_objects(kind: str, method: str) -> None:
    whole = Run.make(kind, METHODS[method])
    saved, bits, deferred = [whole.save()], [whole.bits()], []
    for step in range(STEPS):
        whole.step(step)
        saved.append(whole.save())
        bits.append(whole.bits())
        deferred.append(whole.sparse.state_dict()["deferred"])
    # The scaler does not call the others at all.
    assert any(deferred) == (kind == "fused adamw" and METHODS[method].rule.reads_gradient)
    orders = list(permutations(["model", "optimizer", "sparse"]))
    for killed_after in range(STEPS):
        resumed = Run.make(kind, METHODS[method], seed=99)
        resumed.load(saved[killed_after], orders[killed_after % len(orders)])
        assert same_bits(resumed.bits(), bits[killed_after]), f"loaded after step {killed_after}"
        for step in range(killed_after, STEPS):
            resumed.step(step)
        assert same_bits(resumed.bits(), bits[-1]), f"killed after step {killed_after}"


@checks("P2")
def test_a_saved_state_does_not_change_when_the_training_goes_on() -> None:
    run = Run.make("nesterov", METHODS["RigL"])
    state, masks = run.sparse.state_dict(), run.sparse.masks
    first = torch.load(io.BytesIO(run.save()), weights_only=True)["sparse"]
    for step in range(STEPS):
        run.step(step)
    assert same_bits(state, first)
    assert same_bits(masks, first["masks"])
    assert not same_bits(run.sparse.masks, masks)
    run.sparse.load_state_dict(state)
    for mask in (*state["masks"].values(), *run.sparse.masks.values(), *run.sparse.state_dict()["masks"].values()):
        mask.logical_not_()
    assert same_bits(run.sparse.masks, masks)


@checks("P2")
@pytest.mark.parametrize("method", METHODS)
def test_a_saved_memory_is_a_copy(method: str) -> None:
    run = Run.make("nesterov", METHODS[method])
    for step in range(3):
        run.step(step)
    before, state = run.sparse.state_dict(), run.sparse.state_dict()
    run.sparse.load_state_dict(state)
    for arrays in state["memory"].values():
        for array in arrays.values():
            array.add_(1)
    assert same_bits(run.sparse.state_dict(), before)


@pytest.mark.parametrize("method", ["RigL", "SNFS", "DNW"])
def test_a_state_may_come_as_numpy_arrays_from_another_framework(method: str) -> None:
    model, other = mlp(), mlp(seed=1)
    sparse = sparsify(model, torch.optim.SGD(model.parameters(), 0.1), METHODS[method])
    optimizer = torch.optim.SGD(other.parameters(), 0.1)
    continued = sparsify(other, optimizer, METHODS[method])
    for step in range(9):
        train_step(other, optimizer, batch(step))
    state = continued.state_dict()
    to_numpy = {name: mask.numpy() for name, mask in state["masks"].items()}
    memory = {kind: {name: x.numpy() for name, x in arrays.items()} for kind, arrays in state["memory"].items()}
    sparse.load_state_dict({**state, "masks": to_numpy, "memory": memory})
    assert sparse.step == 9
    assert same_bits(sparse.state_dict(), state)
    assert all(not model.get_parameter(name)[~mask].any() for name, mask in sparse.masks.items())


@checks("Z1", "V3")
@pytest.mark.parametrize("kind", ["nesterov", "fused adamw"])
def test_the_topology_alone_can_be_loaded(kind: str) -> None:
    """After that, the weights and the optimizer's state are still those of another topology."""
    run, other = Run.make(kind, METHODS["RigL"]), Run.make(kind, METHODS["RigL"], seed=1)
    for step in range(4):
        run.step(step)
        other.step(step)
    masks = other.sparse.masks
    assert not same_bits(run.sparse.masks, masks)
    run.sparse.load_state_dict(other.sparse.state_dict())
    with pytest.warns(SparsityWarning, match="weights lie outside their masks"):
        run.step(4)
    weights, state = snapshot(run.model, run.optimizer)
    assert same_bits(run.sparse.masks, masks)
    for name, mask in masks.items():
        for values in (weights[name], *per_weight(state[name], mask).values()):
            assert not values[~mask].any()


@checks("P3")
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    run = Run.make("nesterov", METHODS["RigL"])
    for step in range(3):
        run.step(step)
    state, before = run.sparse.state_dict(), run.bits()
    masks = state["masks"]
    name = "2.weight"
    crowded = {**masks, name: torch.ones_like(masks[name])}
    cases: list[tuple[Any, str]] = [
        (None, "state must be what state_dict"),
        ({}, "state must be what state_dict"),
        ({**state, "extra": 1}, "state must be what state_dict"),
        ({**state, "format": 0}, "state has the format 0"),
        ({**state, "recipe": {**state["recipe"], "sparsity": 0.5}}, "sparsity was 0.5 and is 0.7"),
        ({**state, "recipe": None}, "state holds the recipe None"),
        ({**state, "step": -1}, "state holds the step -1"),
        ({**state, "step": torch.tensor(3)}, "state holds the step tensor"),
        ({**state, "deferred": 1}, "state holds deferred=1"),
        ({**state, "masks": None}, "state has masks for other layers"),
        ({**state, "masks": {name: masks[name]}}, r"they differ in \['0\.weight'\]"),
        ({**state, "masks": {**masks, name: masks[name].float()}}, r"float32 mask .* for layer '2\.weight'"),
        ({**state, "masks": {**masks, name: masks[name].T}}, r"of shape \(16, 6\) for layer '2\.weight'"),
        ({**state, "memory": {"momentum": {}}}, "state has memory for other layers"),
        ({**state, "step": 9, "masks": crowded}, r"96 active weights in layer '2\.weight'; the plan has"),
    ]
    for bad, message in cases:
        with pytest.raises(ValueError, match=message):
            run.sparse.load_state_dict(bad)
        assert same_bits(run.bits(), before)
    run.sparse.load_state_dict(state)
    assert same_bits(run.bits(), before)
