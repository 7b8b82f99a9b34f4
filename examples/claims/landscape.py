"""The landscape of the loss: does RigL leave a Static solution, and which paths lead from there to a pruned one?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

import paths
from rigl_backends.torch import sparsify
from tasks import Batch, Task
from training import fit
from walks import View, Walk

CURVES = {"quadratic, sparse": (1, True), "cubic, sparse": (2, True), "quadratic, dense": (1, False)}
"""Control points, and whether the curve stays in the union of the masks."""


@dataclass
class Solution:
    """A trained network, its topology and its measure."""

    model: nn.Module
    masks: Mapping[str, Tensor]
    score: float

    @property
    def weights(self) -> dict[str, Tensor]:
        """All parameters by name."""
        return {name: weight.detach() for name, weight in self.model.named_parameters()}


def walk(look: Walk, task: Task) -> View:
    """Train a Static and a pruned network from the same weights; go on from Static; draw paths between both."""
    static, pruned = (_trained(look, task, method) for method in ("Static", "pruning"))
    further = {f"Static, then {method}": _trained(look, task, method, static) for method in ("Static", "RigL")}
    solutions = {"Static": static, "pruning": pruned, **further}
    seen = list(task.batches(look.seed + 1000, 40))

    def loss(weights: paths.Weights, batch: Batch) -> Tensor:
        return functional.cross_entropy(functional_call(static.model, dict(weights), batch[0]), batch[1])

    static.model.train()  # batch norm takes the statistics of each batch: those of the ends say nothing on the way
    start, end = static.weights, pruned.weights
    curves = {"straight": paths.losses(paths.straight(start, end), loss, seen)}
    union = {name: mask | pruned.masks[name] for name, mask in static.masks.items()}
    for name, (controls, sparse) in CURVES.items():
        batches = task.batches(look.seed + 2000, look.steps)
        curve = paths.bent(start, end, loss, batches, controls=controls, only=union if sparse else None)
        curves[name] = paths.losses(curve, loss, seen)
    ends = {
        name: paths.losses(paths.straight(s.weights, s.weights), loss, seen, positions=2)[0]
        for name, s in solutions.items()
    }
    return View(ends, {name: solution.score for name, solution in solutions.items()}, curves)


def _trained(look: Walk, task: Task, method: str, start: Solution | None = None) -> Solution:
    """A network that is trained from scratch, or from the weights and the topology of another one."""
    torch.manual_seed(look.seed)
    model = task.model()
    if start is not None:
        model.load_state_dict(start.model.state_dict())
    case = look.case(method, look.seed + (0 if start is None else 1))
    optimizer: Any = task.optimizer(model, case.setting)
    assert case.recipe is not None
    sparse = sparsify(model, optimizer, case.recipe, initial=None if start is None else dict(start.masks))
    fit(model, optimizer, task, case.seed, case.steps)
    masks = {name: mask.clone() for name, mask in sparse.masks.items()}
    return Solution(model, masks, task.score(model, "test"))
