"""What a training is judged by: accuracy, sparsity, costs, and units that nothing reaches."""

from __future__ import annotations

from typing import Any

from rigl_backends.torch import SparseTraining
from rigl_core import Network, cost_table
from rigl_core.inspect import empty_share, units


def of_layers(network: Network, sparse: SparseTraining | None) -> dict[str, dict[str, int | float]]:
    """Weights, active weights and sparsity of each layer that a recipe may make sparse."""
    active = [layer.size for layer in network] if sparse is None else sparse.table.active
    return {layer.name: _counts(layer.size, number) for layer, number in zip(network, active, strict=True)}


def in_all(network: Network, sparse: SparseTraining | None) -> dict[str, int | float]:
    """The same of all layers together, and the share of units without an input."""
    size = sum(layer.size for layer in network)
    empty = 0.0 if sparse is None else empty_share(units(sparse.plan.layers, sparse.masks))
    return {**_counts(size, size if sparse is None else sparse.table.total_active), "empty_units": empty}


def costs(network: Network, sparse: SparseTraining | None, steps: int, dense_steps: int) -> dict[str, float]:
    """Operations of the whole training and of inference at its end, relative to a dense training (appendix H).

    Args:
        network: the layers, and how often an image uses each weight.
        sparse: the sparse training; None for a dense one.
        steps: optimizer steps of the training.
        dense_steps: those of the dense training, which ``--multiply`` does not make longer.
    """
    if sparse is None:
        return {"training": steps / dense_steps, "inference": 1.0}
    table = cost_table(sparse.plan, network)
    return {"training": table.training(steps, dense_steps=dense_steps), "inference": table.inference}


def in_words(results: dict[str, Any]) -> str:
    """The results in a line."""
    total, relative = results["total"], results["costs"]
    return (
        f"{results['training']['network']}, {results['training']['method']}: test accuracy {results['accuracy']:.2%} "
        f"after {results['step']:,} of {results['steps']:,} steps, sparsity {total['sparsity']:.2%}, "
        f"empty units {total['empty_units']:.1%}; operations, dense = 1: training {relative['training']:.3f}, "
        f"inference {relative['inference']:.3f}"
    )


def _counts(size: int, active: int) -> dict[str, int | float]:
    return {"weights": size, "active": active, "sparsity": 1 - active / size}
