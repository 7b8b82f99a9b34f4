"""How much a run measures, and how often."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How long a run may take.

    Attributes:
        quick: one model, few sizes, few repetitions: under two minutes.
        rigl_torch: path of the Python of an environment with rigl-torch 0.5.2; None to leave rigl-torch out.
    """

    quick: bool = False
    rigl_torch: str | None = None

    def python_of(self, module: str) -> str:
        """The path of the Python that runs a contender."""
        return self.rigl_torch if module == "rigl_torch" and self.rigl_torch else sys.executable

    def rounds(self, full: int, quick: int) -> int:
        """The number of repetitions."""
        return quick if self.quick else full
