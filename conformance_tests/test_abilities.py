"""Our harnesses say of everything that only some libraries have whether theirs has it, and why not."""

from __future__ import annotations

from rigl_core.testing import Harness
from rigl_core.testing.limits import ABILITIES


def test_every_ability_is_declared(harness: Harness, mode: str) -> None:
    assert sorted([*harness.has, *harness.lacks]) == sorted(ABILITIES)
    assert all(len(reason) > 20 for reason in harness.lacks.values())
