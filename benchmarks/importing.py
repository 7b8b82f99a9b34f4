"""The time to import the core, and to import names from it, divided by that of ``import numpy``."""

from __future__ import annotations

import statistics
import subprocess
import sys

from results import Result
from settings import Settings

TARGET = 1.2


def measure(settings: Settings) -> list[Result]:
    """Medians over fresh processes; the statements are measured in turns."""
    statements = ("import numpy", "import rigl_core", "from rigl_core import RigL, make_plan")
    seconds: dict[str, list[float]] = {statement: [] for statement in statements}
    for _ in range(settings.rounds(40, 10)):
        for statement, own in seconds.items():
            own.append(_seconds(statement))
    numpy = seconds["import numpy"]
    results = []
    for statement, target in zip(statements[1:], (TARGET, None), strict=True):
        ratio = statistics.median(seconds[statement]) / statistics.median(numpy)
        results.append(Result("import", statement, "", ratio, "x NumPy", ratio, target, seconds[statement], numpy))
    return results


def _seconds(statement: str) -> float:
    code = f"from time import perf_counter as now; start = now(); {statement}; print(now() - start)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
