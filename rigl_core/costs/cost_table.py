"""The costs of a plan, layer by layer (RigL paper, appendix H)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rigl_core.costs.convention import MULTIPLY_ADDS, Convention
from rigl_core.costs.step_costs import dense_step, snfs_step, static_step
from rigl_core.model.layers import Layer
from rigl_core.model.numbers import check_integer
from rigl_core.model.table import aligned
from rigl_core.plan import Plan


@dataclass(frozen=True)
class CostTable:
    """The costs of a plan, layer by layer; ``str()`` gives aligned text. Made by `cost_table`.

    Attributes:
        plan: the plan.
        layers: the plan's layers, then those that are always dense.
        active: active weights of each layer.
        positions: for each layer, how often one example uses each weight.
        convention: the convention of counting operations.
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
        """Operations of each layer in one forward pass of the dense network."""
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

        The dense gradient is counted at every step if the method always reads it, or at the updates that fire if it
        reads it only there. With a ramp, every step costs as much as the topology before it. As in the paper, the
        selection of connections and the optimizer's work are not counted.
        """
        total_steps = check_integer("total_steps", total_steps, 1)
        recipe, flops, f_d = self.plan.recipe, 0.0, self.f_d
        for steps, updates, active in self._phases(total_steps):
            f_s = sum(self._flops(active))
            dense = steps if recipe.rule.reads_every_gradient else updates * recipe.rule.reads_dense_gradient
            flops += static_step(f_s) * (steps - dense) + snfs_step(f_s, f_d) * dense
        return flops

    def training(self, total_steps: int, *, dense_steps: int | None = None) -> float:
        """The relative cost of training: `training_flops` divided by the operations of a dense training.

        Args:
            total_steps: optimizer steps of the sparse training.
            dense_steps: optimizer steps of the dense training; None takes ``total_steps``. The paper's RigL 5x trains
                for five times the dense steps.
        """
        dense_steps = total_steps if dense_steps is None else check_integer("dense_steps", dense_steps, 1)
        return self.training_flops(total_steps) / (dense_step(self.f_d) * dense_steps)

    def weight_bytes(self, value_bytes: float = 4) -> tuple[float, ...]:
        """Bytes of each layer's weights: the active values and, in a sparse layer, one bit of mask for each weight.

        Args:
            value_bytes: bytes of a value.
        """
        return tuple(
            active * value_bytes + (layer.size / 8 if active < layer.size else 0)
            for layer, active in zip(self.layers, self.active, strict=True)
        )

    def training_bytes(self, state_per_weight: int = 1, value_bytes: float = 4) -> tuple[float, ...]:
        """Peak bytes of each layer's weights, gradient and optimizer state in truly sparse storage.

        The gradient counts for active weights only, unless the method reads the dense gradient. With a ramp, the active
        weights are those before the first update. With shadow weights, all weights count. The method's memory counts
        for every connection (`rigl_core.arrays.memory`), and a sparse layer has one bit of mask for each weight.

        Args:
            state_per_weight: number of values that the optimizer holds for each weight: SGD 0, momentum 1, Adam 2.
            value_bytes: bytes of a value.
        """
        recipe, first = self.plan.recipe, self.plan.initial_active
        dense = recipe.rule.sees_inactive
        remembered = len(set(recipe.rule.memories) - {"shadow"})
        costs = []
        for i, layer in enumerate(self.layers):
            most = max(self.active[i], first[i] if i < len(first) else 0)
            most = layer.size if recipe.shadow else most
            values = most * (1 + state_per_weight) + (layer.size if dense else most)
            masked = most < layer.size or self.active[i] < layer.size
            costs.append(value_bytes * (values + remembered * layer.size * masked) + masked * layer.size / 8)
        return tuple(costs)

    def _phases(self, total_steps: int) -> Iterator[tuple[int, int, Sequence[int]]]:
        """The training in phases of constant density: (steps, updates among them, active weights of each layer)."""
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
        """The cells of the table as text: a row of headings, a row for each layer, a row of totals."""
        rows = [("layer", "shape", "positions", "density", "dense FLOPs", "FLOPs", "bytes")]
        columns = (self.layers, self.positions, self.active, self.dense_flops, self.flops, self.weight_bytes())
        for layer, positions, active, dense, sparse, stored in zip(*columns, strict=True):
            shape, density = layer.shape_text, active / (layer.size or 1)
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


def _whole(number: float) -> str:
    return f"{number:,.0f}"
