"""Work in threads of our own: a fork cannot leave them waiting, and no other library waits for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
    helpers = [_pool().submit(_do, left, memory) for _ in range(min(threads, len(works)) - 1)]
    try:
        _do(left, memory)
    finally:
        for helper in helpers:
            helper.cancel()
        for helper in helpers:
            if not helper.cancelled():
                helper.result()


def ranges(size: int, parts: int, step: int = 1) -> list[tuple[int, int]]:
    """Cut a range into parts of nearly equal sizes, which are multiples of a step; only the last one need not be."""
    steps = -(-size // step)
    bounds = [min(step * (steps * part // parts), size) for part in range(parts + 1)]
    return [(begin, end) for begin, end in pairwise(bounds) if begin < end]


def _do(left: Iterator[Callable[[Memory], object]], memory: Callable[[], Memory]) -> None:
    own = memory()
    for work in left:
        work(own)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="rigl_core.sparse")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has none of its parent's threads
