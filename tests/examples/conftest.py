"""The quickstart and the comparison are folders that Python runs, whose modules import each other by plain names."""

from __future__ import annotations

import sys
from pathlib import Path

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"

sys.path[:0] = [str(QUICKSTART), str(QUICKSTART.parent / "methods")]
