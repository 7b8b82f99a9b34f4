"""The oracle's memory of a training by any method, and the masks that the training starts with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from rigl_core.model.layers import Layer
from rigl_core.plan import Plan, make_plan
from rigl_core.recipe import Recipe
from rigl_core.testing import floor_oracle, group_oracle, method_oracle, oracle, score_oracle
from rigl_core.testing.harness import Array
from rigl_core.testing.recording import Step
from rigl_core.testing.strategies import Training


@dataclass
class Memory:
    """The arrays and numbers that the oracle remembers of a training."""

    training: Training
    plan: Plan
    initial: dict[str, Array]
    momentum: dict[str, Array] = field(default_factory=dict)
    signs: dict[str, list[float]] = field(default_factory=dict)
    updates: int = 0
    dtype: str = "float32"

    def see(self, gradients: dict[str, Array]) -> None:
        """Update the momentum with a step's dense gradients."""
        decay, real = self.training.recipe.momentum, score_oracle.precision_of(self.dtype)
        for layer in self.plan.layers:
            old = self.momentum.get(layer.name, np.zeros(layer.shape, real))
            gradient = gradients[layer.name]
            self.momentum[layer.name] = score_oracle.next_momentum(old, gradient, decay, real)

    def states(self, step: Step, weights: dict[str, Array]) -> dict[str, score_oracle.LayerState]:
        """The layers before an update, by name."""
        targets = self.plan.targets[min(self.updates, len(self.plan.targets) - 1)]
        return {
            layer.name: score_oracle.LayerState(
                layer,
                weights[layer.name].reshape(-1).tolist(),
                step.gradients[layer.name].reshape(-1).tolist(),
                self.momentum[layer.name].reshape(-1).tolist(),
                self.signs[layer.name],
                method_oracle.as_sets(step.before.masks)[layer.name],
                int(target),
                self.dtype,
            )
            for layer, target in zip(self.plan.layers, targets, strict=True)
        }


def remember(training: Training, dtype: str = "float32") -> Memory:
    """The oracle's memory before the first step of a training of parameters of this dtype."""
    plan = make_plan(training.recipe, training.layers)
    initial = {layer.name: training.params[layer.name] for layer in training.layers}
    memory = Memory(training, plan, initial, dtype=dtype)
    for layer in training.layers:
        weight = training.params[layer.name].reshape(-1).tolist()
        drawn = score_oracle.random_signs(training.recipe.seed, layer.name, -1, layer.size)
        memory.signs[layer.name] = [
            np.sign(w) if oracle.magnitude(w, dtype) else sign for w, sign in zip(weight, drawn, strict=True)
        ]
    return memory


def initial_masks(training: Training) -> dict[str, set[int]]:
    """The flat positions that are active at the start, by layer name, as the oracle chooses them."""
    recipe, plan = training.recipe, make_plan(training.recipe, training.layers)
    given = training.scores
    together = recipe.scope == "global" and given is not None
    expected = {layer.name: set(range(layer.size)) for layer in plan.layers}
    scores = {}
    for layer in plan.layers:
        drawn = oracle.random_scores(oracle.random_key(recipe.seed, layer.name, -1), layer.size)
        scores[layer.name] = list(map(float, drawn)) if given is None else given[layer.name].reshape(-1).tolist()
    if together:
        pairs = [(name, i) for name in scores for i in range(len(scores[name]))]
        best = sorted(pairs, key=lambda pair: -scores[pair[0]][pair[1]])[: sum(plan.initial_active)]
        expected = {name: {i for owner, i in best if owner == name} for name in scores}
    else:
        for layer, active in zip(plan.layers, plan.initial_active, strict=True):
            if active < layer.size:
                expected[layer.name] = _chosen(recipe, layer, scores[layer.name], active)
    return expected


def _chosen(recipe: Recipe, layer: Layer, scores: Sequence[float], active: int) -> set[int]:
    """The flat positions with the best initial scores of one layer."""
    if recipe.floor:
        return floor_oracle.with_floor(scores, range(layer.size), active, recipe.floor, layer)
    groups = group_oracle.groups_of(recipe, layer)
    units = active // (len(groups) * len(groups[0][0]))
    chosen: set[int] = set()
    for group in groups:
        of_units = [group_oracle.unit_score(recipe.initial.name, scores, unit) for unit in group]
        chosen |= {position for i in oracle.largest(of_units, range(len(group)), units) for position in group[i]}
    return chosen
