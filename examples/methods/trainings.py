"""Train each kind of entry with the quickstart's networks, loops and data, in any framework."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import rigl_core as rigl
from data import Dataset
from entries import Entry, Setting
from history import Backend, History
from rigl_core import Layer, Lottery, Ticket, Trained, specs
from rigl_core.model.numbers import active_count
from runs import HIDDEN_WIDTHS, Arrays, Run, initial_weights, make_runs

ROUNDS = 3
"""The rounds of a lottery, without the dense one."""


@dataclass(frozen=True)
class Result:
    """The result of a training.

    Attributes:
        entry: the row of the comparison.
        accuracy: share of the test images that the network classifies correctly.
        active: number of active weights at the end, without biases.
        size: number of all weights, active or not.
        ever_active: share of all connections that were ever active (R_s).
        training: operations of the training, dense = 1.
        inference: operations of inference, dense = 1.
    """

    entry: Entry
    accuracy: float
    active: int
    size: int
    ever_active: float
    training: float
    inference: float


def train(entry: Entry, backend: str, dataset: Dataset, setting: Setting) -> Result:
    """Train one entry.

    Args:
        entry: the row of the comparison.
        backend: the framework, by the name of its adapter.
        dataset: images and labels.
        setting: the options that all entries share.
    """
    module = importlib.import_module(f"mlp_{backend}")
    dense = make_runs(dataset, [], seeds=setting.seed + 1, steps=setting.steps)[-1]
    return _TRAIN[entry.kind](entry, module, _scores_of(entry, backend), dense, setting)


def _scores_of(entry: Entry, backend: str) -> Callable[..., Arrays] | None:
    if entry.kind not in ("grasp", "synflow"):
        return None
    scores: Callable[..., Arrays] = getattr(importlib.import_module(f"saliency_{backend}"), entry.kind)
    return scores


def _train_recipe(entry: Entry, module: Backend, scores: Any, dense: Run, setting: Setting) -> Result:
    assert entry.make is not None
    run = dataclasses.replace(dense, method=entry.name, sparsity=setting.sparsity, recipe=entry.make(setting))
    if scores is not None:
        run = dataclasses.replace(run, scores=scores(run, setting.sparsity))
    return _result(entry, module.train(run, run.batches()))


def _train_dense(entry: Entry, module: Backend, scores: Any, dense: Run, setting: Setting) -> Result:
    return _result(entry, module.train(dense, dense.batches()))


def _train_small_dense(entry: Entry, module: Backend, scores: Any, dense: Run, setting: Setting) -> Result:
    """Train a dense network that is narrow: it has as many weights as the others have active ones."""
    inputs, outputs = dense.layers[0].n_in, dense.layers[-1].n_out
    size = sum(layer.size for layer in dense.layers)

    def narrow(width: float) -> list[Layer]:
        return list(specs.mlp(inputs, *(max(round(width * n), 1) for n in HIDDEN_WIDTHS), outputs))

    layers = narrow(rigl.matching_width(narrow, active_count(setting.sparsity, size)))
    rng = np.random.default_rng(setting.seed)
    run = dataclasses.replace(dense, layers=layers, weights=initial_weights(layers, rng))
    history = module.train(run, run.batches())
    cost = sum(layer.size for layer in layers) / size
    return dataclasses.replace(_result(entry, history), training=cost, inference=cost)


def _train_lottery(entry: Entry, module: Backend, scores: Any, dense: Run, setting: Setting) -> Result:
    """Train a dense network first, then a sparser one in each round. Each starts from the same initial weights."""
    results: list[Result] = []

    def train_round(ticket: Ticket[Arrays]) -> Trained[Arrays]:
        assert entry.make is not None
        recipe = entry.make(dataclasses.replace(setting, sparsity=ticket.sparsity))
        run = dataclasses.replace(dense, method=entry.name, recipe=recipe, scores=ticket.scores)
        history = module.train(run, run.batches())
        results.append(_result(entry, history))
        return Trained(history.weights, history.masks, checkpoint=dense.weights)

    Lottery(setting.sparsity, rounds=ROUNDS).run(train_round)
    return dataclasses.replace(results[-1], training=sum(result.training for result in results), ever_active=1.0)


_TRAIN: Mapping[str, Callable[..., Result]] = {
    "recipe": _train_recipe,
    "grasp": _train_recipe,
    "synflow": _train_recipe,
    "dense": _train_dense,
    "small dense": _train_small_dense,
    "lottery": _train_lottery,
}


def _result(entry: Entry, history: History) -> Result:
    run, plan = history.run, history.run.plan
    training = inference = 1.0
    if plan is not None:
        costs = rigl.cost_table(
            plan, active={name: int(np.count_nonzero(mask)) for name, mask in history.masks.items()}
        )
        training, inference = costs.training(run.steps), costs.inference
    return Result(
        entry,
        history.accuracies[-1],
        history.active,
        sum(layer.size for layer in run.layers),
        history.ever_active,
        training,
        inference,
    )
