"""The history of a topology: densities, moved shares and R_s after each update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rigl_core.inspect.host import to_numpy
from rigl_core.inspect.masks import Masks, churn, density, ever_active, moved
from rigl_core.model.numbers import check_integer


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
    """

    step: int
    density: float
    moved: float
    r_s: float
    densities: Mapping[str, float]
    layers_moved: Mapping[str, float]


class History:
    """Snapshots of a training. Add the topology at the start, and again after each update::

        history = History()
        history.add(sparse.step, sparse.masks)
        for step in range(total_steps):
            ...  # the training step
            if schedule.fires(step):
                history.add(sparse.step, sparse.masks)

    A history keeps the numbers of all snapshots, but of the masks only the latest and their union over time. It can be
    pickled.
    """

    def __init__(self) -> None:
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
                the masks belong to other layers than before. The history stays unchanged then.
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
        snapshot = Snapshot(
            step,
            density(copies),
            churn(before, copies),
            density(ever),
            densities={name: density({name: mask}) for name, mask in copies.items()},
            layers_moved=moved(before, copies),
        )
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
