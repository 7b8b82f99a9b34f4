"""The memory floor: what any update must spend on reading and writing, measured beside it, in the same process."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import numpy as np

BYTES_PER_WEIGHT = 14
"""Read the weight, its gradient and its mask once, write weight and mask once; one more number of momentum is +8."""
COPIED = 48 << 20
"""Bytes of the array that is copied: beyond the caches, together with its copy."""


class MemoryFloor:
    """Copies memory with all cores, for as long as an update takes: what else the machine does slows both alike."""

    def __init__(self) -> None:
        self._source = np.ones(COPIED, np.uint8)
        self._target = np.zeros(COPIED, np.uint8)
        cores = len(os.sched_getaffinity(0))
        self._parts = [slice(i * COPIED // cores, (i + 1) * COPIED // cores) for i in range(cores)]
        self._threads = ThreadPoolExecutor(cores)
        self._copy()

    def seconds(self, weights: int, momentum: bool = False, during: float = 0.0) -> float:
        """What reading and writing this many weights takes.

        Args:
            weights: how many.
            momentum: with one more number each.
            during: for how many seconds to copy, at least; the mean counts.
        """
        share = weights * (BYTES_PER_WEIGHT + 8 * momentum) / (2 * COPIED)  # a copy reads and writes
        copies, start = 0, perf_counter()
        while copies == 0 or perf_counter() - start < during:
            self._copy()
            copies += 1
        return share * (perf_counter() - start) / copies

    def _copy(self) -> None:
        list(self._threads.map(lambda part: np.copyto(self._target[part], self._source[part]), self._parts))
