"""The tests import the examples by their plain names, as Python does when it runs one."""

from __future__ import annotations

import sys
from pathlib import Path

import tests.torchvision_operators  # noqa: F401  (Lightning and timm import torchvision)

EXAMPLES = Path(__file__).parents[2] / "examples" / "tools"

sys.path.append(str(EXAMPLES))
