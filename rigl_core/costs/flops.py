"""The costs of a sparse training (RigL paper, appendix H).

`cost_table` counts f_S and f_D for a plan: the operations of one forward pass for one example, sparse and dense.
`dense_step`, `static_step`, `snfs_step`, `rigl_step` and `pruning_step` are the paper's formulas for the mean
operations of a step (`rigl_core.costs.step_costs`).
"""

from __future__ import annotations

from collections.abc import Mapping

from rigl_core.costs.convention import MULTIPLY_ADDS, PAPER, Convention, outputs
from rigl_core.costs.cost_table import CostTable
from rigl_core.costs.network import Network
from rigl_core.costs.step_costs import dense_step, pruning_step, rigl_step, snfs_step, static_step
from rigl_core.plan import Plan

__all__ = [
    "MULTIPLY_ADDS",
    "PAPER",
    "Convention",
    "CostTable",
    "cost_table",
    "dense_step",
    "outputs",
    "pruning_step",
    "rigl_step",
    "snfs_step",
    "static_step",
]


def cost_table(
    plan: Plan,
    network: Network | None = None,
    *,
    convention: Convention = MULTIPLY_ADDS,
    active: Mapping[str, int] | None = None,
) -> CostTable:
    """Count the costs of a plan.

    It counts the weights of layers. It does not count biases, norms, and products of activations with each other
    (attention scores).

    Args:
        plan: the plan.
        network: tells how often each weight is used, and adds the layers that are always dense. Take it from
            `rigl_core.specs` or from an adapter's ``describe``, or make your own `Network`. None stands for a chain of
            fully connected layers that are used once.
        convention: the convention of counting operations.
        active: measured numbers of active weights by layer name, for methods that move connections between layers
            (DSR, SNFS, global choices): the plan knows only their sum. None takes the planned numbers.

    Raises:
        ValueError: if the network does not have one of the plan's layers, its positions are unknown, or ``active`` has
            counts that the plan's layers cannot have.
    """
    network = Network(plan.layers) if network is None else network
    known = {layer.name: layer.shape for layer in network.weights}
    for layer in plan.layers:
        if known.get(layer.name) != layer.shape:
            raise ValueError(
                f"network has no layer {layer.name!r} of shape {layer.shape}, which the plan has: "
                "describe the model that the plan is for."
            )
    planned = {layer.name for layer in plan.layers}
    others = tuple(layer for layer in network.weights if layer.name not in planned)
    layers = plan.layers + others
    return CostTable(
        plan,
        layers,
        active=_measured(plan, active) + tuple(layer.size for layer in others),
        positions=tuple(network.positions[layer.name] for layer in layers),
        convention=convention,
    )


def _measured(plan: Plan, active: Mapping[str, int] | None) -> tuple[int, ...]:
    names = [layer.name for layer in plan.layers]
    if active is None:
        return plan.active
    if set(active) != set(names):
        raise ValueError(
            f"active has counts of other layers than the plan; they differ in {sorted(set(active) ^ set(names))}. Give "
            "one for each of the plan's layers."
        )
    for layer in plan.layers:
        if not 0 <= active[layer.name] <= layer.size:
            raise ValueError(
                f"active[{layer.name!r}] is {active[layer.name]}: the layer has {layer.size} weights; give a number "
                "from 0 to this."
            )
    return tuple(active[name] for name in names)
