"""Python runs the folders of the quickstart and of the comparison; their modules import each other by plain names."""

from __future__ import annotations

import sys
from pathlib import Path

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"

sys.path[:0] = [str(QUICKSTART), str(QUICKSTART.parent / "methods")]
