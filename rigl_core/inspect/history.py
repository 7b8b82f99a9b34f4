"""The history of a topology: densities, moved shares, R_s and wasted units after each update."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rigl_core.inspect.host import to_numpy
from rigl_core.inspect.masks import Masks, churn, density, ever_active, moved
from rigl_core.inspect.waste import LIMIT, Units, empty_share, on_no_path, tell_of_waste, units
from rigl_core.model.layers import Layer
from rigl_core.model.numbers import check_integer, decimal


@dataclass(frozen=True)
class Snapshot:
    """Numbers about a topology at one time, and about its change since the previous snapshot.

    Attributes:
        step: number of optimizer steps before the snapshot.
        density: share of all connections that are active.
        moved: share of the active connections that were not active in the previous snapshot; 0 in the first snapshot.
        r_s: share of all connections that were active in this snapshot or an earlier one: R_s, the in-time
            over-parameterization rate (Liu et al. 2021, section 3.1).
        densities: ``density`` of each layer, by name.
        layers_moved: ``moved`` of each layer, by name.
        units: how the connections of each layer are spread over its units, by name, if the history knows the layers.
        on_no_path: share of the active connections of the history's chain that lie on no path; None without a chain.
    """

    step: int
    density: float
    moved: float
    r_s: float
    densities: Mapping[str, float]
    layers_moved: Mapping[str, float]
    units: Mapping[str, Units] = field(default_factory=dict)
    on_no_path: float | None = None

    @property
    def empty(self) -> float | None:
        """Share of the outputs of all layers without an active connection; None if the history knows no layers."""
        return empty_share(self.units) if self.units else None


class History:
    """Snapshots of a training. Add the topology at the start, and again after each update::

        history = History(sparse.plan.layers)
        history.add(sparse.step, sparse.masks)
        for step in range(total_steps):
            ...  # the training step
            if schedule.fires(step):
                history.add(sparse.step, sparse.masks)

    A history keeps the numbers of all snapshots, but of the masks only the latest and their union over time. It can be
    pickled.

    Args:
        layers: such as ``sparse.plan.layers``. With layers, snapshots tell how connections are spread over units.
        chain: names of layers that read each other's outputs in this order, and nothing else. With a chain, snapshots
            tell how many connections lie on no path.
        waste: a `rigl_core.SparsityWarning` tells once if more than this share of all outputs has no connection.

    Raises:
        TypeError, ValueError: if ``waste`` is no share.
    """

    def __init__(self, layers: Iterable[Layer] = (), *, chain: Sequence[str] = (), waste: float = LIMIT) -> None:
        if not 0 <= decimal(waste, "waste") <= 1:
            raise ValueError(f"waste is {waste}: it must be from 0 to 1.")
        self._layers, self._chain, self._limit = tuple(layers), tuple(chain), float(waste)
        self._told = False
        self._snapshots: list[Snapshot] = []
        self._masks: dict[str, npt.NDArray[np.bool_]] = {}
        self._ever_active: dict[str, npt.NDArray[np.bool_]] = {}

    def add(self, step: int, masks: Masks) -> Snapshot:
        """Take a snapshot of the topology.

        Args:
            step: number of optimizer steps so far, as the ``step`` of every adapter.
            masks: bool arrays by layer name, as the ``masks`` of every adapter; they are copied.

        Raises:
            TypeError, ValueError: if ``step`` is no whole number or not larger than that of the last snapshot, or if
                the masks belong to other layers than before, or do not fit. The history stays unchanged then.
        """
        step = check_integer("step", step, 0)
        if self._snapshots and step <= self._snapshots[-1].step:
            raise ValueError(
                f"step is {step}, and the last snapshot is of step {self._snapshots[-1].step}: add snapshots in "
                "the order of their steps, and start a new History for a new training."
            )
        copies = {name: to_numpy(mask).astype(np.bool_) for name, mask in masks.items()}
        before = self._masks if self._snapshots else copies
        ever = ever_active(self._ever_active if self._snapshots else copies, copies)
        found = units(self._layers, copies)
        snapshot = Snapshot(
            step,
            density(copies),
            churn(before, copies),
            density(ever),
            densities={name: density({name: mask}) for name, mask in copies.items()},
            layers_moved=moved(before, copies),
            units=found,
            on_no_path=on_no_path(self._layers, copies, self._chain) if self._chain else None,
        )
        self._told = self._told or tell_of_waste(found, self._limit)
        self._snapshots.append(snapshot)
        self._masks, self._ever_active = copies, ever
        return snapshot

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """All snapshots, in order."""
        return tuple(self._snapshots)

    @property
    def masks(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Copies of the latest masks, by layer name."""
        return {name: mask.copy() for name, mask in self._masks.items()}

    @property
    def ever_active(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Masks of the connections that were active in at least one snapshot, by layer name; copies."""
        return {name: mask.copy() for name, mask in self._ever_active.items()}
