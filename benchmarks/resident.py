"""Peak memory, as the operating system counts it, so that the allocators of all libraries count."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

_PROCESS = Path("/proc/self")
_M_MMAP_THRESHOLD = -3  # of malloc.h
_LARGE = 1 << 16


def give_back_at_once() -> None:
    """Let large arrays go back to the system when they are freed, from now on.

    Otherwise glibc keeps arrays of up to 32 MiB for later ones, in each thread's arena. An array that takes another's
    place then counts beside it, whether both are needed at a time or not.

    Raises:
        RuntimeError: if this C library's malloc cannot do so.
    """
    if not ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE):
        raise RuntimeError("malloc keeps what is freed: memory can be measured with glibc only.")


def peak_extra_bytes(act: Callable[[], object]) -> int:
    """The peak of memory while ``act`` runs, minus the memory that the process held before, in bytes.

    Allocators first give unused memory back to the system. So memory counts if ``act`` uses it again.
    """
    ctypes.CDLL(None).malloc_trim(0)
    (_PROCESS / "clear_refs").write_text("5")  # sets the peak to the memory held now
    before = _status("VmRSS")
    act()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    for line in (_PROCESS / "status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"{_PROCESS / 'status'} has no {field}: memory can be measured on Linux only.")
