"""How the loops of the kernels are compiled: once, for all shapes, and kept on disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import cache
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any, TypeVar

from numba import config, njit, types
from numba.core.caching import FunctionCache
from numba.core.dispatcher import Dispatcher

Loop = TypeVar("Loop", bound=Callable[..., Any])

LOGGER = logging.getLogger("rigl_core.sparse")
SLOW = 1.0
"""Seconds that a user notices."""
INCLUDED = ("compiling.py", "llvm.py", "numba_panels.py", "numba_pieces.py", "numba_vectors.py")
"""The files that are compiled into the loops of `numba_loops` and `convolution_loops`."""

if config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set, but the kernels of sparse layers must be compiled: unset it.")


def read(dtype: Any, axes: int = 1) -> Any:
    """The type of an array that is only read; with two axes, rows may lie apart."""
    return types.Array(dtype, axes, "A" if axes == 2 else "C", readonly=True)


def written(axes: int = 1) -> Any:
    """The type of an array of float32 that is changed; with two axes, rows may lie apart."""
    return types.Array(types.float32, axes, "A" if axes == 2 else "C")


def part(function: Loop, flags: Iterable[str] = ()) -> Loop:
    """Make a function a part of loops: it is compiled into those that call it."""
    result: Loop = njit(nogil=True, error_model="numpy", boundscheck=False, fastmath=set(flags))(function)
    return result


def compiled(*arguments: Any, in_any_order: bool = False) -> Callable[[Loop], Loop]:
    """Compile a loop for these types of arguments, and for no others; keep it on disk, if a folder is writable.

    Args:
        *arguments: their types.
        in_any_order: whether LLVM may add numbers in the order that suits the processor.
    """

    def compile_loop(loop: Loop) -> Loop:
        result = part(loop, ("contract", "nsz", "reassoc") if in_any_order else ())
        kept = _kept(loop)
        if kept is not None:
            result._cache = kept  # type: ignore[attr-defined]
        result.compile(types.void(*arguments))  # type: ignore[attr-defined]
        result.disable_compile()  # type: ignore[attr-defined]
        return result

    return compile_loop


def tell_if_compiled(loops: ModuleType, since: float) -> None:
    """Log how long the compilation of a module's loops took, and where its result is kept, if a user will have noticed.

    Args:
        loops: the module.
        since: when its import began, by `perf_counter`.
    """
    seconds = perf_counter() - since
    compilations = [loop.stats.cache_misses for loop in vars(loops).values() if isinstance(loop, Dispatcher)]
    if any(compilations) and seconds > SLOW:  # without a compilation, a busy machine only took long to read
        kept = _kept(compiled)
        where = f"the next process reads them from {kept.cache_path}" if kept else "no folder for them is writable"
        LOGGER.warning("The kernels of sparse layers were compiled in %.1f s; %s.", seconds, where)


class _Kept(FunctionCache):  # type: ignore[misc]
    """numba's compiled code on disk. By itself numba sees changes only in the file that the function is in."""

    def _index_key(self, kinds: Any, processor: Any) -> Any:
        return (*super()._index_key(kinds, processor), _sources())


def _kept(loop: Callable[..., Any]) -> Any:
    try:
        return _Kept(loop)
    except RuntimeError:  # so numba says that it can write to no folder
        return None


@cache
def _sources() -> str:
    """A digest of the included files."""
    return sha256(b"".join(Path(__file__).with_name(name).read_bytes() for name in INCLUDED)).hexdigest()
