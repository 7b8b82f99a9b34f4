"""What a sparse training costs, relative to dense (RigL paper, section 4 and its appendix on FLOPs).

Two operations for each multiply-add, weights of the plan's layers only. With f_S the operations of one
sparse forward pass and f_D those of a dense one, an ordinary step costs 3 f_S (forward, gradient of
the activations, gradient of the weights) and a step that computes the dense gradient 2 f_S + f_D.
"""

from __future__ import annotations

from collections.abc import Mapping

from rigl_core.plan import Plan
from rigl_core.schedules import check_integer


def forward_flops(plan: Plan, positions: Mapping[str, int] | None = None, *, dense: bool = False) -> int:
    """Operations of one forward pass for one example.

    Args:
        plan: the plan.
        positions: how often each layer's kernel is applied to one example, by layer name: output height
            times width for a convolution; 1 for what is not named.
        dense: count all weights instead of the active ones.
    """
    positions = positions or {}
    counts = [layer.size for layer in plan.layers] if dense else plan.active
    return sum(2 * n * positions.get(layer.name, 1) for layer, n in zip(plan.layers, counts, strict=True))


def relative_inference_cost(plan: Plan, positions: Mapping[str, int] | None = None) -> float:
    """f_S / f_D."""
    return forward_flops(plan, positions) / forward_flops(plan, positions, dense=True)


def relative_training_cost(plan: Plan, total_steps: int, positions: Mapping[str, int] | None = None) -> float:
    """Operations of the whole training, relative to the same number of dense steps (3 f_D each).

    Dense gradients are counted at the updates that fire, and only if the method reads them.

    Args:
        plan: the plan.
        total_steps: optimizer steps of the training.
        positions: see `forward_flops`.
    """
    total_steps = check_integer("total_steps", total_steps, 1)
    schedule = plan.recipe.schedule
    dense_gradients = 0
    if schedule is not None and plan.recipe.reads_gradient:
        dense_gradients = sum(schedule.step_of(update) < total_steps for update in range(schedule.updates))
    sparse = forward_flops(plan, positions)
    dense = forward_flops(plan, positions, dense=True)
    cost = 3 * sparse * (total_steps - dense_gradients) + (2 * sparse + dense) * dense_gradients
    return cost / (3 * dense * total_steps)
