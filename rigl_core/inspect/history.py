"""What a topology went through: its densities, moves and R_s after each update."""

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
    """A topology at one time, and how far it has moved since the snapshot before it.

    Attributes:
        step: optimizer steps done by then.
        density: active share of all connections.
        moved: share of the active connections that are new; 0 in the first snapshot.
        r_s: share of all connections that were active in this snapshot or one before it: R_s, the in-time
            over-parameterization rate (Liu et al. 2021, section 3.1).
        densities: of each layer, by name.
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

    It holds numbers, and of the masks only the last ones and their union over time; it can be pickled.
    """

    def __init__(self) -> None:
        self._snapshots: list[Snapshot] = []
        self._masks: dict[str, npt.NDArray[np.bool_]] = {}
        self._ever_active: dict[str, npt.NDArray[np.bool_]] = {}

    def add(self, step: int, masks: Masks) -> Snapshot:
        """Note what the topology is like.

        Args:
            step: optimizer steps done, as the ``step`` of every adapter counts them.
            masks: bool arrays by layer name, as the ``masks`` of every adapter; they are copied.

        Raises:
            TypeError, ValueError: if ``step`` is no whole number or not after the last one, or the masks are
                not of the same layers as before; nothing has been added then.
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
        """Copies of the masks that were added last, by layer name."""
        return {name: mask.copy() for name, mask in self._masks.items()}

    @property
    def ever_active(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Copies of the masks of all connections that were active in some snapshot, by layer name."""
        return {name: mask.copy() for name, mask in self._ever_active.items()}
