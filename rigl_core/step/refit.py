"""Masks that were saved under another budget, brought to the counts of a plan (contract: P2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rigl_core.parts.criteria import MAGNITUDE, RANDOM
from rigl_core.plan import Counts, Plan
from rigl_core.sparse.layer import ActiveLayer
from rigl_core.step.layer import SparseLayer, brought_to
from rigl_core.step.update import move_pool


def refit(plan: Plan, layers: Mapping[int, SparseLayer], step: int) -> None:
    """Give the layers of each pool as many connections as planned before a step.

    Those with the largest weights stay. If there are too few, connections join in the random order in which the first
    topology was drawn.

    Args:
        plan: the plan.
        layers: the layers that are not dense, by their positions in the plan.
        step: the number of the coming optimizer step.
    """
    if plan.recipe.gamma_sal is not None:
        return  # the next update brings any number of connections to the plan's (M12)
    planned = planned_before(plan, step)
    for number, pool in enumerate(plan.pools):
        wanted = sum(planned[i] for i in pool) // plan.weights_per_count(number)
        _refit_pool(plan, number, [layers[i] for i in pool], wanted)


def _refit_pool(plan: Plan, number: int, layers: Sequence[SparseLayer], wanted: int) -> None:
    rule = replace(plan.recipe.rule, drop=MAGNITUDE, grow=RANDOM, redistribution=None, regrown="keep")
    first = layers[0]
    active = sum(layer.active for layer in layers) // plan.weights_per_count(number)
    if active == wanted:
        return
    counts = Counts(min(active, wanted), max(wanted - active, 0))
    if isinstance(first, ActiveLayer):
        first.refit(rule, counts)
        return
    masks = [first.bring(layer.mask) for layer in layers]
    before = [layer.at_refit() for layer in layers]
    updated = move_pool(rule, brought_to(first, before), masks, counts, xp=first.xp)
    for layer, connections, new in zip(layers, before, updated, strict=True):
        layer.take(connections, replace(new, mask=layer.bring(new.mask), survivors=layer.bring(new.survivors)))


def planned_before(plan: Plan, step: int) -> tuple[int, ...]:
    """The planned number of active weights of each layer before a step."""
    schedule = plan.recipe.schedule
    if schedule is None or step <= schedule.begin:
        return plan.initial_active
    return plan.active_after(schedule.latest_update(step - 1))
