"""The share of a layer's active connections that an update moves: f(t) of the RigL paper, section 3 (2) and its
appendix on decays.

A decay is any object with the two members of `DropFraction`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from rigl_core.model.numbers import decimal
from rigl_core.parts.schedules import UpdateSchedule

_DECIMALS = 12


@runtime_checkable
class DropFraction(Protocol):
    """The members that the plan reads."""

    @property
    def kind(self) -> str:
        """The name in saved recipes."""

    def fraction(self, progress: float) -> float:
        """The share of the active connections to move, in [0, 1].

        Args:
            progress: (t - begin) / (end - begin), in [0, 1).
        """


@dataclass(frozen=True)
class _Decay:
    alpha: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= decimal(self.alpha, "alpha") <= 1:
            raise ValueError(f"alpha is {self.alpha}: it must be in [0, 1], the share of active connections to move.")
        object.__setattr__(self, "alpha", float(decimal(self.alpha, "alpha")))


@dataclass(frozen=True)
class Cosine(_Decay):
    """f = alpha/2 * (1 + cos(pi * progress)), the paper's default (equation 1)."""

    kind: ClassVar[str] = "cosine"

    def fraction(self, progress: float) -> float:
        return self.alpha / 2 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class Constant(_Decay):
    """f = alpha."""

    kind: ClassVar[str] = "constant"

    def fraction(self, progress: float) -> float:
        return self.alpha


@dataclass(frozen=True)
class Linear(_Decay):
    """f = alpha * (1 - progress)."""

    kind: ClassVar[str] = "linear"

    def fraction(self, progress: float) -> float:
        return self.alpha * (1 - progress)


@dataclass(frozen=True)
class InversePower(_Decay):
    """f = alpha * (1 - progress) ** power; the paper tries powers 1 and 3 (Zhu & Gupta's ramp, mirrored)."""

    kind: ClassVar[str] = "inverse_power"
    power: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if decimal(self.power, "power") <= 0:
            raise ValueError(f"power is {self.power}: it must be positive.")
        object.__setattr__(self, "power", float(decimal(self.power, "power")))

    def fraction(self, progress: float) -> float:
        return float(self.alpha * (1 - progress) ** self.power)


DROP_FRACTIONS: Mapping[str, type] = {cls.kind: cls for cls in (Cosine, Constant, Linear, InversePower)}


def drop_counts(
    schedule: UpdateSchedule, drop_fraction: DropFraction, active: Sequence[int] | npt.NDArray[np.int64]
) -> npt.NDArray[np.int32]:
    """The table k[update, layer] = floor(f(t) * active), computed once; traced code only indexes it.

    f is rounded to 12 decimals. The arithmetic after that is exact, so the table is the same on every machine
    (float32 and float64 disagree about int(0.7 * 90)).

    Args:
        schedule: the times of the updates.
        drop_fraction: f.
        active: integers (layers,): active weights of each layer; or (updates, layers): those at each update.

    Returns:
        int32 array of shape (updates, layers).

    Raises:
        ValueError: if a fraction is outside [0, 1].
    """
    return counts_of(fraction_numbers(schedule, drop_fraction), np.atleast_2d(np.asarray(active, np.int64)))


def counts_of(fractions: npt.NDArray[np.int64], active: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """floor(f * active) for every update and layer, without large tables in between.

    Args:
        fractions: int64 (updates,), from `fraction_numbers`.
        active: int64 (updates, layers), below 2**31. Either argument may have a single row, used for all updates.

    Returns:
        int32 array (updates, layers).
    """
    # floor(f * n / 10^12), with f split into two digits of base 10^6, since the product f * n can exceed 64 bits.
    base = 10 ** (_DECIMALS // 2)
    high, low = np.divmod(fractions, base)
    counts = np.empty((*np.broadcast_shapes(fractions.shape, active.shape[:1]), active.shape[1]), np.int32)
    for layer, column in enumerate(active.T):
        counts[:, layer] = (high * column + low * column // base) // base
    return counts


def fraction_numbers(schedule: UpdateSchedule, drop_fraction: DropFraction) -> npt.NDArray[np.int64]:
    """f at each update, rounded to 12 decimals and multiplied by 10**12: 0.3 becomes 300,000,000,000.

    Returns:
        int64 array (updates,).

    Raises:
        ValueError: if a fraction is outside [0, 1].
    """
    fractions = [drop_fraction.fraction(schedule.progress(update)) for update in range(schedule.updates)]
    for update, fraction in enumerate(fractions):
        if not 0 <= fraction <= 1:
            raise ValueError(
                f"drop_fraction gives {fraction} at step {schedule.step_of(update)}: it must stay in [0, 1]."
            )
    # Text is rounded exactly. Many updates often have the same fraction, so each fraction is converted once.
    numbers = {fraction: int(f"{fraction:.{_DECIMALS}f}".replace(".", "")) for fraction in set(fractions)}
    return np.fromiter((numbers[fraction] for fraction in fractions), np.int64, len(fractions))


def fraction_digits(fractions: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """The digits of the numbers of `fraction_numbers`, for `rigl_core.arrays.sharing.share_of`.

    Args:
        fractions: int64 (updates,).

    Returns:
        int32 array (updates, 13): the whole part, then the 12 decimals.
    """
    places = 10 ** np.arange(_DECIMALS, -1, -1, dtype=np.int64)
    return (fractions[:, None] // places % 10).astype(np.int32)
