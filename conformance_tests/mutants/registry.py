"""The list of mutants, each with the property that must catch it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

Patch = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Property:
    """A test, and the method to run it for, if the test has that parameter."""

    test: Callable[..., Any]
    method: str | None = None

    def __str__(self) -> str:
        name: str = self.test.__name__
        return name if self.method is None else f"{name}[{self.method}]"


MUTANTS: dict[str, tuple[Patch, Property]] = {}
"""By name of the bug: the patch that makes it, and the property that must catch it."""


def caught_by(test: Callable[..., Any], method: str | None = None) -> Callable[[Patch], Patch]:
    def register(patch: Patch) -> Patch:
        assert patch.__name__ not in MUTANTS, patch.__name__
        MUTANTS[patch.__name__] = patch, Property(test, method)
        return patch

    return register
