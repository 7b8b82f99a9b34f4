"""Train one case: an ordinary PyTorch loop, plus one line."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import nn

from cases import Case, Result
from rigl_backends.torch import describe, plan, sparsify
from rigl_core import Network, cost_table, inspect, matching_width
from tasks import Task

WARM_UP = 0.05
"""The share of the training in which the learning rate rises to its highest value. Then it falls along a cosine."""


def train(case: Case, task: Task) -> Result:
    """Train a network from the start, and measure it."""
    torch.manual_seed(case.seed)
    model = task.model(_width(case, task) if case.method == "small dense" else 1.0)
    optimizer: Any = task.optimizer(model, case.setting)
    recipe = case.recipe
    sparse = None if recipe is None else sparsify(model, optimizer, recipe)  # the one line
    fit(model, optimizer, task, case.seed, case.steps)
    score = task.score(model, case.part)
    if sparse is None:
        return Result(score, *_dense_costs(model, task))
    masks = {name: mask.numpy() for name, mask in sparse.masks.items()}
    active = {name: int(mask.sum()) for name, mask in masks.items()}
    costs = cost_table(sparse.plan, _network(task), active=active)
    found = inspect.units(sparse.plan.layers, masks)
    return Result(
        score,
        sum(active.values()),
        costs.inference,
        costs.training(case.steps),
        inspect.empty_share(found),
        max(units.most_in for units in found.values()),
    )


def fit(model: nn.Module, optimizer: Any, task: Task, seed: int, steps: int) -> None:
    """The training loop."""
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step / steps))
    model.train()
    for batch in task.batches(seed, steps):
        optimizer.zero_grad()
        task.loss(model, batch).backward()
        optimizer.step()
        rates.step()


def rate(done: float) -> float:
    """The learning rate after a share of the training; the highest is 1."""
    if done < WARM_UP:
        return max(done, WARM_UP / 10) / WARM_UP
    return 0.5 + 0.5 * math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))


def _width(case: Case, task: Task) -> float:
    """The width of the dense network with as many weights as the sparse ones have."""
    wanted = plan(task.model(), Case("", "Static", case.sparsity, case.setting, case.steps).recipe)

    @cache
    def network(width: float) -> Network:
        return describe(task.model(width), task.example)

    always_dense = sum(layer.size for layer in network(1.0).always_dense)
    return matching_width(network, sum(wanted.active) + always_dense)


def _network(task: Task) -> Network:
    return describe(task.model(), task.example)


def _dense_costs(model: nn.Module, task: Task) -> tuple[int, float, float]:
    """Weights, and operations of inference and of a step relative to the network of width 1."""
    own, whole = describe(model, task.example), _network(task)
    share = _operations(own) / _operations(whole)
    return sum(layer.size for layer in own), share, share


def _operations(network: Network) -> float:
    return sum(layer.size * network.positions[layer.name] for layer in network)
