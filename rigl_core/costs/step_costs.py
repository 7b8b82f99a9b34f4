"""The paper's formulas for the mean operations of a training step (RigL paper, appendix H).

f_S and f_D are the operations of one forward pass for one example, sparse and dense. A backward pass costs
twice as much, half of it for the gradient of the activations and half for that of the weights, so that an
ordinary step costs 3 f. Methods differ in how often they need the dense gradient of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from rigl_core.model.numbers import check_integer


def dense_step(f_d: float) -> float:
    """3 f_D: also gradual pruning before its ramp, and each step of methods with dense weights."""
    return 3 * f_d


def static_step(f_s: float) -> float:
    """3 f_S: Static, SET, SNIP and whatever else never looks at the dense gradient."""
    return 3 * f_s


def snfs_step(f_s: float, f_d: float) -> float:
    """2 f_S + f_D: the dense gradient at every step (SNFS, for its momentum)."""
    return 2 * f_s + f_d


def rigl_step(f_s: float, f_d: float, every: int) -> float:
    """(3 f_S ΔT + 2 f_S + f_D) / (ΔT + 1): the dense gradient once in a while, forever.

    The paper counts ΔT ordinary steps to an update, and updates until the end of the training.
    `CostTable.training` counts those that fire: one in ΔT steps, until T_end.
    """
    every = check_integer("every", every, 1)
    return (static_step(f_s) * every + snfs_step(f_s, f_d)) / (every + 1)


def pruning_step(f_s: Sequence[float]) -> float:
    """The mean of 3 f_S(t) over a training in which the topology shrinks.

    Args:
        f_s: operations of a forward pass at each of a number of equally spaced times.
    """
    if not f_s:
        raise ValueError("f_s is empty: give the operations at one time or more.")
    return sum(map(static_step, f_s)) / len(f_s)
