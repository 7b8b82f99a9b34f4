"""What a run measures, and how often."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How long a run may take.

    Attributes:
        quick: one model, few sizes, few repetitions: under two minutes.
        rigl_torch: the Python of an environment with rigl-torch 0.5.2; None to leave it out.
    """

    quick: bool = False
    rigl_torch: str | None = None

    def python_of(self, module: str) -> str:
        """Whose Python runs a contender."""
        return self.rigl_torch if module == "rigl_torch" and self.rigl_torch else sys.executable

    def rounds(self, full: int, quick: int) -> int:
        """How many repetitions."""
        return quick if self.quick else full
