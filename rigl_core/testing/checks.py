"""Decorators of properties: the rules that a property checks, and the cases that it runs on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from rigl_core.testing.harness import Harness

Case = TypeVar("Case")
PHASES = tuple(Phase)
TIMES = 1
"""A factor for the number of cases of every property: more cases make it less likely that a bug escapes by chance."""
Property = Callable[..., None]


def checks(*rules: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mark a property with the rules of docs/contract.md that it checks."""
    return pytest.mark.rule(*rules)


def for_all(
    cases: SearchStrategy[Case] | Callable[..., SearchStrategy[Case]], *, eager: int = 60, compiled: int = 8
) -> Callable[[Callable[[Harness, str, Case], None]], Property]:
    """Turn a check of one case into a property of a harness in a mode.

    Args:
        cases: the strategy that draws cases; or a function that returns the strategy. The property then also takes the
            function's keyword arguments.
        eager: the number of cases in eager mode, unless the harness says that this mode is slow.
        compiled: the number of cases in any other mode, where every case may cost a compilation.
    """

    def decorate(check: Callable[[Harness, str, Case], None]) -> Property:
        def property_(harness: Harness, mode: str, **chosen: Any) -> None:
            many = mode == "eager" and mode not in harness.slow_modes

            @settings(
                max_examples=TIMES * (eager if many else compiled),
                deadline=None,
                database=None,
                phases=PHASES,
                suppress_health_check=list(HealthCheck),
            )
            @given(cases if isinstance(cases, SearchStrategy) else cases(**chosen))
            def holds(case: Case) -> None:
                check(harness, mode, case)

            holds()

        property_.__name__ = check.__name__
        property_.__qualname__ = check.__qualname__
        property_.__doc__ = check.__doc__
        property_.__module__ = check.__module__
        return property_

    return decorate
