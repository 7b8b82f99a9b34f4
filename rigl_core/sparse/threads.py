"""Work in threads of our own: a fork cannot leave them waiting, and no other library waits for them."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from itertools import pairwise
from typing import TypeVar

Memory = TypeVar("Memory")


def run(works: Sequence[Callable[[Memory], object]], threads: int, memory: Callable[[], Memory]) -> None:
    """Do all of the works, each once, in any order.

    Args:
        works: what to do; works must not depend on each other.
        threads: the threads to use. The calling thread is one of them.
        memory: makes what a thread passes to each of its works.

    Raises:
        Exception: what a work raised; all works have ended by then, or will not start.
    """
    left = iter(works)

    def do() -> None:
        own = memory()
        for work in left:
            work(own)

    helpers = min(threads, len(works)) - 1
    futures = _helpers().start(do, helpers) if helpers > 0 else []
    try:
        do()
    finally:
        for future in futures:
            if not future.cancel():
                future.result()


def available_threads() -> int:
    """The processors that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return (os.cpu_count() or 1) if affinity is None else len(affinity(0))


def ranges(size: int, parts: int, step: int = 1) -> list[tuple[int, int]]:
    """Cut a range into parts of nearly equal sizes, which are multiples of a step; only the last one need not be."""
    steps = -(-size // step)
    bounds = [min(step * (steps * part // parts), size) for part in range(parts + 1)]
    return [(begin, end) for begin, end in pairwise(bounds) if begin < end]


class _Helpers:
    """The threads beside the calling one.

    They are kept off the processor that the caller runs on. In a virtual machine, Linux takes idle processors for
    processors of which the host has need. So it would wake a helper on the caller's processor, where it must wait.
    """

    def __init__(self) -> None:
        self._threads: list[int] = []
        self._pool = ThreadPoolExecutor(os.cpu_count(), "rigl_core.sparse", self._join)
        self._kept_off: tuple[int, int] | None = None
        self._processor = ctypes.CDLL(None).sched_getcpu if sys.platform == "linux" else None

    def start(self, do: Callable[[], None], times: int) -> list[Future[None]]:
        """Let some threads do the same."""
        if self._processor is not None:
            self._keep_off(self._processor())
        return [self._pool.submit(do) for _ in range(times)]

    def _join(self) -> None:
        self._threads.append(threading.get_native_id())

    def _keep_off(self, processor: int) -> None:
        if self._kept_off == (processor, len(self._threads)):
            return
        self._kept_off = (processor, len(self._threads))
        others = os.sched_getaffinity(0) - {processor}
        with suppress(OSError):  # where a sandbox forbids it, they work all the same
            for thread in self._threads if others else ():
                os.sched_setaffinity(thread, others)


_helpers = cache(_Helpers)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.cache_clear)  # a forked process has none of its parent's threads
