"""The memory floor: the time that any update must spend on reading and writing, measured in the update's process."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import numpy as np

BYTES_PER_WEIGHT = 14
"""Read the weight, its gradient and its mask once, write weight and mask once. Momentum adds 8 bytes."""
COPIED = 48 << 20
"""Bytes of the array that is copied. The array and its copy are larger than the caches."""


class MemoryFloor:
    """Copies memory with all cores, for as long as an update takes, so that other programs slow both alike."""

    def __init__(self) -> None:
        self._source = np.ones(COPIED, np.uint8)
        self._target = np.zeros(COPIED, np.uint8)
        cores = len(os.sched_getaffinity(0))
        self._parts = [slice(i * COPIED // cores, (i + 1) * COPIED // cores) for i in range(cores)]
        self._threads = ThreadPoolExecutor(cores)
        self._copy()

    def seconds(self, weights: int, momentum: bool = False, during: float = 0.0) -> float:
        """The seconds that reading and writing these weights takes.

        Args:
            weights: the number of weights.
            momentum: whether each weight has one more number.
            during: the least number of seconds to copy for; the result is the mean over the copies.
        """
        share = weights * (BYTES_PER_WEIGHT + 8 * momentum) / (2 * COPIED)  # a copy reads and writes
        copies, start = 0, perf_counter()
        while copies == 0 or perf_counter() - start < during:
            self._copy()
            copies += 1
        return share * (perf_counter() - start) / copies

    def _copy(self) -> None:
        list(self._threads.map(lambda part: np.copyto(self._target[part], self._source[part]), self._parts))
