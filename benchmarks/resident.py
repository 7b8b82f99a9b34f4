"""Peak memory, as the operating system counts it: allocators of all libraries alike."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

_PROCESS = Path("/proc/self")


def peak_extra_bytes(act: Callable[[], object]) -> int:
    """Bytes of memory that ``act`` needs at its peak beyond what the process holds before.

    What allocators keep of earlier work is given back to the system first, so it counts again.
    """
    ctypes.CDLL(None).malloc_trim(0)
    (_PROCESS / "clear_refs").write_text("5")  # the peak is now what is held
    before = _status("VmRSS")
    act()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    for line in (_PROCESS / "status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"{_PROCESS / 'status'} has no {field}: memory can be measured on Linux only.")
