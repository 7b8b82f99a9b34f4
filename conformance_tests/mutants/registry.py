"""Where mutants are named, each with the property that must catch it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Patch = Callable[[pytest.MonkeyPatch], None]
MUTANTS: dict[str, tuple[Patch, Callable[..., Any]]] = {}
"""By the bug's name: how to make it, and the property that must catch it."""


def caught_by(property_: Callable[..., Any]) -> Callable[[Patch], Patch]:
    def register(patch: Patch) -> Patch:
        MUTANTS[patch.__name__] = patch, property_
        return patch

    return register
