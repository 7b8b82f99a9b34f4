"""The list of mutants, each with the property that must catch it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

Patch = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Property:
    """A test, the method to run it for, if the test has that parameter, and the backend and mode that have the bugs."""

    test: Callable[..., Any]
    method: str | None = None
    backend: str = "numpy"
    mode: str = "eager"

    def __str__(self) -> str:
        name: str = self.test.__name__
        parts = [part for part in (self.method, self.mode if self.mode != "eager" else None) if part is not None]
        return f"{name}[{', '.join(parts)}]" if parts else name


MUTANTS: dict[str, tuple[Patch, Property]] = {}
"""By name of the bug: the patch that makes it, and the property that must catch it."""


def caught_by(
    test: Callable[..., Any], method: str | None = None, *, backend: str = "numpy", mode: str = "eager"
) -> Callable[[Patch], Patch]:
    def register(patch: Patch) -> Patch:
        assert patch.__name__ not in MUTANTS, patch.__name__
        MUTANTS[patch.__name__] = patch, Property(test, method, backend, mode)
        return patch

    return register
