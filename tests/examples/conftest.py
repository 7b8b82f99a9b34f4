"""The quickstart is a folder that Python runs, so its modules import each other by plain names."""

from __future__ import annotations

import sys
from pathlib import Path

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"

sys.path.insert(0, str(QUICKSTART))
