"""The paper's formulas for the mean operations of a training step (RigL paper, appendix H).

f_S and f_D are the operations of one forward pass for one example, sparse and dense. A backward pass costs 2 f: f for
the gradient of the activations, and f for the gradient of the weights. So an ordinary step costs 3 f. Methods differ in
how often they need the dense gradient of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from rigl_core.model.numbers import check_integer


def dense_step(f_d: float) -> float:
    """3 f_D: a step of dense training, of gradual pruning before its ramp, and of methods with dense weights."""
    return 3 * f_d


def static_step(f_s: float) -> float:
    """3 f_S: a step of Static, SET, SNIP and all other methods that never need the dense gradient."""
    return 3 * f_s


def snfs_step(f_s: float, f_d: float) -> float:
    """2 f_S + f_D: a step with the dense gradient of the weights (every step of SNFS, for its momentum)."""
    return 2 * f_s + f_d


def rigl_step(f_s: float, f_d: float, every: int) -> float:
    """(3 f_S ΔT + 2 f_S + f_D) / (ΔT + 1): the mean step of RigL.

    The paper counts one update after every ΔT ordinary steps, until the end of the training. `CostTable.training`
    counts the updates that fire: one in ΔT steps, until T_end.

    Args:
        f_s: operations of a sparse forward pass.
        f_d: operations of a dense forward pass.
        every: steps between updates (ΔT).
    """
    every = check_integer("every", every, 1)
    return (static_step(f_s) * every + snfs_step(f_s, f_d)) / (every + 1)


def pruning_step(f_s: Sequence[float]) -> float:
    """The mean of 3 f_S(t) over a training in which the topology shrinks.

    Args:
        f_s: operations of a forward pass at equally spaced times of the training.
    """
    if not f_s:
        raise ValueError("f_s is empty: give the operations at one time or more.")
    return sum(map(static_step, f_s)) / len(f_s)
