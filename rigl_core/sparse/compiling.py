"""How the loops of the kernels are compiled: once, for all shapes, and kept on disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

from numba import njit, types
from numba.core.caching import FunctionCache

Loop = TypeVar("Loop", bound=Callable[..., Any])

LOGGER = logging.getLogger("rigl_core.sparse")
SLOW = 1.0
"""Seconds that a user notices."""


def read(dtype: Any, axes: int = 1) -> Any:
    """The type of an array that is only read; with two axes, rows may lie apart."""
    return types.Array(dtype, axes, "A" if axes == 2 else "C", readonly=True)


def written(axes: int = 1) -> Any:
    """The type of an array of float32 that is changed; with two axes, rows may lie apart."""
    return types.Array(types.float32, axes, "A" if axes == 2 else "C")


def part(function: Loop) -> Loop:
    """Make a function a part of loops: it is compiled into those that call it."""
    result: Loop = njit(nogil=True, error_model="numpy", boundscheck=False)(function)
    return result


def compiled(*arguments: Any) -> Callable[[Loop], Loop]:
    """Compile a loop for these types of arguments; keep it on disk if there is a place for it.

    A loop divides as NumPy does, checks no bounds, and holds no lock of Python.
    """

    def compile_loop(loop: Loop) -> Loop:
        result: Loop = njit(
            types.void(*arguments), nogil=True, error_model="numpy", boundscheck=False, cache=cache_of(loop) is not None
        )(loop)
        return result

    return compile_loop


def cache_of(loop: Callable[..., Any]) -> Path | None:
    """The folder in which numba keeps a compiled loop; None if it can write to none."""
    try:
        return Path(FunctionCache(loop).cache_path)
    except RuntimeError:  # numba's only way to say that no folder is writable
        return None


@contextmanager
def told_if_slow() -> Iterator[None]:
    """Log how long compilation took, and where its result is kept, if a user will have noticed."""
    start = perf_counter()
    yield
    seconds = perf_counter() - start
    if seconds > SLOW:
        where = cache_of(compiled)
        kept = f"the next process reads them from {where}" if where else "no folder to keep them in is writable"
        LOGGER.warning("The kernels of sparse layers were compiled in %.1f s; %s.", seconds, kept)
