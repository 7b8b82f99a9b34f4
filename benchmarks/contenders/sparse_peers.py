"""The products of one layer by sparselab 0.2.2, whose layers hold their active weights alone, too."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

Act = Callable[[], object]


def make(contender: str, baseline: str, layer: Mapping[str, Any]) -> tuple[Act, Act] | None:
    """What is measured, and what it is compared with; None for other libraries."""
    if contender != "sparselab":
        return None
    os.environ["OMP_NUM_THREADS"] = str(layer["threads"])  # sparselab brings an OpenMP of its own, which reads it
    import sparselab

    from contenders.sparse_products import Layer

    made, size = Layer(**layer), layer["size"]
    module = sparselab.SparseLinear(size, size, bias=False, sparsity=1 - layer["density"])
    x = made.x_rows.requires_grad_()

    def act() -> None:
        x.grad = None
        module.zero_grad()
        module(x).backward(made.dy_rows)

    return act, Layer(**layer).dense()
