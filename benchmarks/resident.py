"""Peak memory, as the operating system counts it, so that the allocators of all libraries count."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

_PROCESS = Path("/proc/self")


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
