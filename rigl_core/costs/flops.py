"""What a sparse training costs (RigL paper, appendix H).

`cost_table` counts f_S and f_D, the operations of one forward pass for one example, sparse and dense, for a plan;
`dense_step`, `static_step`, `snfs_step`, `rigl_step` and `pruning_step` are the paper's formulas for the mean
operations of a step (`rigl_core.costs.step_costs`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rigl_core.costs.network import Network
from rigl_core.costs.step_costs import dense_step, pruning_step, rigl_step, snfs_step, static_step
from rigl_core.model.layers import Layer
from rigl_core.model.numbers import check_integer
from rigl_core.model.table import aligned
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


@dataclass(frozen=True)
class Convention:
    """What counts as an operation.

    Attributes:
        per_connection: operations for each active weight and position.
        per_output: operations for each output and position, whatever the density. Counted once for each
            position and stored output, so it means nothing for transposed convolutions.
    """

    per_connection: int = 2
    per_output: int = 0

    def flops(self, layer: Layer, active: float, positions: float) -> float:
        """Operations of one layer for one example."""
        flops = self.per_connection * active * positions
        if self.per_output:
            flops += self.per_output * outputs(layer) * positions
        return flops


MULTIPLY_ADDS = Convention()
"""Two operations for each multiply-add."""

PAPER = Convention(per_output=1)
"""What the paper's table counts: a dot product of n terms has n multiplications and n - 1 additions, and each
output has one addition more (a bias, present or not) and one operation for its ReLU: 2n + 1 in all."""


def outputs(layer: Layer) -> int:
    """Features that a layer computes at each position."""
    return layer.n_out * (layer.groups if layer.grouped_axes == "out" else 1)


@dataclass(frozen=True)
class CostTable:
    """The costs of a plan, layer by layer; ``str()`` gives aligned text. Made by `cost_table`.

    Attributes:
        plan: the plan.
        layers: the plan's layers and those that are always dense.
        active: active weights of each.
        positions: how often one example uses each weight.
        convention: what counts as an operation.
    """

    plan: Plan
    layers: tuple[Layer, ...]
    active: tuple[int, ...]
    positions: tuple[float, ...]
    convention: Convention = MULTIPLY_ADDS

    @property
    def flops(self) -> tuple[float, ...]:
        """Operations of each layer in one forward pass for one example."""
        return self._flops(self.active)

    @property
    def dense_flops(self) -> tuple[float, ...]:
        """The same for the dense network."""
        return self._flops([layer.size for layer in self.layers])

    @property
    def f_s(self) -> float:
        """Operations of one sparse forward pass for one example."""
        return sum(self.flops)

    @property
    def f_d(self) -> float:
        """Operations of one dense forward pass for one example."""
        return sum(self.dense_flops)

    @property
    def inference(self) -> float:
        """The relative cost of inference, f_S / f_D."""
        return self.f_s / self.f_d

    def training_flops(self, total_steps: int) -> float:
        """Operations of a whole training, for one example in each step.

        The dense gradient is counted at the updates that fire, if the method reads it then, or at all steps, if it
        reads it always. Along a ramp every step costs what the topology before it does. Selecting connections and
        the optimizer's own work are not counted, as in the paper.
        """
        total_steps = check_integer("total_steps", total_steps, 1)
        recipe, flops, f_d = self.plan.recipe, 0.0, self.f_d
        for steps, updates, active in self._phases(total_steps):
            f_s = sum(self._flops(active))
            dense = steps if recipe.reads_every_gradient else updates * recipe.reads_dense_gradient
            flops += static_step(f_s) * (steps - dense) + snfs_step(f_s, f_d) * dense
        return flops

    def training(self, total_steps: int, *, dense_steps: int | None = None) -> float:
        """The relative cost of training: `training_flops` over those of a dense training.

        Args:
            total_steps: optimizer steps of the sparse training.
            dense_steps: of the dense training; by default as many. The paper's RigL 5x has a fifth.
        """
        dense_steps = total_steps if dense_steps is None else check_integer("dense_steps", dense_steps, 1)
        return self.training_flops(total_steps) / (dense_step(self.f_d) * dense_steps)

    def weight_bytes(self, value_bytes: float = 4) -> tuple[float, ...]:
        """Bytes of each layer's weights: the active values, and one bit of mask for each weight if sparse."""
        return tuple(
            active * value_bytes + (layer.size / 8 if active < layer.size else 0)
            for layer, active in zip(self.layers, self.active, strict=True)
        )

    def training_bytes(self, state_per_weight: int = 1, value_bytes: float = 4) -> tuple[float, ...]:
        """Bytes of each layer's weights, gradient and optimizer state, in truly sparse storage, at their peak.

        The gradient is counted for active weights, or for all if the method reads the dense one; so is what it
        remembers of every connection. Weights that learn outside the mask, and what is dense at first, count whole.

        Args:
            state_per_weight: values that the optimizer holds for each weight: SGD 0, momentum 1, Adam 2.
            value_bytes: of each value.
        """
        recipe, first = self.plan.recipe, self.plan.initial_active
        dense = recipe.reads_dense_gradient or recipe.reads_every_gradient
        remembered = len(set(recipe.memories) - {"shadow"})
        costs = []
        for i, layer in enumerate(self.layers):
            most = max(self.active[i], first[i] if i < len(first) else 0)
            most = layer.size if recipe.shadow else most
            values = most * (1 + state_per_weight) + (layer.size if dense else most)
            masked = most < layer.size or self.active[i] < layer.size
            costs.append(value_bytes * (values + remembered * layer.size * masked) + masked * layer.size / 8)
        return tuple(costs)

    def _phases(self, total_steps: int) -> Iterator[tuple[int, int, Sequence[int]]]:
        """The times in which the same is active: how many steps, how many of them update, and what is active."""
        plan, schedule = self.plan, self.plan.recipe.schedule
        fires = [] if schedule is None else range(schedule.begin, min(schedule.end, total_steps), schedule.every)
        if plan.recipe.ramp is None:
            yield total_steps, len(fires), self.active
            return
        begin, always = 0, self.active[len(plan.layers) :]
        active = plan.initial_active
        for update, step in enumerate(fires):
            yield step + 1 - begin, 1, active + always
            begin, last = step + 1, schedule is not None and update == schedule.updates - 1
            active = self.active[: len(plan.layers)] if last else plan.active_after(update)
        yield total_steps - begin, 0, active + always

    @property
    def rows(self) -> Sequence[tuple[str, ...]]:
        """The table as text, cell by cell: headings, a row for each layer, and the total."""
        rows = [("layer", "shape", "positions", "density", "dense FLOPs", "FLOPs", "bytes")]
        columns = (self.layers, self.positions, self.active, self.dense_flops, self.flops, self.weight_bytes())
        for layer, positions, active, dense, sparse, stored in zip(*columns, strict=True):
            shape, density = "x".join(map(str, layer.shape)), active / (layer.size or 1)
            numbers = (f"{positions:,}", f"{density:.4f}", _whole(dense), _whole(sparse), _whole(stored))
            rows.append((layer.name, shape, *numbers))
        density = sum(self.active) / sum(layer.size for layer in self.layers)
        stored = sum(self.weight_bytes())
        rows.append(("total", "", "", f"{density:.4f}", _whole(self.f_d), _whole(self.f_s), _whole(stored)))
        return rows

    @property
    def title(self) -> str:
        """The method and its relative cost of inference."""
        return f"{self.plan.recipe.method}, inference at {self.inference:.4f} of dense"

    def __str__(self) -> str:
        return "\n".join([self.title, *aligned(self.rows)])

    def _flops(self, active: Sequence[float]) -> tuple[float, ...]:
        return tuple(map(self.convention.flops, self.layers, active, self.positions))


def cost_table(
    plan: Plan,
    network: Network | None = None,
    *,
    convention: Convention = MULTIPLY_ADDS,
    active: Mapping[str, int] | None = None,
) -> CostTable:
    """Count what a plan costs.

    Weights of layers are counted, not biases and norms, nor products of activations (attention scores).

    Args:
        plan: the plan.
        network: how often each weight is used, and which others cost besides: from `rigl_core.specs`,
            an adapter's ``describe``, or your own `Network`. By default a chain of fully connected layers, each used
            once.
        convention: what counts as an operation.
        active: active weights by layer name, as measured, for methods that move connections between layers (DSR,
            SNFS, global choices), of which the plan knows only the sum; by default as planned.

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


def _whole(number: float) -> str:
    return f"{number:,.0f}"
